"""Columns read as lists hold what they held before, through every change that mteb makes to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Column, Dataset, DatasetDict

from selfpos.evaluation import evaluate
from selfpos.evaluation.recording import columns_as_lists, listed
from selfpos.evaluation.tasks import new_task


def rows(count: int = 12) -> Dataset:
    return Dataset.from_dict(
        {
            "text": [f"text {number}" for number in range(count)],
            "label": [number % 3 for number in range(count)],
        }
    )


def test_columns_are_lists_of_what_was_there_whatever_becomes_of_the_data() -> None:
    plain, made = rows(), listed(rows())
    assert isinstance(plain["label"], Column)
    assert made["label"] == plain["label"][:] and made["label"] is made["label"]
    assert made[3] == plain[3] and made[2:4] == plain[2:4] and len(made) == 12
    changes: list[Any] = [
        lambda data: data.select([5, 2, 2]),
        lambda data: data.select_columns(["label"]),
        lambda data: data.rename_columns({"label": "text", "text": "label"}),
        lambda data: data.select([7, 1]).select_columns(["label"]).select([1]),
        lambda data: data.map(lambda row: {"label": row["label"] + 1}),
        lambda data: data.shuffle(seed=1).filter(lambda row: row["label"] > 0),
    ]
    for change in changes:
        before, after = change(plain), change(made)
        assert {name: after[name][:] for name in after.column_names} == {
            name: before[name][:] for name in before.column_names
        }
    nested = listed({"en": DatasetDict(test=rows()), "other": 3})
    assert (
        isinstance(nested["en"], DatasetDict)
        and isinstance(nested["en"]["test"]["text"], list)
        and nested["other"] == 3
    )


def test_a_task_reads_lists_while_it_is_scored_and_no_longer(tiny_base: Path, tmp_path: Path) -> None:
    task = new_task(
        "classification",
        "selfpos-Rows",
        "Rows.",
        lambda: DatasetDict(train=rows(30), test=rows()),
        revision="one",
        source="selfpos/test",
    )
    with columns_as_lists(task):
        task.load_data()
        assert isinstance(task.dataset["test"]["label"], list)
    task.unload_data()
    scores = evaluate(tiny_base, [task], tmp_path, name="tiny")
    assert 0 < scores["selfpos-Rows"].main_score <= 1
    task.load_data()
    assert isinstance(task.dataset["test"]["label"], Column)
