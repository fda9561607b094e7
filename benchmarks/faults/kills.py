"""Work that is killed, at random moments and at each named write, and then started again."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from place import Place
from trial import Outcome, unreadable
from works import Work, contents, difference, started, works

KILLS = {"merge": 60, "finetune": 40, "search": 20, "eval-mteb": 60, "run": 16}
POINTS = {"merge": 60, "finetune": 40, "search": 12, "eval-mteb": 40, "run": 16}


def outcomes(place: Place) -> Iterator[Outcome]:
    rng = random.Random(24)
    for work in works(place).values():
        expected, seconds = unharmed(place, work)
        yield from killed_at_random(place, work, expected, seconds, rng)
        yield from killed_at_writes(place, work, expected)


def unharmed(place: Place, work: Work) -> tuple[dict[str, str], float]:
    """What the work ends with when it is left alone, and the seconds that it takes."""
    folder = place.fresh()
    seen = started(work, folder)
    if seen.status != 0:
        raise SystemExit(f"{work.name} does not work unharmed: {seen.err[-500:]}")
    return contents(folder, work.out), seen.seconds


def after(seconds: float, number: int) -> Callable[[int], None]:
    """Send the signal `number` after so many seconds."""

    def strike(child: int) -> None:
        time.sleep(seconds)
        os.kill(child, number)

    return strike


def again(work: Work, folder: Path, expected: dict[str, str]) -> str:
    """What is wrong with what exists in `folder`, or with what a second start makes of it."""
    if broken := unreadable(folder / work.out) if (folder / work.out).is_dir() else "":
        return f"{broken} is not whole"
    if (folder / work.out).exists() and not work.adds:  # it was finished: a second start would refuse
        return difference(contents(folder, work.out), expected)
    seen = started(work, folder)
    if seen.status != 0:
        return f"the second start ended with {seen.status}: {seen.err[-300:]}"
    left = [path.name for path in folder.iterdir() if ".tmp-" in path.name or path.name.endswith(".lock")]
    return f"{left[0]} is left" if left else difference(contents(folder, work.out), expected)


def killed_at_random(
    place: Place, work: Work, expected: dict[str, str], seconds: float, rng: random.Random
) -> Iterator[Outcome]:
    for _ in range(math.ceil(place.share * KILLS[work.name])):
        folder = place.fresh()
        started(work, folder, strike=after(rng.uniform(0, seconds), signal.SIGKILL))
        why = again(work, folder, expected)
        yield Outcome(
            f"SIGKILL at a random moment: {work.name}", why, "the second start ends with the same bytes"
        )


# ---------------------------------------------------------------- named writes

WRITERS = {"rename": 1, "replace": 1, "fsync": 0, "mkdir": 0, "ftruncate": 0}
"""Functions of `os`, and which of their arguments is what they write."""


def counted(report: Path, deadly: int = 0, late: bool = False) -> None:
    """Note this process's renames and flushes, a line each; die before, or after, the deadly one."""
    count = 0

    def counting(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            struck = count == deadly
            if not deadly:
                with report.open("a") as lines:
                    lines.write(f"{name} {named(args[WRITERS[name]])}\n")
            if struck and not late:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **kwargs)
            if struck:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in WRITERS:
        setattr(os, name, counting(name, getattr(os, name)))


def named(target: object) -> str:
    """The name of a file that is written, without what differs from start to start."""
    path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(str(target))
    return re.sub(r"[0-9a-f]{6,}|\d+|(?<=\.)\w{8}(?=\.tmp)", "…", path.name)


def killed_at_writes(place: Place, work: Work, expected: dict[str, str]) -> Iterator[Outcome]:
    report = place.fresh() / "count"
    seen = started(work, place.fresh(), before=partial(counted, report))
    if seen.status != 0:
        raise SystemExit(f"{work.name} does not work while its writes are counted: {seen.err[-500:]}")
    writes = report.read_text().splitlines()
    total, most = len(writes), math.ceil(place.share * POINTS[work.name])
    first = {name: number for number, name in reversed([*enumerate(writes, start=1)])}
    chosen = sorted({*first.values(), *(1 + number * total // most for number in range(most))})
    for point in chosen:
        folder = place.fresh()
        started(work, folder, before=partial(counted, report, point, late=point % 2 == 1))
        why = again(work, folder, expected)
        why = why and f"write {point} of {total}: {why}"
        saw = f"the same bytes; {total} writes of {len(first)} names in all"
        yield Outcome(f"SIGKILL at a named write: {work.name}", why, saw)
