"""Fuzzers over what opens others' files: each returns, or raises SelfposError with one printable line, within
two seconds of a processor and one GB. Contents are drawn near valid ones; coverage guides those of `guided`.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from openers import Opener, openers
from place import Place
from trial import Outcome, run

from selfpos.errors import SelfposError, told

SECONDS = 2.0
MEMORY = 1000  # MB
DRAWN = 1.0  # minutes at most: longer draws find little, as nothing guides them


class FoundError(Exception):
    """What the opener must not do; `kind` is the same for all examples of one fault."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass
class Tally:
    """How many contents an opener got, and of each fault found how many had it and one of them."""

    opener: Opener
    report: Path
    tried: int = 0
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)

    def judge(self, content: bytes) -> None:
        """Try one content."""
        self.tried += 1
        self.opener.write(content)
        try:
            judged(self.opener)
        except FoundError as found:
            count, example = self.faults.get(found.kind, (0, repr(content)[:600]))
            self.faults[found.kind] = (count + 1, example)
        if self.tried % 50 == 0:
            self.save()

    def save(self) -> None:
        """Write it where `counted` reads it."""
        self.report.write_text(json.dumps([self.tried, self.faults]))


def outcomes(place: Place, minutes: float, fault: str) -> Iterator[Outcome]:
    minutes = min(minutes, DRAWN)
    for opener in openers(place):
        name = f"drawn for {minutes:g} min: {opener.name}"
        if fault not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report"
            seen = run(
                lambda opener=opener, report=report: fuzzed(Tally(opener, report), minutes),  # type: ignore[misc]
                seconds=60 * minutes + 60,
                memory=MEMORY,
            )
            yield from counted(name, report, seen.status, seen.err)


def counted(
    name: str, report: Path, status: int | None, said: str, saw: str = "returns, or one sentence"
) -> Iterator[Outcome]:
    """The outcomes of a fuzzer that ended so, by its report."""
    tried, faults = json.loads(report.read_text()) if report.is_file() else (0, {})
    if status != 0:
        yield Outcome(name, f"the fuzzer ended with {status}: {said[-300:]}", "")
    for kind, (count, example) in faults.items():
        yield from [Outcome(name, f"{kind}: {example}", "")] * count
    failed = sum(count for count, _ in faults.values())
    yield from [Outcome(name, "", saw)] * (tried - failed)


def fuzzed(tally: Tally, minutes: float) -> int:
    """Draw contents for so many minutes."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    warnings.simplefilter("ignore")
    end, number = time.monotonic() + 60 * minutes, 0

    @settings(
        max_examples=1000,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(tally.opener.content)
    def one(content: bytes) -> None:
        if time.monotonic() <= end:
            tally.judge(content)

    while time.monotonic() < end:
        number += 1
        seed(number)(one)()
        gc.collect()
    tally.save()
    return 0


def judged(opener: Opener) -> None:
    """Open the file. Raises FoundError for anything but a value or a sentence, in time."""
    begun = time.process_time()
    try:
        opener.open()
    except SelfposError as error:
        if not told(str(error)).strip() or len(told(str(error)).splitlines()) > 1:
            raise FoundError("no sentence, or one of several lines") from None
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in place if "/selfpos/" in frame.filename] or place
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        raise FoundError(f"{type(error).__name__} at {where}: {str(error)[:80]!r}"[:160]) from None
    if (taken := time.process_time() - begun) > SECONDS:
        raise FoundError(f"took {taken:.0f} s")
