"""Work that is killed or told to end, at random moments and at each named write, and then started again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from place import Place
from trial import Outcome, Seen, Trial, unreadable, wrongs
from works import Work, contents, difference, others, started, works

KILLS = {"merge": 30, "finetune": 25, "search": 15, "eval-mteb": 25, "run": 12}
POINTS = {"merge": 60, "finetune": 60, "search": 12, "eval-mteb": 40, "run": 14}
SIGNALS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
LATENCY = 10.0  # seconds within which work ends that is told to


def outcomes(place: Place) -> Iterator[Outcome]:
    rng = random.Random(24)
    done = place.fresh()
    all_works = works(place)
    assert started(all_works["run"], done).status == 0, "the run does not work unharmed"
    for work in all_works.values():
        expected, seconds = unharmed(place, work)
        yield from killed_at_random(place, work, expected, seconds, rng)
        yield from killed_at_writes(place, work, expected)
        yield from told_to_end(place, work, expected, seconds)
    for work in others(place, done / "out").values():
        expected, seconds = unharmed(place, work)
        yield from told_to_end(place, work, expected, seconds)


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
    for _ in range(KILLS[work.name]):
        folder = place.fresh()
        started(work, folder, strike=after(rng.uniform(0, seconds), signal.SIGKILL))
        why = again(work, folder, expected)
        yield Outcome(
            f"SIGKILL at a random moment: {work.name}", why, "the second start ends with the same bytes"
        )


# ---------------------------------------------------------------- named writes


def counted(report: Path, deadly: int = 0, late: bool = False) -> None:
    """Count this process's renames, replacements and flushes; die before, or after, the deadly one."""
    count = 0

    def counting(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            struck = count == deadly
            if not deadly:
                report.write_text(str(count))
            if struck and not late:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **kwargs)
            if struck:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in ("rename", "replace", "fsync", "mkdir", "ftruncate"):
        setattr(os, name, counting(name, getattr(os, name)))


def killed_at_writes(place: Place, work: Work, expected: dict[str, str]) -> Iterator[Outcome]:
    report = place.fresh() / "count"
    started(work, place.fresh(), before=partial(counted, report))
    total = int(report.read_text())
    chosen = sorted({1 + place_ * total // POINTS[work.name] for place_ in range(POINTS[work.name])})
    for point in chosen:
        folder = place.fresh()
        started(work, folder, before=partial(counted, report, point, late=point % 2 == 1))
        why = again(work, folder, expected)
        why = why and f"write {point} of {total}: {why}"
        yield Outcome(f"SIGKILL at a named write: {work.name}", why, f"the same bytes; {total} writes in all")


# ---------------------------------------------------------------- signals


def told_to_end(place: Place, work: Work, expected: dict[str, str], seconds: float) -> Iterator[Outcome]:
    for number, status in SIGNALS.items():
        for share in SHARES:
            folder = place.fresh()
            moment: list[float] = []
            strike = after(share * seconds, number)

            def noted(
                child: int, strike: Callable[[int], None] = strike, moment: list[float] = moment
            ) -> None:
                strike(child)
                moment.append(time.monotonic())

            seen = started(work, folder, strike=noted)
            late = time.monotonic() - moment[0]
            why = "; ".join([*_ended(work, folder, seen, status), *_late(late)]) or again(
                work, folder, expected
            )
            said = seen.sentences[-1].removeprefix("selfpos: ") if seen.sentences else "(done before it came)"
            yield Outcome(f"{signal.Signals(number).name}: {work.name}", why, said)


def _late(seconds: float) -> list[str]:
    return [f"ended after {seconds:.0f} s"] if seconds > LATENCY else []


def _ended(work: Work, folder: Path, seen: Seen, status: int) -> Iterator[str]:
    trial = Trial(work.name, [work.name], None, (0, status))
    yield from wrongs(trial, seen)
    if locks := list(folder.rglob("*.lock")):
        yield f"{locks[0].name} is left"
