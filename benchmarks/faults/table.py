"""The results: one row for each fault, in a JSON file that is added to and a table made of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trial import Outcome

from selfpos.console import markdown_table
from selfpos.errors import printable, shortened
from selfpos.storage.atomic import write_text

TITLES = {
    "outside": "Files outside the folder",
    "documents": "Documents without bounds, numbers, types and words",
    "tokenizing": "Tokenizers that fail, and tasks of the user's own",
    "headers": "Headers that lie, indices, adapters, names",
    "records": "Records that break the reader",
    "pickles": "Pickles",
    "kills": "Kills",
    "signalled": "Signals",
    "disk": "Disk, permissions, two at once",
    "workers": "Ray workers lost",
    "hub": "The Hub",
    "words": "What no output may hold, and words that are not words",
    "sizes": "Sizes",
    "fuzzing": "Fuzzers that draw contents near valid ones (hypothesis)",
    "guided": "Fuzzers that coverage guides (atheris)",
}
FUZZERS = ("fuzzing", "guided")


@dataclass(frozen=True)
class Row:
    """A fault, how often it was tried and survived, and what the user saw most often."""

    fault: str
    tried: int
    survived: int
    saw: str
    why: str = ""


@dataclass(frozen=True)
class Group:
    """The rows of a group, and the command line and the commit that made them."""

    command: str
    rows: Sequence[Row]
    commit: str = ""

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many faults there are, and how often they were tried and survived."""
        return len(self.rows), sum(row.tried for row in self.rows), sum(row.survived for row in self.rows)


def rows_of(outcomes: Sequence[Outcome], folder: Path) -> list[Row]:
    """The outcomes counted by fault, without what differs between machines and starts."""
    rows = []
    for fault in dict.fromkeys(outcome.fault for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.fault == fault]
        saw = Counter(neutral(outcome.saw, folder) for outcome in own).most_common(1)[0][0]
        whys = [outcome.why for outcome in own if outcome.why]
        why = neutral(whys[0], folder) if whys else ""
        rows.append(Row(fault, len(own), len(own) - len(whys), shortened(saw, 240), shortened(why, 300)))
    return rows


def neutral(text: str, folder: Path) -> str:
    """`text` without the scratch folder, and without long runs of one letter."""
    without = re.sub(rf"{re.escape(str(folder))}/(try-\d+/)?", "", text)
    return printable(re.sub(r"(.)\1{9,}", r"\1…", without))


def written(out: Path, name: str, group: Group) -> None:
    """Put the rows of a group in place of its former ones, and write the table."""
    file = out / "faults.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    kept[name] = asdict(group)
    out.mkdir(parents=True, exist_ok=True)
    ordered = {name: kept[name] for name in TITLES if name in kept}
    write_text(file, json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    groups = {
        name: Group(**(kept | {"rows": [Row(**row) for row in kept["rows"]]}))
        for name, kept in ordered.items()
    }
    write_text(out / "faults.md", page(groups))


def page(groups: dict[str, Group]) -> str:
    """The results as Markdown."""
    listed = [(0, 0, 0), *(group.counts for name, group in groups.items() if name not in FUZZERS)]
    faults, count, survived = (sum(numbers) for numbers in zip(*listed, strict=True))
    drawn, guided = (groups[name].counts if name in groups else (0, 0, 0) for name in FUZZERS)
    parts = [
        "# Faults and strangers' files",
        f"Made by `benchmarks/faults`, each group by the command line above its table. {faults} faults, "
        f"tried {count:,} times, survived {survived:,} times. {drawn[0]} fuzzers drew {drawn[1]:,} contents "
        f"near valid ones (hypothesis), of which {drawn[2]:,} were survived; {guided[0]} were guided by the "
        f"coverage of selfpos' code (atheris) and tried {guided[1]:,}, of which {guided[2]:,} were survived. "
        "Survived means: in a process of its own, under limits of processor time and memory, the command "
        "ended with status 0, or with the status of a refusal or a signal and one sentence, without a "
        "traceback, and left nothing half-written. After kills, signals and full disks the output, or "
        "that of a second start, must also have the bytes of work that nothing disturbed, but for times "
        "and the loss curve, which is a mean since the last checkpoint. The last column is what was seen "
        "most often, with paths cut short.",
    ]
    for name, group in groups.items():
        cells = [
            [_cell(row.fault), f"{row.tried:,}", _survived(row), _cell(row.saw + _reason(row))]
            for row in group.rows
        ]
        header = ["fault", "tried", "survived", "what the user saw"]
        parts += [f"## {TITLES[name]}", f"`{group.command}`{group.commit and f', at commit {group.commit}'}"]
        parts += [markdown_table(header, cells)] if cells else []
    return "\n\n".join(parts) + "\n"


def _survived(row: Row) -> str:
    return f"{row.survived:,}" if row.survived == row.tried else f"**{row.survived:,}**"


def _reason(row: Row) -> str:
    return f" (not survived: {row.why})" if row.why else ""


def _cell(text: str) -> str:
    """`text` as it stands, in a cell of a table."""
    return re.sub(r"([|<>*_`\[\]\\])", r"\\\1", text)
