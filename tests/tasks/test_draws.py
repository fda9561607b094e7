"""What a batch promises, whatever the records."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpos.errors import SelfposError
from selfpos.tasks import get_task
from selfpos.tasks.draws import gives_no_batch

small = st.integers(0, 6).map(str)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(small, small, small), min_size=2, max_size=30), st.integers(2, 8), st.integers(0, 99)
)
def test_no_two_records_of_a_retrieval_batch_share_a_text(triples: list[tuple], size: int, seed: int) -> None:
    names = ("anchor", "positive", "negative")
    data = Dataset.from_dict(
        {name: [triple[place] for triple in triples] for place, name in enumerate(names)}
    )
    try:
        batch = get_task("retrieval").draw(data, size, torch.Generator().manual_seed(seed))
    except SelfposError:
        assert all(set(a) & set(b) for a in triples for b in triples)  # no two records are apart
        return
    drawn = list(zip(*batch.values(), strict=True))
    assert 2 <= len(drawn) <= size and set(drawn) <= set(triples)
    texts = [text for record in drawn for text in set(record)]
    assert len(texts) == len(set(texts))
    assert len(drawn) < size or not gives_no_batch(data, names, size)
    if len(drawn) < size:  # only when nothing more would fit
        assert all(set(record) & set(texts) for record in triples)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=4, max_size=40), st.integers(4, 12), st.integers(0, 99))
def test_every_record_of_a_label_batch_has_a_positive_and_a_negative(
    labels: list[int], size: int, seed: int
) -> None:
    data = Dataset.from_dict({"text": [str(i) for i in range(len(labels))], "label": labels})
    try:
        batch = get_task("classification").draw(data, size, torch.Generator().manual_seed(seed))
    except SelfposError:
        assert sum(count >= 2 for count in Counter(labels).values()) < 2
        return
    counts = Counter(batch["label"])
    assert len(counts) >= 2 and min(counts.values()) >= 2 and 4 <= len(batch["text"]) <= size
    assert len(set(batch["text"])) == len(batch["text"])
    assert all(labels[int(text)] == label for text, label in zip(batch["text"], batch["label"], strict=True))


@pytest.mark.parametrize("size", [4, 6, 8])
def test_a_label_batch_is_as_full_as_its_records_allow(size: int) -> None:
    data = Dataset.from_dict({"text": list("abcdefgh"), "label": [0] * 4 + [1] * 4})
    batch = get_task("classification").draw(data, size, torch.Generator().manual_seed(0))
    assert len(set(batch["text"])) == size


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 29), st.integers(2, 8), st.integers(0, 99))
def test_a_pair_batch_never_has_a_single_target(ones: int, size: int, seed: int) -> None:
    data = Dataset.from_dict(
        {"sentence1": list("x" * 30), "sentence2": list("y" * 30), "label": [1] * ones + [0] * (30 - ones)}
    )
    batch = get_task("pair-classification").draw(data, size, torch.Generator().manual_seed(seed))
    assert set(batch["label"]) == {0, 1} and len(batch["label"]) == size


def test_a_draw_is_decided_by_its_generator() -> None:
    data = Dataset.from_dict(
        {"anchor": [f"a{i}" for i in range(50)], "positive": [f"p{i}" for i in range(50)]}
    )
    first, again, other = (
        get_task("retrieval").draw(data, 8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("name", ["classification", "retrieval"])
def test_a_batch_that_cannot_be_drawn_is_refused(name: str) -> None:
    data = (
        {"text": list("abc"), "label": [0, 0, 1]}
        if name == "classification"
        else {"anchor": ["a", "a"], "positive": ["b", "c"]}
    )
    with pytest.raises(SelfposError, match="a batch needs 2"):
        get_task(name).draw(Dataset.from_dict(data), 4, torch.Generator())
