"""Work of every verb that is told to end, by a scheduler, a closed terminal or Ctrl-C, and started again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kills import after, again, unharmed
from place import Place
from trial import Outcome, Seen, Trial, unreadable, wrongs
from works import Work, others, started, works

SIGNALS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
SHARES = (0.2, 0.5, 0.8)
LATENCY = 10.0  # seconds within which work ends that is told to
TOO_LATE = 0.3  # seconds before its end in which a signal comes after the work
RUN_LOCK = "run.lock"  # stays in the folder of a run, also of one that ended well
BEST_SO_FAR = "is merged"  # a search that is told to end merges its best point, and says so


def outcomes(place: Place) -> Iterator[Outcome]:
    done = place.fresh()
    first = works(place)
    assert started(first["run"], done).status == 0, "the run does not work unharmed"
    for work in (first | others(place, done / "out")).values():
        expected, seconds = unharmed(place, work)
        yield from told_to_end(place, work, expected, seconds)


def _then(work: Work, folder: Path, seen: Seen, expected: dict[str, str]) -> str:
    """What is wrong with what is there, or with what a second start makes of it."""
    if seen.sentences and BEST_SO_FAR in seen.sentences[-1]:
        broken = unreadable(folder / work.out)
        return f"{broken} is not whole" if broken else ""
    return again(work, folder, expected)


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
            if seen.status == 0 and late < TOO_LATE:
                continue  # it was not tried
            faults = [*_ended(work, folder, seen, status), *_late(late)]
            why = "; ".join(faults) or _then(work, folder, seen, expected)
            why = why and f"{why}: {seen.err[-600:]}"
            said = seen.sentences[-1].removeprefix("selfpos: ") if seen.sentences else "(nothing)"
            yield Outcome(f"{signal.Signals(number).name}: {work.name}", why, said)


def _late(seconds: float) -> list[str]:
    return [f"ended after {seconds:.0f} s"] if seconds > LATENCY else []


def _ended(work: Work, folder: Path, seen: Seen, status: int) -> Iterator[str]:
    trial = Trial(work.name, [work.name], None, (status,))
    yield from wrongs(trial, seen)
    locks = [lock.name for lock in folder.rglob("*.lock") if lock.name != RUN_LOCK]
    if locks:
        yield f"{locks[0]} is left"
