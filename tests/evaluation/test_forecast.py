from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from selfpos.errors import SelfposError
from selfpos.evaluation import evaluate
from selfpos.evaluation.encoder import Embedder
from selfpos.evaluation.forecast import forecast
from tests.helpers.command import CommandLine

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

MakeTask = Callable[..., "AbsTask"]


def test_texts_are_those_that_scoring_embeds(
    tiny_base: Path, tmp_path: Path, sts_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [sts_task(), sts_task("selfpos-Other", seed=1), sts_task("selfpos-Again", seed=1)]
    expected = forecast(tiny_base, tasks, tmp_path / "scores")
    embedded: list[str] = []
    compute = Embedder._embedded

    def noted(self: Embedder, texts: list[str], *rest: object) -> object:
        embedded.extend(texts)
        return compute(self, texts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "_embedded", noted)
    evaluate(tiny_base, tasks, tmp_path / "scores")
    assert expected.texts == {"selfpos-TestSTS": 80, "selfpos-Other": 80, "selfpos-Again": 0}
    assert sum(expected.texts.values()) == len(embedded) == len(set(embedded))
    assert expected.embedding > 0
    assert expected.rest > 0


def test_scored_tasks_are_not_counted(tiny_base: Path, tmp_path: Path, sts_task: MakeTask) -> None:
    first, second = sts_task(), sts_task("selfpos-Other", seed=1)
    evaluate(tiny_base, [first], tmp_path)
    expected = forecast(tiny_base, [first, second], tmp_path)
    assert expected.scored == ["selfpos-TestSTS"]
    assert expected.texts == {"selfpos-Other": 80}


def test_what_scoring_refuses_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match="no tasks"):
        forecast(tiny_base, [], tmp_path)


def test_command_says_texts_and_time_and_writes_nothing(
    selfpos: CommandLine, tiny_base: Path, tmp_path: Path
) -> None:
    words = ("eval-mteb", tiny_base, "--tasks", "PythonDocsSeeAlsoPairs", "--out", tmp_path / "scores")
    done = selfpos(*words, "--dry-run")
    assert done.returncode == 0
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    count = int(lines["texts"].partition(",")[0])
    assert lines["texts"] == f"{count}, each once: PythonDocsSeeAlsoPairs {count}"
    assert lines["time"].startswith("about ")
    assert list(tmp_path.iterdir()) == []
    refused = selfpos(*words, "--dry-run", "--ray", "auto")
    assert refused.returncode == 2
    assert "leave out --ray" in refused.stderr
