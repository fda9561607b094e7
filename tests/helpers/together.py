"""Searches of several kinds, in every process of tests/positioning/test_processes.py, and one that is
interrupted."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfpos.console import is_first
from selfpos.positioning.problem import Problem
from selfpos.recipe import PositioningSettings
from selfpos.searched_merge import position_and_merge
from tests.helpers.stand_ins import records

SGD = {"search": "sgd", "steps": 4, "batch_size": 14}
WAYS: dict[str, tuple[str, dict]] = {
    "sgd": ("whole", SGD | {"space": "spherical"}),
    "chunked": ("whole", SGD | {"chunk": 5, "granularity": "layer"}),
    "adapters": ("adapter", SGD),
    "linearised": ("whole", {"rounds": 2, "compare": True}),
    "cma-es": ("whole", {"search": "cma-es", "evaluations": 8}),
}


def run(folder: Path, base: Path, sources: dict[str, list[Path]]) -> None:
    """Every way, each into `folder`/NAME."""
    for name, (kind, options) in WAYS.items():
        settings = PositioningSettings(**{"compare": False, **options})
        out = folder / name
        out.mkdir(parents=True, exist_ok=True)
        found = position_and_merge(
            str(base),
            sources[kind],
            records(),
            settings,
            out / "model",
            record=out / "found.json",
            trajectory=out / "way.jsonl",
            seed=1,
        )
        if not is_first():
            (out / "second.json").write_text(json.dumps(asdict(found)))


def interrupt(folder: Path, base: Path, sources: list[Path]) -> None:
    """A search of many steps, in the third of which the last process is sent what Ctrl-C sends; the result
    in `folder`/interruptedN.json."""
    original, calls = Problem.gradient, []

    def third(self: Problem, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3 and not is_first():
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    Problem.gradient = third  # type: ignore[method-assign]
    settings = PositioningSettings(**SGD | {"steps": 500, "validation": 0.0})  # the newest point is the best
    found = position_and_merge(str(base), sources, records(), settings, folder / "interrupted", seed=1)
    (folder / f"interrupted{os.environ['RANK']}.json").write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    folder, base, *models = map(Path, sys.argv[1:])
    run(folder, base, {"whole": models[:3], "adapter": models[3:]})
    interrupt(folder, base, models[:3])
