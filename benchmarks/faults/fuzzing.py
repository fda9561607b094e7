"""Fuzzers over what opens others' files: each returns, or raises SelfposError with one printable line, within
two seconds and one GB.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from openers import Opener, openers
from place import Place
from trial import Outcome, run

from selfpos.errors import SelfposError, told

SECONDS = 2.0
MEMORY = 1000  # MB


class FoundError(Exception):
    """What the opener must not do; `kind` is the same for all examples of one fault."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def outcomes(place: Place, minutes: float, fault: str) -> Iterator[Outcome]:
    for opener in openers(place):
        if fault not in opener.name:
            continue
        with tempfile.NamedTemporaryFile("w", delete=False) as report:
            pass
        file = Path(report.name)
        seen = run(
            lambda opener=opener, file=file: fuzzed(opener, minutes, file),  # type: ignore[misc]
            seconds=60 * minutes + 60,
            memory=MEMORY,
        )
        tried, faults = json.loads(file.read_text() or "[0, {}]")
        file.unlink()
        name = f"fuzzed for {minutes:g} min: {opener.name}"
        if seen.status != 0:
            yield Outcome(name, f"the fuzzer ended with {seen.status}: {seen.err[-300:]}", "")
        for kind, (count, example) in faults.items():
            yield from [Outcome(name, f"{kind}: {example}", "")] * count
        failed = sum(count for count, _ in faults.values())
        yield from [Outcome(name, "", "returns, or one sentence")] * (tried - failed)


def fuzzed(opener: Opener, minutes: float, report: Path) -> int:
    """Draw contents for so many minutes; writes how many were tried, and of each fault found
    how many had it and one of them.
    """
    from hypothesis import HealthCheck, Phase, given, seed, settings

    warnings.simplefilter("ignore")
    end, tried, faults, number = time.monotonic() + 60 * minutes, 0, dict[str, tuple[int, str]](), 0

    @settings(
        max_examples=1000,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(opener.content)
    def one(content: bytes) -> None:
        nonlocal tried
        if time.monotonic() > end:
            return
        tried += 1
        opener.write(content)
        try:
            judged(opener)
        except FoundError as found:
            count, example = faults.get(found.kind, (0, repr(content)[:600]))
            faults[found.kind] = (count + 1, example)
        if tried % 50 == 0:
            report.write_text(json.dumps([tried, faults]))

    while time.monotonic() < end:
        number += 1
        seed(number)(one)()
        gc.collect()
    report.write_text(json.dumps([tried, faults]))
    return 0


def judged(opener: Opener) -> None:
    """Open the file. Raises FoundError for anything but a value or a sentence, in time."""
    begun = time.monotonic()
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
    if (taken := time.monotonic() - begun) > SECONDS:
        raise FoundError(f"took {taken:.0f} s")
