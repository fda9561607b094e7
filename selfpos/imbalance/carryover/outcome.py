"""What all comparisons share: one measurement per seed, kept in a JSON file, and an outcome with verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.console import log, log_to, markdown_table
from selfpos.errors import SelfposError
from selfpos.imbalance.study.analysis import Interval, paired_bootstrap
from selfpos.storage.atomic import locked, write_text

Measured = dict[str, Any]  # what was measured for one seed, as JSON holds it
FEWEST = 5  # seeds: of n resampled pairs an interval covers the median with 1 − 2^(1−n) at most
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Finding:
    """A claim, the result in words, and the verdict; `gain` is the paired difference over seeds, if any."""

    claim: str
    value: str
    verdict: str
    gain: Interval | None = None

    @property
    def row(self) -> list[str]:
        """Claim, value, number of seeds, verdict."""
        return [self.claim, self.value, str(self.gain.n) if self.gain else "", self.verdict]


def finding(
    claim: str, differences: list[float], least: float = 0.0, strict: bool = False, p: float | None = None
) -> Finding:
    """The claim holds where all of the interval of the paired differences over seeds lies above `least`.

    `strict`: an undecided result counts as refuted. `p` is of a test that the seeds do not enter: with it, a
    claim that holds over the seeds is decided only where p is below SIGNIFICANT.
    """
    gain = paired_bootstrap(differences)
    verdict = "not decided"
    if gain.n >= FEWEST and gain.low > least and (p is None or p < SIGNIFICANT):
        verdict = "holds"
    elif gain.n >= FEWEST and gain.low <= least and (strict or gain.high < least):
        verdict = "does not hold"
    return Finding(claim, str(gain) + ("" if p is None else f"; p {p:.3f}"), verdict, gain)


def compared(
    claim: str, first: list[float], second: list[float], least: float = 0.0, strict: bool = False
) -> Finding:
    """The finding on first − second, paired by seed."""
    return finding(claim, [a - b for a, b in zip(first, second, strict=True)], least, strict)


@dataclass(frozen=True)
class Outcome:
    """A comparison's table and findings; `falsifier` is what would speak against it."""

    title: str
    falsifier: str
    header: list[str]
    rows: list[list[str]]
    findings: list[Finding]

    def markdown(self) -> str:
        """Table, findings and falsifier."""
        # The rules with spaces are those of the published files.
        table = markdown_table(self.header, self.rows, rules=[" --- "] * len(self.header))
        header = ["claim", "paired difference [95 %, bootstrap over seeds]", "seeds", "verdict"]
        rows = [finding.row for finding in self.findings]
        findings = markdown_table(header, rows, rules=[" --- "] * len(header))
        return f"# {self.title}\n\nFalsifier: {self.falsifier}\n\n{table}\n\n{findings}\n"


def over_seeds(
    file: Path, settings: Measured, seeds: int, measure: Callable[[int], Measured]
) -> list[Measured]:
    """What `measure` returns for seeds 0, 1, …; seeds that `file` has are not measured again."""
    wanted = json.loads(json.dumps(settings))
    journal = file.with_suffix(".log")
    with log_to(journal), locked(journal):
        content = _read_same(file, wanted)
        for seed in missing_seeds(file, seeds):
            values = json.loads(json.dumps(measure(seed)))
            content = _read_same(file, wanted)  # again: the lock does not reach a process on another machine
            content["seeds"][str(seed)] = values
            write_text(file, json.dumps(content, indent=1) + "\n")
            log.info("seed %d measured", seed)
    return [content["seeds"][str(seed)] for seed in range(seeds)]


def missing_seeds(file: Path, seeds: int) -> list[int]:
    """Which of the seeds 0, 1, … `file` does not have."""
    measured = _read(file)["seeds"] if file.exists() else {}
    return [seed for seed in range(seeds) if str(seed) not in measured]


def _read_same(file: Path, settings: Measured) -> Measured:
    """What `file` holds, which must have these settings; no seeds where there is no file."""
    if not file.exists():
        return {"settings": settings, "seeds": {}}
    content = _read(file)
    stored = {"data": settings.get("data")} | content["settings"]  # of version 0.1: without data
    if changed := [key for key in settings if stored.get(key) != settings[key]]:
        raise SelfposError(
            f"the results in {file} were made with other settings ({', '.join(changed)}); name another file "
            "with --out"
        )
    return content


def _read(file: Path) -> Measured:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SelfposError(f"{file} cannot be read as JSON: {error}; name another file with --out") from None
    parts = [content.get(key) for key in ("settings", "seeds")] if isinstance(content, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise SelfposError(
            f"{file} holds no results of `selfpos imbalance compare`; name another file with --out"
        )
    return content


def write_outcome(outcome: Outcome, file: Path, settings: Measured) -> None:
    """The outcome as Markdown beside the JSON file of measurements."""
    shown = "; ".join(f"{key} {value}" for key, value in settings.items() if not isinstance(value, dict))
    write_text(file.with_suffix(".md"), f"{outcome.markdown()}\n{shown}\n")


def mean(values: list[float], digits: int = 2) -> str:
    """The mean for a table."""
    return f"{np.mean(values):.{digits}f}"
