"""Every fault that a user, a machine or a stranger may bring, tried: benchmarks/results/faults.md.

    python benchmarks/faults                       # all of it
    python benchmarks/faults --only outside kills  # some groups; their rows replace those of the last time
    python benchmarks/faults --minutes 10          # each fuzzer that coverage guides for ten minutes

Every command runs in a process of its own, under limits of time and of memory. It survives a fault when it
ends with status 0, or with the status of a refusal or of a signal and one sentence, without a traceback, and
leaves nothing half-written. After kills, signals and full disks its output, or that of a second start, must
have the bytes of work that nothing disturbed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

from place import ROOT, Place, warm
from table import FUZZERS, TITLES, Group, Row, rows_of, written
from trial import Outcome, tried

GROUPS = list(TITLES)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--fault", default="", help="only faults whose name contains this")
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="for each fuzzer; those that draw stop at one"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the moments at which work is killed")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if len(options.only) > 1:  # each group in a process of its own, which imports the libraries as it needs
        given = {name: value for name, value in vars(options).items() if name != "only"}
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        for group in options.only:
            subprocess.run([sys.executable, sys.argv[0], *words, "--only", group], check=True)
        return
    group = importlib.import_module(options.only[0])
    needed = getattr(group, "NEEDS", None)
    if needed and importlib.util.find_spec(needed) is None:
        print(f"{group.__name__}: not tried, for {needed} is not installed (make faults does it)", flush=True)
        written(options.out, group.__name__, Group(f"not tried: {needed} was not installed", []))
        return
    begun, commit = time.monotonic(), _commit()
    with (
        getattr(group, "around", nullcontext)() as hub,
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
    ):
        warm()
        rows = tried_all(group, Place(Path(folder), hub, options.share), options)
    print(f"{group.__name__}: {time.monotonic() - begun:.0f} s", flush=True)
    if not options.fault:
        written(options.out, group.__name__, Group(_command(options), rows, commit))


def _command(options: argparse.Namespace) -> str:
    """The command line of one group."""
    group = options.only[0]
    minutes = f" --minutes {options.minutes:g}"
    given = {"fuzzing": minutes, "guided": minutes, "kills": f" --share {options.share:g}"}
    return f"python benchmarks/faults --only {group}{given.get(group, '')}"


def _commit() -> str:
    """The commit that is checked out, and whether the code differs from it."""
    git = ["git", "-C", str(ROOT)]
    said = [
        subprocess.run([*git, *words], check=True, capture_output=True, text=True).stdout.strip()
        for words in (
            ["rev-parse", "--short", "HEAD"],
            ["status", "--porcelain", "selfpos", "benchmarks/faults", "tests"],
        )
    ]
    return f"{said[0]} with changes" if said[1] else said[0]


def tried_all(group: Any, place: Place, options: argparse.Namespace) -> list[Row]:
    """Carry out the trials of a group, and say at once what was not survived."""
    outcomes = []
    for outcome in _outcomes(group, place, options.fault, options.minutes):
        outcomes.append(outcome)
        if outcome.why:
            print(f"NOT SURVIVED: {outcome.fault}: {json.dumps(outcome.why)}", flush=True)
    return rows_of(outcomes, place.folder)


def _outcomes(group: Any, place: Place, fault: str, minutes: float) -> Iterator[Outcome]:
    """What a group tries by itself, or the trials that it lists."""
    if group.__name__ in FUZZERS:
        yield from group.outcomes(place, minutes, fault)
        return
    if hasattr(group, "outcomes"):
        yield from group.outcomes(place)
        return
    for trial in group.trials(place):
        if fault in trial.fault:
            yield tried(trial)


if __name__ == "__main__":
    main()
