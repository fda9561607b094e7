"""`last.json`: what is carried on, and what happens beside a damaged one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from selfpos.errors import SelfposError
from selfpos.scores.files import TaskScore, known_tasks, read_scores, write_last

ENTRY = {"type": "STS", "metric": "cosine_spearman", "main_score": 0.5, "file": "a.json"}


def score(out: Path, task: str) -> dict[str, TaskScore]:
    return {task: TaskScore(task, "STS", "cosine_spearman", 0.5, out / "a.json")}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        '{"tasks": []}',
        '{"tasks": {"A": 3}}',
        json.dumps({"tasks": {}, "scored_before": {"a": ["x"]}}),
        json.dumps({"tasks": {"A": ENTRY | {"main_score": "high"}}}),
        json.dumps({"tasks": {"A": ENTRY | {"type": 3}}}),
    ],
)
def test_a_damaged_note_is_named_and_written_afresh(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "last.json").write_text(content)
    for read in (read_scores, known_tasks):
        with pytest.raises(SelfposError, match=r"last.json is damaged; score the model again"):
            read(tmp_path)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        write_last(tmp_path, "tiny", "one", score(tmp_path, "A"))
    assert "last.json is damaged" in caplog.text and "written afresh" in caplog.text
    assert read_scores(tmp_path) == score(tmp_path, "A")


def test_a_damaged_note_in_a_folder_below_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "last.json").write_text("{")
    write_last(tmp_path, "tiny", "one", score(tmp_path, "A"))
    assert list(read_scores(tmp_path)) == ["A"]


@pytest.mark.parametrize("key", ["scored_before", "scored before"])
def test_tasks_scored_before_are_carried_on(tmp_path: Path, key: str) -> None:
    content: dict[str, Any] = {"tasks": {"A": ENTRY}, key: {"B": ["Retrieval", "ndcg_at_10"]}}
    (tmp_path / "last.json").write_text(json.dumps(content))
    write_last(tmp_path, "tiny", "one", score(tmp_path, "C"))
    assert json.loads((tmp_path / "last.json").read_text())["scored_before"] == {
        "B": ["Retrieval", "ndcg_at_10"],
        "A": ["STS", "cosine_spearman"],
    }
    assert known_tasks(tmp_path).keys() == {"A", "B", "C"}
