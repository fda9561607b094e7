"""READMEs of data sets as others write them: names of labels, files of splits, damage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from selfpos.data.card import label_names
from selfpos.data.folders import split_files
from selfpos.data.sources import load_source
from selfpos.errors import SelfposError
from selfpos.tasks import get_task
from tests.helpers.files import write_lines

NAMES = ["entailment", "not_entailment"]


def card(folder: Path, *lines: str) -> None:
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", "# A set", ""]))


def config(*lines: str) -> list[str]:
    return ["configs:", "- config_name: default", "  data_files:", *(f"  {line}" for line in lines)]


def features(kind: str) -> list[str]:
    return ["dataset_info:", "  features:", "  - name: label", f"    {kind}"]


def stems(folder: Path, split: str) -> list[str]:
    found = split_files(folder, split)
    return [file.relative_to(folder).as_posix() for file in found.files] if found else []


@pytest.mark.parametrize(
    "kind",
    [
        "dtype: {class_label: {names: [entailment, not_entailment]}}",
        "dtype: {class_label: {names: {'0': entailment, '1': not_entailment}}}",
        "dtype: {class_label: {names: {1: not_entailment, 0: entailment}}}",
        "list: {class_label: {names: [entailment, not_entailment]}}",
    ],
)
def test_names_of_labels_in_every_form(tmp_path: Path, kind: str) -> None:
    card(tmp_path, "pretty_name: a --- b", *features(kind))
    assert label_names(tmp_path) == {"label": NAMES}
    rows = [{"sentence1": f"q {n}", "sentence2": f"s {n}", "label": n % 2} for n in range(4)]
    write_lines(tmp_path / "train.jsonl", rows)
    found = load_source(str(tmp_path), get_task("pair-classification"))
    assert found.dataset["label"][:] == [1, 0, 1, 0]


def test_names_that_all_configurations_share_are_those_of_all_languages(tmp_path: Path) -> None:
    entry = "features: [{name: label, dtype: {class_label: {names: [entailment, not_entailment]}}}]"
    card(tmp_path, "dataset_info:", *(f"- {{config_name: {name}, {entry}}}" for name in ("de", "fr")))
    for name in ("de", "fr"):
        rows = [{"sentence1": f"{name} {n}", "sentence2": f"s {n}", "label": n % 2} for n in range(2)]
        write_lines(tmp_path / name / "train.jsonl", rows)
    found = load_source(str(tmp_path), get_task("pair-classification"))
    assert found.dataset["label"][:] == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("dataset_info: [", r"README.md: its metadata is not YAML: .*; mend or remove it"),
        (
            f"dataset_info: {'x' * 1_000_001}",
            r"README.md: its metadata is not YAML: it has .* expected at most",
        ),
        (
            "dataset_info: {features: [{name: label, dtype: {class_label: {names: {1: a, 2: b}}}}]}",
            r"README.md: its metadata, .*: labels are numbered 1, 2; expected 0, 1 and so on; mend",
        ),
        (
            "dataset_info: {features: [{name: label, dtype: {class_label: {names: {x: a}}}}]}",
            "labels are numbered x",
        ),
    ],
)
def test_metadata_that_cannot_be_read_is_named(tmp_path: Path, metadata: str, message: str) -> None:
    card(tmp_path, metadata)
    file = write_lines(tmp_path / "train.jsonl", [{"text": f"t {n}", "label": n % 2} for n in range(4)])
    for place in (tmp_path, file):
        with pytest.raises(SelfposError, match=message):
            load_source(str(place), get_task("classification"))


@pytest.mark.parametrize(
    "readme",
    [
        "---\n\n# Project\n\nUsage: see docs\n\n- a: [b\n",
        "---\nUsage: a: b\n\n---\n# Project\n",
        "---\ntitle: {{ page.title }}: x\nlayout: [\n---\n",
        "# Project\n---\ndataset_info: [\n---\n",
        "---\ntags: [a\n",
    ],
)
@pytest.mark.parametrize("above", [False, True])
def test_a_readme_of_something_else_is_no_card(tmp_path: Path, readme: str, above: bool) -> None:
    (tmp_path / "README.md").write_text(readme)
    folder = tmp_path / "data" if above else tmp_path
    file = write_lines(folder / "train.jsonl", [{"text": f"t {n}", "label": n % 2} for n in range(4)])
    for place in (folder, file):
        found = load_source(str(place), get_task("classification"))
        assert found.dataset["label"][:] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    "metadata",
    [
        "dataset_info: 3",
        "dataset_info: [3, null]",
        "configs: all",
        "configs: [{config_name: 2020, data_files: [{split: 3, path: null}, x]}]",
        "dataset_info: {features: [{dtype: string}, label, {name: label, dtype: {class_label: 2}}]}",
        "dataset_info: {features: 2}",
        "- a list",
        "1: 2",
        "only words",
        "",
    ],
)
def test_metadata_of_no_meaning_to_us_does_no_harm(tmp_path: Path, metadata: str) -> None:
    card(tmp_path, metadata)
    write_lines(tmp_path / "train.jsonl", [{"text": f"t {n}", "label": n % 2} for n in range(4)])
    assert load_source(str(tmp_path), get_task("classification")).dataset["label"][:] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/**", ["data/a.jsonl", "data/deep/b.jsonl"]),
        ("**.jsonl", ["c.jsonl", "data/a.jsonl", "data/deep/b.jsonl"]),
        ("**/b.*", ["data/deep/b.jsonl"]),
        ("data/**/*.jsonl", ["data/a.jsonl", "data/deep/b.jsonl"]),
        ("**/**/**/a.*", ["data/a.jsonl"]),
        ("data/**/deep/**/*.jsonl", ["data/deep/b.jsonl"]),
        ("c.jsonl/**", []),
        ("**", ["c.jsonl", "data/a.jsonl", "data/deep/b.jsonl"]),
        ("./data/*", ["data/a.jsonl"]),
        ("*/*/[ab].jsonl", ["data/deep/b.jsonl"]),
        ("['*.jsonl', 'c.*', data/a.jsonl]", ["c.jsonl", "data/a.jsonl"]),
    ],
)
def test_patterns_of_files(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    quoted = pattern if pattern.startswith("['") else f"'{pattern}'"
    card(tmp_path, *config("- split: train", f"  path: {quoted}"))
    for name in ("data/a.jsonl", "data/deep/b.jsonl", "c.jsonl", "data/notes.txt", "data/.x/d.jsonl"):
        write_lines(tmp_path / name, [{"text": "t", "label": 0}])
    assert stems(tmp_path, "train") == expected


def test_a_pattern_of_many_folders_takes_no_time(tmp_path: Path) -> None:
    card(tmp_path, *config("- split: train", f"  path: '{'**/a*/' * 20}b'"))
    write_lines(tmp_path / ("a/" * 40) / "a.jsonl", [{"text": "t", "label": 0}])
    start = time.process_time()
    assert stems(tmp_path, "train") == []
    assert time.process_time() - start < 1


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    card(tmp_path, *config("- split: train", "  path: ../other/*.jsonl"))
    with pytest.raises(SelfposError, match=r"lies outside .*; it may name only what is in that folder"):
        split_files(tmp_path, "train")


def test_the_split_asked_for_goes_before_one_of_the_same_kind(tmp_path: Path) -> None:
    names = ("dev", "validation", "eval")
    card(
        tmp_path, *config(*(line for name in names for line in (f"- split: {name}", f"  path: {name}.jsonl")))
    )
    for name in names:
        write_lines(tmp_path / f"{name}.jsonl", [{"text": name, "label": n} for n in range(2)])
    for split, expected in (("validation", "validation"), ("dev", "dev"), ("val", "validation")):
        found = load_source(str(tmp_path), get_task("classification"), split=split)
        assert set(found.dataset["text"]) == {expected}
        assert (f"split '{split}' is called {expected} there" in found.description) == (split != expected)
    (tmp_path / "README.md").unlink()
    found = load_source(str(tmp_path), get_task("classification"), split="test")
    assert set(found.dataset["text"]) == {"eval"}
    assert "split 'test' is called eval there" in found.description


def test_parts_may_be_numbered_from_1(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"t {n}", "label": n} for n in range(3)]
    for part in (1, 2, 3):
        write_lines(tmp_path / f"train-{part:05d}-of-00003.jsonl", rows[part - 1 : part])
    found = load_source(str(tmp_path), get_task("classification"))
    assert found.dataset["text"][:] == ["t 0", "t 1", "t 2"]
    (tmp_path / "train-00002-of-00003.jsonl").unlink()
    with pytest.raises(SelfposError, match="has 2 of the 3 parts of train: part 00002 is missing"):
        split_files(tmp_path, "train")


@pytest.mark.parametrize("listed", [False, True])
def test_endings_in_capitals_are_found(tmp_path: Path, listed: bool) -> None:
    if listed:
        card(tmp_path, *config("- split: train", "  path: train.CSV"))
    (tmp_path / "train.CSV").write_text("text,label\na,0\nb,1\n")
    assert load_source(str(tmp_path), get_task("classification")).dataset["text"][:] == ["a", "b"]


def test_a_readme_is_read_once_for_all_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfpos.data import card as module

    card(tmp_path, *features("dtype: string"))
    for name in ("de", "fr", "it", "nl"):
        write_lines(tmp_path / name / "train.jsonl", [{"text": name, "label": n} for n in range(2)])
    parsed: list[str] = []
    monkeypatch.setattr(module, "parse_yaml", lambda text: parsed.append(text) or {})
    found = load_source(str(tmp_path), get_task("classification"))
    assert len(found.dataset) == 8 and len(parsed) <= 3
