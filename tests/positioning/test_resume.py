"""A search that is killed goes on where it was, and ends with the same bytes as one that was left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from selfpos.errors import SelfposError
from selfpos.positioning import trajectory
from selfpos.positioning.live import LiveModel
from selfpos.positioning.problem import Problem
from selfpos.positioning.selection import Selection
from selfpos.positioning.trajectory import Trajectory
from selfpos.recipe import PositioningSettings
from selfpos.searched_merge import _identity
from tests.helpers.searches import SGD, left_by_search
from tests.helpers.stand_ins import records

ROOT = Path(__file__).parents[2]
EVOLVED = {"search": "cma-es", "evaluations": 20}


class Killed(BaseException):
    """Passes through everything, as nothing does after SIGKILL."""


class Mortal:
    """Counts the calls of LiveModel.embed since `start`, and dies in the one that was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.deadly, original = 0, 0, LiveModel.embed

        def embed(live: LiveModel, texts: list[str]) -> object:
            self.count += 1
            if self.count == self.deadly:
                raise Killed
            return original(live, texts)

        monkeypatch.setattr(LiveModel, "embed", embed)

    def start(self, deadly: int = 0) -> None:
        self.count, self.deadly = 0, deadly


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        pytest.param(SGD, [0.2, 0.5], id="sgd"),
        pytest.param({"rounds": 2}, [0.6, 0.3, 0.2], id="linearised", marks=pytest.mark.slow),
        pytest.param(EVOLVED, [0.5, 0.7], id="cma-es"),
    ],
)
def test_killed_and_started_again(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict,
    shares: list[float],
) -> None:
    """`shares` of the whole search's forward passes after which it is killed, each counted from its own
    start."""
    if "cma-es" in options.values():
        pytest.importorskip("cma")
    monkeypatch.setattr(trajectory, "EVERY", 0.0)
    mortal = Mortal(monkeypatch)
    alone = left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "alone", options)
    whole = mortal.count
    for share in shares:
        mortal.start(round(share * whole))
        with pytest.raises(Killed):
            left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "killed", options)
    mortal.start()
    assert left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "killed", options) == alone
    assert mortal.count < whole


@pytest.mark.nightly
def test_kill_nine_in_a_process_of_its_own(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from selfpos.positioning import trajectory
from selfpos.positioning.problem import Problem
from tests.helpers.searches import SGD, left_by_search

trajectory.EVERY, original, count = 0.0, Problem.gradient, [0]

def deadly(self, *args):
    count[0] += 1
    if count[0] == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args)

Problem.gradient = deadly
base, specialist, out = map(Path, sys.argv[1:])
left_by_search(base, [specialist], out, SGD)
"""
    words = [tiny_base, tiny_specialists[0], tmp_path / "killed"]
    done = subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [".out.search"]
    way, state = sorted((tmp_path / "killed" / ".out.search").iterdir())
    assert (way.suffix, state.suffix) == (".jsonl", ".pt")
    assert way.read_text().count('"gradient_norm"') == 5
    alone = left_by_search(tiny_base, tiny_specialists[:1], tmp_path / "alone", SGD)
    assert left_by_search(tiny_base, tiny_specialists[:1], tmp_path / "killed", SGD) == alone


@pytest.mark.parametrize("said", ["is damaged", "is of another version"])
def test_other_settings_start_a_new_search_and_a_state_that_is_no_use_is_no_trouble(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: str,
) -> None:
    def stop(self: Selection, *args: object) -> None:
        raise Killed

    monkeypatch.setattr(trajectory, "EVERY", 0.0)
    plain = SGD | {"steps": 2, "validation": 0.0}
    alone = left_by_search(tiny_base, tiny_specialists[:1], tmp_path / "alone", plain)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Selection, "measure", stop)
        left_by_search(tiny_base, tiny_specialists[:1], tmp_path / "killed", SGD)
    states = tmp_path / "killed" / ".out.search"
    states.mkdir(exist_ok=True)
    other = tmp_path / "killed" / "out"
    from selfpos.storage.hashing import content_hash

    name = _identity(
        [content_hash(tiny_base), content_hash(tiny_specialists[0])],
        records(),
        PositioningSettings(compare=False, **plain),
        2,
    )
    state = states / f"{name}.pt"
    if said == "is damaged":
        state.write_bytes(b"torn")
    else:
        older = {"format": trajectory.FORMAT - 1, "kept": {}, "best": None, "steps": 1, "seconds": 0.0}
        torch.save(older | {"written": 0}, state)
    assert left_by_search(tiny_base, tiny_specialists[:1], other.parent, plain) == alone
    assert f"{said}; the search starts again" in caplog.text


def test_stopped_by_ctrl_c_and_started_again(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run does it, which merges nothing of a stopped search: started again, it ends as if left alone."""
    alone = left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "alone", SGD)
    monkeypatch.setattr(trajectory, "EVERY", 0.0)
    original, count = Problem.gradient, [0]

    def stopping(self: Problem, *args: object) -> object:
        count[0] += 1
        if count[0] == 4:
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Problem, "gradient", stopping)
        left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "stopped", SGD, keep_interrupted=False)
    assert left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "stopped", SGD) == alone


@pytest.mark.slow
def test_stopped_searches_do_not_meet(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stopped searches for one output, and an impossible one: each has its own state and lines."""
    monkeypatch.setattr(trajectory, "EVERY", 0.0)
    other = SGD | {"learning_rate": 0.3}
    alone = left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "alone", SGD)
    mortal = Mortal(monkeypatch)
    for options in (SGD, other):
        mortal.start(9)
        with pytest.raises(Killed):
            left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "killed", options)
    assert len(list((tmp_path / "killed" / ".out.search").iterdir())) == 4
    mortal.start()
    with pytest.raises(SelfposError, match="exclude"):
        left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "killed", SGD | {"exclude": "nothing*"})
    assert len(list((tmp_path / "killed" / ".out.search").iterdir())) == 4
    assert left_by_search(tiny_base, tiny_specialists[:2], tmp_path / "killed", SGD) == alone


def test_a_state_of_another_version_is_not_taken_up(tmp_path: Path) -> None:
    torch.save({"kept": {"sgd": 1}, "steps": 3}, tmp_path / "state.pt")
    with Trajectory(None, tmp_path / "state.pt") as begun:
        assert (begun.kept, begun.steps, begun.best) == ({}, 0, None)


def test_another_prompt_or_order_of_tasks_is_another_search() -> None:
    probe = records()
    name, *_ = probe
    prompted = {name: replace(probe[name], prompts="query: ")}
    two = {"a": probe[name], "b": probe[name]}
    settings = PositioningSettings()
    assert _identity([], probe, settings, 0) != _identity([], prompted, settings, 0)
    assert _identity([], two, settings, 0) != _identity([], dict(reversed(two.items())), settings, 0)
