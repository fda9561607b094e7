"""What all comparisons share: one measurement per seed, kept in a JSON file that a stopped comparison goes on
from, and an outcome with verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.console import log, log_to
from selfpos.errors import SelfposError
from selfpos.imbalance.study.analysis import Interval, paired_bootstrap

Values = dict[str, Any]  # what was measured for one seed, as JSON holds it
FEWEST = 5  # seeds: an interval resampled from n pairs covers their median with 1 − 2^(1−n) at most, of two pairs with a half
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Finding:
    """A paired difference over seeds, and whether what it is asked for holds: all of its interval above
    `least`.

    Where the reference names a falsifier that any overlap fulfils (`strict`), what is not shown to hold does
    not hold. With a `p`, of a test that seeds say nothing about, what holds over seeds is decided only where
    p is below SIGNIFICANT.
    """

    claim: str
    gain: Interval
    least: float = 0.0
    strict: bool = False
    p: float | None = None

    @property
    def verdict(self) -> str:
        if self.gain.n < FEWEST:
            return "not decided"
        if self.gain.low > self.least:
            return "holds" if self.p is None or self.p < SIGNIFICANT else "not decided"
        return "does not hold" if self.strict or self.gain.high < self.least else "not decided"

    @property
    def row(self) -> list[str]:
        told = "" if self.p is None else f"; p {self.p:.3f}"
        return [self.claim, str(self.gain) + told, str(self.gain.n), self.verdict]


@dataclass(frozen=True)
class Judgement:
    """A finding that is no difference over seeds: what was found, in words, and the verdict."""

    claim: str
    value: str
    verdict: str

    @property
    def row(self) -> list[str]:
        return [self.claim, self.value, "", self.verdict]


@dataclass(frozen=True)
class Outcome:
    """A comparison's table and findings; `falsifier` is what would speak against it."""

    title: str
    falsifier: str
    header: list[str]
    rows: list[list[str]]
    findings: Sequence[Finding | Judgement]

    def markdown(self) -> str:
        """Table, findings and falsifier."""
        lines = [f"# {self.title}", "", f"Falsifier: {self.falsifier}", ""]
        for header, rows in (
            (self.header, self.rows),
            (["claim", "paired difference [95 %, bootstrap over seeds]", "seeds", "verdict"], self.found),
        ):
            lines += ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)] + [""]
        return "\n".join(lines)

    @property
    def found(self) -> list[list[str]]:
        """The findings as rows of a table."""
        return [one.row for one in self.findings]


def finding(
    claim: str, first: list[float], second: list[float], least: float = 0.0, strict: bool = False
) -> Finding:
    """first − second, paired by seed."""
    return Finding(
        claim, paired_bootstrap([a - b for a, b in zip(first, second, strict=True)]), least, strict
    )


def over_seeds(file: Path, settings: Values, seeds: int, measure: Callable[[int], Values]) -> list[Values]:
    """What `measure` finds for seeds 0, 1, …; those that `file` has already are not measured again.

    The file is one process's while seeds are measured. Raises SelfposError when another has it, and when it
    was made with other settings or holds no comparison.
    """
    from selfpos.storage.atomic import locked, write_text

    wanted = json.loads(json.dumps(settings))
    journal = file.with_suffix(".log")
    with log_to(journal), locked(journal):
        kept = _kept(file, wanted)
        for seed in missing_seeds(file, seeds):
            found = measure(seed)
            # Read and checked again: the lock does not reach a process on another machine, or one that copies
            # files.
            there = _kept(file, wanted)
            kept = {
                "settings": there["settings"],
                "seeds": kept["seeds"] | there["seeds"] | {str(seed): found},
            }
            write_text(file, json.dumps(kept, indent=1) + "\n")
            log.info("seed %d measured", seed)
    return [json.loads(json.dumps(kept["seeds"][str(seed)])) for seed in range(seeds)]


def _kept(file: Path, settings: Values) -> Values:
    """What `file` holds, which must have been made with these settings; no seeds where there is no file."""
    if not file.exists():
        return {"settings": settings, "seeds": {}}
    before = _read(file)
    unknown = {"data": settings.get("data")} | before["settings"]  # older files have no note of their data
    if changed := [key for key in settings if unknown.get(key) != settings[key]]:
        raise SelfposError(
            f"the results in {file} were made with other settings ({', '.join(changed)}); name another file "
            "with --out"
        )
    return before


def missing_seeds(file: Path, seeds: int) -> list[int]:
    """Which of the seeds 0, 1, … `file` does not have yet."""
    there = _read(file)["seeds"] if file.exists() else {}
    return [seed for seed in range(seeds) if str(seed) not in there]


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SelfposError(f"{file} cannot be read as JSON: {error}; name another file with --out") from None
    if not isinstance(found, dict) or any(
        not isinstance(found.get(key), dict) for key in ("settings", "seeds")
    ):
        raise SelfposError(
            f"{file} holds no results of `selfpos imbalance compare`; name another file with --out"
        )
    return found


def write_outcome(outcome: Outcome, file: Path, settings: Values) -> None:
    """The outcome as Markdown beside the JSON file of what was measured."""
    from selfpos.storage.atomic import write_text

    told = "; ".join(f"{key} {value}" for key, value in settings.items() if not isinstance(value, dict))
    write_text(file.with_suffix(".md"), f"{outcome.markdown()}\n{told}\n")


def mean(values: list[float], digits: int = 2) -> str:
    """The mean for a table."""
    return f"{np.mean(values):.{digits}f}"
