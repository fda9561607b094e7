"""Which records the two sides are read from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from selfpos.errors import SelfposError
from selfpos.recipe import RetainSettings
from selfpos.retention.sources import read_side, read_sides
from selfpos.storage.model_folder import open_model
from tests.helpers.retaining import pair_file, sentences


def read(base: Path, word: str, side: str = "domain") -> tuple[set[str], str]:
    """The first texts of the records, and what is said."""
    said: list[str] = []
    (task,) = read_side(side, [word], open_model(base), RetainSettings(), said.append).values()  # type: ignore[arg-type]
    return {text.removeprefix("query: ") for text in task.dataset["anchor"]}, "\n".join(said)


@pytest.mark.parametrize("name", ["validation.jsonl", "dev.jsonl", "data/val-00000-of-00001.jsonl"])
def test_the_validation_split_is_taken_wherever_a_folder_has_it(
    tiny_base: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "set"
    (folder / name).parent.mkdir(parents=True)
    shutil.copy(pair_file(tmp_path, "held", 1), folder / name)
    shutil.copy(pair_file(tmp_path, "trained", 2), (folder / name).parent / "train.jsonl")
    texts, said = read(tiny_base, f"retrieval={folder}")
    assert texts == set(sentences(60, 1))
    assert "not held out" not in said


def test_the_validation_split_of_a_saved_data_set_may_have_another_name(
    tiny_base: Path, tmp_path: Path
) -> None:
    parts = {
        name: Dataset.from_json(str(pair_file(tmp_path, name, n))) for n, name in enumerate(("train", "dev"))
    }
    DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    texts, said = read(tiny_base, f"retrieval={tmp_path / 'set'}")
    assert texts == set(sentences(60, 1))
    assert "split 'validation' is called dev there" in said


def test_a_record_that_is_there_twice_counts_once(tiny_base: Path, tmp_path: Path) -> None:
    """Copies would make every test as sure as if new records had said the same."""
    once = pair_file(tmp_path, "once", 1)
    twice = tmp_path / "twice.jsonl"
    twice.write_text(f"{once.read_text()}\n" * 2)
    said: list[str] = []
    (task,) = read_side(
        "general", [f"retrieval={twice}"], open_model(tiny_base), RetainSettings(), said.append
    ).values()
    assert len(task.records) == 60
    assert said == [f"{twice}: 60 records (dropped: 60 that occur before)"]


@pytest.mark.parametrize(
    ("word", "content", "words"),
    [
        ("retrieval=", "", "'retrieval=' names no data: give retrieval=FILE"),
        ("retrieval={}", '{"mine": "a", "positive": "b"}\n', "or premise; rename one in the data$"),
        ("retrieval={}", '{"query": "a", "positive": "b"}\n' * 40, "gives 1 records for task a, and 32 are"),
    ],
)
def test_records_that_are_refused_say_what_can_be_done_here(
    tiny_base: Path, tmp_path: Path, word: str, content: str, words: str
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    with pytest.raises(SelfposError, match=words):
        read(tiny_base, word.format(file))


def test_a_task_that_cannot_be_measured_is_named(tiny_base: Path, tmp_path: Path) -> None:
    alike = tmp_path / "alike.jsonl"
    alike.write_text("".join(json.dumps({"text": text, "label": "x"}) + "\n" for text in sentences(60, 2)))
    settings = RetainSettings(
        domain=[f"retrieval={pair_file(tmp_path, 'qa', 1)}"], general=[f"classification={alike}"]
    )
    with pytest.raises(SelfposError, match=r"^general task alike: .* at least 2 labels"):
        read_sides(open_model(tiny_base), settings, dict, str)


def test_the_validation_judgements_of_a_beir_folder_are_taken(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    texts = sentences(80, 3)
    for name in ("corpus", "queries"):
        lines = (json.dumps({"_id": f"{n}", "text": f"{name} {text}"}) for n, text in enumerate(texts))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    for split, numbers in (("train", range(40)), ("dev", range(40, 80))):
        rows = "".join(f"{n}\t{n}\t1\n" for n in numbers)
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    assert read(tiny_base, f"retrieval={folder}")[0] == {f"queries {text}" for text in texts[40:]}


def test_a_domain_of_training_records_is_named_and_general_data_is_not(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "set").mkdir()
    shutil.copy(pair_file(tmp_path, "trained", 2), tmp_path / "set" / "train.jsonl")
    assert "not held out" in read(tiny_base, "retrieval=~/set")[1]
    assert "not held out" not in read(tiny_base, "retrieval=~/set", "general")[1]


def test_texts_of_both_sides_are_compared_without_their_line_ends(tiny_base: Path, tmp_path: Path) -> None:
    texts = sentences(60, 4)
    domain = tmp_path / "domain.jsonl"
    lines = (json.dumps({"query": text.replace(" ", "\n", 1), "positive": f"{text}!"}) for text in texts)
    domain.write_text("\n".join(lines))
    general = tmp_path / "general.txt"
    general.write_text("\n".join(texts[:20] + sentences(40, 5)))
    settings = RetainSettings(domain=[f"retrieval={domain}"], general=[str(general)])
    said: list[str] = []
    tasks = read_sides(open_model(tiny_base), settings, dict, said.append)
    assert "general task general goes without 20 records" in said[-1]
    assert len(tasks[1].texts) == 40


def test_too_few_records_that_finetune_held_out_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    few = read_side(
        "domain", [f"retrieval={pair_file(tmp_path, 'qa', 1)}"], open_model(tiny_base), RetainSettings(), str
    )
    few = {name: type(task)(name, task.type, task.records.select(range(9))) for name, task in few.items()}
    with pytest.raises(
        SelfposError, match="what was held out gives 9 records for task qa, and 32 are needed"
    ):
        read_sides(open_model(tiny_base), RetainSettings(), lambda: few, str)
