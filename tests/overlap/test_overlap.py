"""The overlap guard's comparison: near duplicates against brute force, items against closed cases and the
real table.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset

from selfpos.overlap.index import ItemIndex, NearIndex, band_shape, normalise, shingles

STS = {
    "STS12": ("sts12", 1003),
    "STS13": ("sts13", 597),
    "STS14": ("sts14", 1861),
    "STS15": ("sts15", 1102),
    "STS16": ("sts16", 197),
}


def pairs(*records: tuple[str, str]) -> Dataset:
    return Dataset.from_dict({"a": [first for first, _ in records], "b": [second for _, second in records]})


def test_normalising_drops_case_punctuation_spacing_and_compatible_forms() -> None:
    assert normalise("  The “ﬁrst” one,  isn't\tIT? ") == "the first one isn t it"
    assert normalise("ＡＢＣ 今日は。") == "abc 今日は"
    assert normalise("...") == ""


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_near_texts_are_those_of_brute_force(threshold: float) -> None:
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(1, 7))) for _ in range(60)]
    texts = [" ".join(draw.choices(words, k=draw.randint(0, 25))) for _ in range(120)]
    asked = (
        [" ".join(word for word in text.split() if draw.random() > 0.08) for text in texts]
        + texts[:20]
        + ["", "a"]
    )

    def jaccard(one: str, other: str) -> float:
        mine, theirs = shingles(one), shingles(other)
        return len(mine & theirs) / len(mine | theirs)

    wanted = {
        place: near
        for place, text in enumerate(asked)
        if (near := [i for i, other in enumerate(texts) if jaccard(text, other) >= threshold])
    }
    assert NearIndex(texts, threshold).near(asked) == wanted
    assert any(jaccard(asked[place], texts[near[0]]) < 1 for place, near in wanted.items()) or threshold == 1


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_find_all_but_one_in_a_thousand_at_the_threshold(threshold: float) -> None:
    bands, rows = band_shape(threshold)
    assert bands * rows <= 256
    assert (1 - threshold**rows) ** bands <= 1e-3
    for wrong in (0.0, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            band_shape(wrong)


def test_a_pair_is_given_away_in_any_order_and_never_by_one_text_alone() -> None:
    tests = {
        "pairs": [("A cat sat.", "A dog ran"), ("same", "same"), ("only here", "and there")],
        "texts": [("a dog ran!",)],
    }
    found = ItemIndex(tests, None).check(
        pairs(("a DOG ran", "a cat sat"), ("same", "other"), ("only here", "only here"), ("x", "y")),
        ["a", "b"],
    )
    assert found.rows == [0]
    assert (found.tasks["pairs"].items, found.tasks["pairs"].exact, found.tasks["pairs"].near) == (3, 1, 0)
    assert (found.tasks["pairs"].texts, found.tasks["pairs"].records) == (4, 1)
    assert (found.tasks["texts"].exact, found.tasks["texts"].records) == (1, 1)
    twice = ItemIndex({"pairs": [("same", "same")]}, None).check(pairs(("same", "Same")), ["a", "b"])
    assert twice.rows == [0]


def test_near_items_are_counted_apart_and_lists_of_texts_are_looked_through() -> None:
    long = "the committee will meet again in the morning to decide on the budget of the coming year"
    records = Dataset.from_dict(
        {"query": ["q", "r"], "positive": [[long + "s", "unrelated words"], ["nothing of it"]]}
    )
    tests = {"queries": [(long,), (long + ".",), ("quite another text that nobody has",)]}
    found = ItemIndex(tests).check(records, ["query", "positive"])
    assert (found.rows, found.tasks["queries"].exact, found.tasks["queries"].near) == ([0], 0, 2)
    assert not ItemIndex(tests, None).check(records, ["query", "positive"]).rows


def test_every_occurrence_of_a_test_item_counts() -> None:
    found = ItemIndex({"t": [("one", "two"), ("two", "one"), ("one", "three")]}, None).check(
        pairs(("One", "Two")), ["a", "b"]
    )
    assert found.tasks["t"].exact == 2


@pytest.fixture(scope="module")
def real(text_data: Path) -> tuple[Dataset, dict[str, list[tuple[str, ...]]]]:
    def read(name: str) -> list[dict]:
        return [json.loads(line) for line in (text_data / name).read_text(encoding="utf-8").splitlines()]

    train = Dataset.from_list(
        [{"a": row["sentence1"], "b": row["sentence2"]} for row in read("stsbenchmark/train.jsonl")]
    )
    return train, {
        task: [(row["sentence1"], row["sentence2"]) for row in read(f"{folder}/test.jsonl")]
        for task, (folder, _) in STS.items()
    }


def test_the_pairs_that_stsbenchmark_took_from_the_test_sets_of_before(
    real: tuple[Dataset, dict[str, list[tuple[str, ...]]]],
) -> None:
    train, tests = real
    found = ItemIndex(tests, None).check(train, ["a", "b"])
    assert {task: overlap.exact for task, overlap in found.tasks.items()} == {
        task: count for task, (_, count) in STS.items()
    }
    cleaned = train.select(sorted(set(range(len(train))) - set(found.rows)))
    assert not ItemIndex(tests, None).check(cleaned, ["a", "b"]).rows


def test_an_independent_count_of_the_same_table(
    real: tuple[Dataset, dict[str, list[tuple[str, ...]]]],
) -> None:
    train, tests = real

    def key(texts: tuple[str, ...]) -> frozenset:
        return frozenset(Counter("".join(filter(str.isalnum, text.lower())) for text in texts).items())

    known = {key((row["a"], row["b"])) for row in train}
    assert [sum(key(item) in known for item in items) for items in tests.values()] == [
        count for _, count in STS.values()
    ]


def test_near_items_of_real_text_by_brute_force(
    real: tuple[Dataset, dict[str, list[tuple[str, ...]]]],
) -> None:
    train, tests = real
    train, items = train.select(range(0, len(train), 80)), tests["STS12"][::40]
    found = ItemIndex({"t": items}, 0.6).check(train, ["a", "b"])

    def near(one: str, other: str) -> bool:
        mine, theirs = shingles(normalise(one)), shingles(normalise(other))
        return 10 * len(mine & theirs) >= 6 * len(mine | theirs)

    def gives(item: tuple[str, ...], record: tuple[str, ...]) -> bool:
        return any(all(map(near, item, order)) for order in itertools.permutations(record))

    records = [(row["a"], row["b"]) for row in train]
    assert found.tasks["t"].exact + found.tasks["t"].near == sum(
        any(gives(item, record) for record in records) for item in items
    )
