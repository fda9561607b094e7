"""What a recipe's probe takes of small tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfpos.data.tasks import load_tasks
from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, TrainingSettings
from tests.helpers.files import write_lines


def recipe(folder: Path, **probe: Any) -> Recipe:
    rows = [{"question": f"question {n}", "answer": f"answer {n}"} for n in range(150)]
    write_lines(folder / "pairs.jsonl", rows)
    task = {"type": "retrieval", "data": str(folder / "pairs.jsonl")}
    return Recipe.model_validate(
        {
            "name": "mine", "base": "base", "tasks": {"pairs": task}, "evaluation": {"tasks": ["STS16"]},
            "merges": {"average": {"method": "average"}}, "probe": probe,
        }
    )  # fmt: skip


def test_a_small_task_gives_a_quarter_where_nothing_else_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = load_tasks(recipe(tmp_path), None)["pairs"]
    assert (len(found.probe), len(found.training)) == (37, 113)
    assert "task pairs: the probe takes 37 of its 150 records" in caplog.text


def test_a_probe_of_records_that_nothing_is_trained_on_takes_all_that_it_may(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    for split, count in (("train", 150), ("validation", 300)):
        rows = [{"question": f"{split} {n}", "answer": f"answer {split} {n}"} for n in range(count)]
        write_lines(folder / f"{split}.jsonl", rows)
    small = recipe(tmp_path, split="validation")
    task = small.tasks["pairs"].model_copy(update={"data": str(folder)})
    found = load_tasks(small.model_copy(update={"tasks": {"pairs": task}}), None)["pairs"]
    assert (len(found.probe), len(found.training)) == (256, 150)


def test_a_number_that_is_asked_for_is_taken_or_refused_by_its_name(tmp_path: Path) -> None:
    found = load_tasks(recipe(tmp_path, per_task=100), None)["pairs"]
    assert (len(found.probe), len(found.training)) == (100, 50)
    with pytest.raises(
        SelfposError, match=r"task pairs: a probe of 150 .* give more data \(probe.per_task\)"
    ):
        load_tasks(recipe(tmp_path, per_task=150), None)


@pytest.mark.parametrize("part", ["probe", "validation"])
@pytest.mark.parametrize("saved", [False, True])
def test_another_split_of_what_has_none_is_refused(part: str, saved: bool, tmp_path: Path) -> None:
    from datasets import Dataset

    asked = recipe(tmp_path, **({"split": "test"} if part == "probe" else {}))
    if part == "validation":
        training = TrainingSettings.model_validate({"validation": {"split": "test"}})
        asked = asked.model_copy(update={"training": training})
    if saved:
        Dataset.from_json(str(tmp_path / "pairs.jsonl")).save_to_disk(tmp_path / "saved")
        task = asked.tasks["pairs"].model_copy(update={"data": str(tmp_path / "saved")})
        asked = asked.model_copy(update={"tasks": {"pairs": task}})
    with pytest.raises(SelfposError, match="has no split 'test', for it is all one"):
        load_tasks(asked, None)
