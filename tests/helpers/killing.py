"""`python -m tests.helpers.killing RECIPE OUT SEED KILLS`: a run of a recipe, killed with SIGKILL again and
again, then let finish.

Every start is a fork of one process that has imported the libraries already, so that a start takes a fraction
of a second and the kills fall on the work. Prints as JSON, for each start that was killed, which jobs were
finished by then.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from selfpos.recipe import load_recipe
from selfpos.storage.run_folder import RunFolder


def import_libraries() -> None:
    import mteb
    import sentence_transformers
    import torch

    import selfpos.evaluation
    import selfpos.pipeline.run
    import selfpos.training.trainer

    assert (
        mteb
        and sentence_transformers
        and selfpos.evaluation
        and selfpos.pipeline.run
        and selfpos.training.trainer
    )
    torch.set_num_threads(1)


def started(recipe: Path, out: Path) -> int:
    """Begin or go on with the run in a process of its own; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        from selfpos.pipeline.run import run_recipe

        run_recipe(load_recipe(recipe), out)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def finish(recipe: Path, out: Path) -> float:
    """Let the run end by itself; returns the seconds it took."""
    begun = time.monotonic()
    _, status = os.waitpid(started(recipe, out), 0)
    if status != 0:
        sys.exit(f"the run in {out} ended with status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - begun


def marks(run: RunFolder) -> list[str]:
    """The finished jobs, as their marks call them."""
    return sorted(mark.stem for mark in run.mark("x").parent.glob("*.json"))


def main(recipe: Path, out: Path, seed: int, kills: int) -> None:
    import_libraries()
    whole = finish(recipe, out / "whole")
    run = RunFolder(out / "killed")
    rng = random.Random(seed)
    finished = []
    jobs = len(marks(RunFolder(out / "whole")))
    for kill in range(kills):
        child = started(recipe, run.path)
        while len(marks(run)) < kill * jobs // (2 * kills) and os.waitpid(child, os.WNOHANG) == (
            0,
            0,
        ):  # most jobs of the second half are scores
            time.sleep(0.01)
        time.sleep(rng.uniform(0.5, 4.0) * whole / jobs)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        finished.append(marks(run))
    finish(recipe, run.path)
    print(json.dumps(finished))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
