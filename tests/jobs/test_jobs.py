from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from selfpos.errors import OperationError, SelfposError
from selfpos.jobs.job import Job, execute, locked
from selfpos.storage.run_folder import RunFolder


def graph(folder: Path, done: list[str], *, steps: int = 1, fail: str = "") -> list[Job]:
    def work(name: str) -> None:
        if name == fail:
            raise RuntimeError("power cut")
        (folder / name).write_text(str(steps), encoding="utf-8")
        done.append(name)

    def job(name: str, *after: str, **inputs: int) -> Job:
        return Job(name, inputs, folder / name, lambda: work(name), after)

    return [job("a", steps=steps), job("b", other=1), job("c", "a", "b")]


def test_a_second_start_repeats_nothing_and_an_interrupted_one_continues(tmp_path: Path) -> None:
    run, done = RunFolder(tmp_path), []
    with pytest.raises(RuntimeError, match="power cut"):
        execute(graph(tmp_path, done, fail="b"), run)
    assert done == ["a"]
    assert execute(graph(tmp_path, done), run) == ["b", "c"]
    assert execute(graph(tmp_path, done), run) == []
    assert done == ["a", "b", "c"]


def test_a_result_that_vanished_is_made_again(tmp_path: Path) -> None:
    run, done = RunFolder(tmp_path), []
    execute(graph(tmp_path, done), run)
    (tmp_path / "b").unlink()
    assert execute(graph(tmp_path, done), run) == ["b"]


def test_what_derives_from_a_result_made_again_is_made_again(tmp_path: Path) -> None:
    run, done = RunFolder(tmp_path), []

    def jobs() -> list[Job]:
        *first, last = graph(tmp_path, done)
        return [*first, replace(last, derived=True)]

    execute(jobs(), run)
    (tmp_path / "b").unlink()
    assert execute(jobs(), run) == ["b", "c"] and execute(jobs(), run) == []


def test_an_unmarked_leftover_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert execute(graph(tmp_path, []), RunFolder(tmp_path)) == ["a", "b", "c"]
    assert (tmp_path / "a").read_text(encoding="utf-8") == "1"


def test_results_of_other_settings_are_never_overwritten(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    execute(graph(tmp_path, [], steps=1), run)
    with pytest.raises(SelfposError, match=r"other settings or data \(a, c\)"):
        execute(graph(tmp_path, [], steps=2), run)
    assert (tmp_path / "a").read_text(encoding="utf-8") == "1"


def test_two_processes_cannot_work_in_one_folder(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\nfrom selfpos.jobs.job import locked; from "
        "selfpos.storage.run_folder import RunFolder\nwith locked(RunFolder(Path(sys.argv[1]))): pass"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with locked(RunFolder(tmp_path)):
        beside = subprocess.run(command, capture_output=True, text=True)
    assert "another selfpos is working" in beside.stderr
    assert subprocess.run(command).returncode == 0


def test_a_folder_with_other_things_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "joint").mkdir()
    (tmp_path / "joint" / "precious.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SelfposError, match="holds other things than a run"), locked(RunFolder(tmp_path)):
        pytest.fail("it began")
    assert [file.name for file in tmp_path.rglob("*")] == ["joint", "precious.txt"]
    with (
        pytest.raises(SelfposError, match="is a file"),
        locked(RunFolder(tmp_path / "joint" / "precious.txt")),
    ):
        pytest.fail("it began")
    with (
        pytest.raises(OperationError, match="cannot write in"),
        locked(RunFolder(tmp_path / "joint" / "precious.txt" / "run")),
    ):
        pytest.fail("it began")
    with locked(RunFolder(tmp_path / "empty")):
        pass
    with locked(RunFolder(tmp_path / "empty")):  # a run that was stopped at once
        pass


def test_scores_of_other_tasks_are_filled_in_and_a_table_is_made_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)

    def jobs(tasks: int) -> list[Job]:
        def score() -> None:
            (tmp_path / "scores").mkdir(exist_ok=True)
            (tmp_path / "scores" / str(tasks)).touch()

        def tabulate() -> None:
            (tmp_path / "table").write_text(str(len(list((tmp_path / "scores").iterdir()))), encoding="utf-8")

        return [
            Job("scores", {"tasks": tasks}, tmp_path / "scores", score, continues=True),
            Job("table", {}, tmp_path / "table", tabulate, ("scores",), derived=True),
        ]

    execute(jobs(1), run)
    assert execute(jobs(2), run) == ["scores", "table"]
    assert (tmp_path / "table").read_text(encoding="utf-8") == "2"
