"""What all comparisons share: measurements kept seed by seed, and verdicts over the seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.console import log, log_to, markdown_table
from selfpos.errors import SelfposError
from selfpos.imbalance.study.analysis import Interval, paired_bootstrap
from selfpos.storage.atomic import locked, write_text
from selfpos.storage.manifest import read_json

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
        return [self.claim, self.value, str(self.gain.n) if self.gain else "", self.verdict]


def finding(claim: str, differences: list[float], strict: bool = False, p: float | None = None) -> Finding:
    """The claim holds where the interval of the paired differences lies above 0.

    `strict`: an undecided result counts as refuted. `p`, if any, must be below SIGNIFICANT for it to hold.
    """
    gain = paired_bootstrap(differences)
    verdict = "not decided"
    if gain.n >= FEWEST and gain.low > 0 and (p is None or p < SIGNIFICANT):
        verdict = "holds"
    elif gain.n >= FEWEST and gain.low <= 0 and (strict or gain.high < 0):
        verdict = "does not hold"
    return Finding(claim, str(gain) + ("" if p is None else f"; p {p:.3f}"), verdict, gain)


def better(claim: str, ours: list[float], theirs: list[float]) -> Finding:
    """The finding on `ours` minus `theirs`, paired by seed; what is not shown to be better is not."""
    return finding(claim, [a - b for a, b in zip(ours, theirs, strict=True)], strict=True)


@dataclass(frozen=True)
class Outcome:
    """A comparison's table and findings; `falsifier` is what would speak against it."""

    title: str
    falsifier: str
    header: list[str]
    rows: list[list[str]]
    findings: list[Finding]

    def write(self, file: Path, settings: Measured) -> None:
        """Table, findings and falsifier as Markdown beside the JSON file of measurements."""
        # The rules with spaces are those of the published files.
        table = markdown_table(self.header, self.rows, rules=[" --- "] * len(self.header))
        header = ["claim", "paired difference [95 %, bootstrap over seeds]", "seeds", "verdict"]
        rows = [finding.row for finding in self.findings]
        findings = markdown_table(header, rows, rules=[" --- "] * len(header))
        shown = "; ".join(f"{key} {value}" for key, value in settings.items() if not isinstance(value, dict))
        parts = [f"# {self.title}", f"Falsifier: {self.falsifier}", table, findings, shown]
        write_text(file.with_suffix(".md"), "\n\n".join(parts) + "\n")


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
        raise SelfposError(f"{file} was made with other settings ({', '.join(changed)}); change --out")
    return content


def _read(file: Path) -> Measured:
    content = read_json(file)
    if not all(isinstance(content.get(key), dict) for key in ("settings", "seeds")):
        raise SelfposError(f"{file} holds no results of `selfpos imbalance compare`; name another by --out")
    return content
