"""The tables of `retain.py`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORGOT = 0.01  # of the general mean on the test: the fine-tune has forgotten
COLUMNS = ("domain", "seed", "rate", "chosen on", "judged on", "gain", "loss", "α", "kept", "undone")


def _line(piece: dict[str, Any]) -> list[str]:
    """What `retain` made of one domain and seed, a cell for each of COLUMNS."""
    row = piece["arms"]["retain"]
    return [
        piece["domain"], str(piece["seed"]), f"{piece['rate']:.0e}",
        str(piece["validation"]), str(piece["records"]),
        f"{100 * piece['gain']:.1f}", f"{100 * piece['loss']:.1f}", f"{row['alpha']:.2f}",
        f"{100 * row['kept']:.0f} %", f"{100 * row['undone']:.0f} %",
    ]  # fmt: skip


def _fronts(pieces: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Each front's mean area, and how far the first is ahead: the mean and its 90 % interval over pieces."""
    from scipy.stats import t

    areas = {name: [piece["hypervolume"][name] for piece in pieces] for name in pieces[0]["hypervolume"]}
    first = next(iter(areas))
    rows = []
    for name, values in areas.items():
        leads = [ours - theirs for ours, theirs in zip(areas[first], values, strict=True)]
        lead = ""
        if name != first and len(leads) > 1:
            mean = statistics.mean(leads)
            half = t.ppf(0.95, len(leads) - 1) * statistics.stdev(leads) / len(leads) ** 0.5
            lead = f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"
        rows.append([name, f"{statistics.mean(values):.3f}", lead])
    return rows


def _names(pieces: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{piece['domain']} {piece['seed']}" for piece in pieces)


def _arms(pieces: Sequence[dict[str, Any]]) -> str:
    """The mean of each arm over the runs that have it."""
    from selfpos.console import markdown_table

    lines = []
    for arm in dict.fromkeys(arm for piece in pieces for arm in piece["arms"]):
        rows = [piece["arms"][arm] for piece in pieces if arm in piece["arms"]]
        means = [100 * statistics.mean(min(row[share], 1.0) for row in rows) for share in ("kept", "undone")]
        broken = [sum(bool(row[how]) for row in rows) for how in ("broken", "beyond_a_fifth")]
        counted = [f"{count} of {len(rows)}" for count in broken]
        lines.append([arm, str(len(rows)), *(f"{mean:.0f} %" for mean in means), *counted])
    return markdown_table(["arm", "runs", "gain kept", "loss undone", "broken", "beyond a fifth"], lines)


def report(out: Path, domains: Sequence[str]) -> None:
    """Write the table of all pieces, as JSON and Markdown beside their folder `out`."""
    from selfpos.console import markdown_table

    pieces = [json.loads(file.read_text()) for file in sorted(out.glob("*-seed*.json"))]
    if not pieces:
        return
    forgot = [piece for piece in pieces if piece["loss"] >= FORGOT]
    arms = max((piece["arms"] for piece in pieces), key=len)
    whole = [piece for piece in pieces if len(piece["arms"]) == len(arms)]
    missing = ", ".join(name for name in domains if name not in {piece["domain"] for piece in pieces})
    text = [
        "# retain", "", f"Not measured: {missing or 'no domain'}.", "",
        "Broken: on the test a general task is significantly below the base; beyond a fifth: significantly "
        "below the base less a fifth of what the fine-tune lost on it. A share above all counts as all in a "
        "mean.", "",
        _arms(pieces), "",
        f"The runs whose fine-tune lost a point or more on the test, {len(forgot)} of {len(pieces)}:", "",
        _arms(forgot), "",
        f"The runs that have every arm ({_names(whole)}):", "",
        _arms(whole), "",
        "Each run: points that the fine-tune gained on its domain and lost on general tasks, on the test, "
        "and what `retain` made of it.", "",
        markdown_table(COLUMNS, [_line(piece) for piece in pieces]), "",
        markdown_table(["front", "hypervolume", "behind the first"], _fronts(pieces)), "",
    ]  # fmt: skip
    out.with_suffix(".json").write_text(json.dumps(pieces, indent=1) + "\n")
    out.with_suffix(".md").write_text("\n".join(text))
    print("\n".join(text))
