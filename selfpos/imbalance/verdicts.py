"""What comparisons share: verdicts over the seeds, and the page that shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.console import markdown_table
from selfpos.imbalance.study.analysis import Interval, paired_bootstrap
from selfpos.storage.atomic import write_text

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

    def write(self, file: Path, settings: dict[str, Any]) -> None:
        """Table, findings and falsifier as Markdown beside the file of results."""
        # The rules with spaces are those of the published files.
        table = markdown_table(self.header, self.rows, rules=[" --- "] * len(self.header))
        header = ["claim", "paired difference [95 %, bootstrap over seeds]", "seeds", "verdict"]
        rows = [finding.row for finding in self.findings]
        findings = markdown_table(header, rows, rules=[" --- "] * len(header))
        shown = "; ".join(f"{key} {value}" for key, value in settings.items() if not isinstance(value, dict))
        parts = [f"# {self.title}", f"Falsifier: {self.falsifier}", table, findings, shown]
        write_text(file.with_suffix(".md"), "\n\n".join(parts) + "\n")
