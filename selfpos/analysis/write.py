"""The findings of an analysis on disk: JSON, Markdown, figures, and the section of the run's report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.analysis import figures
from selfpos.storage.atomic import write_text

if TYPE_CHECKING:
    from selfpos.analysis.study import Findings

Table = tuple[str, str, list[str], list[list[str]]]
"""Title, what it says, header, rows."""


def write_findings(folder: Path, found: Findings) -> None:
    """Write analysis.json, analysis.md, a PNG of every figure, and section.html, which the report of the run takes in."""
    write_text(folder / "analysis.json", json.dumps(asdict(found), indent=1) + "\n")
    drawn = figures.draw(found)
    for name, (_, figure) in drawn.items():
        figures.save(figure, folder / f"{name}.png")
    write_text(folder / "analysis.md", _markdown(found, {name: title for name, (title, _) in drawn.items()}))
    write_text(
        folder / "section.html",
        _section(found, {title: figures.svg(figure) for title, figure in drawn.values()}),
    )


def tables(found: Findings) -> list[Table]:
    """The findings as tables; what was not measured is left out."""
    made: list[Table] = []
    if any(point["pairs"] for point in found.gradients.values()):
        says = (
            f"Cosine of the gradients of two tasks on {found.records} records, freed of the batches' noise, with its 95 % interval (jackknife over batches); "
            "conflict: the whole interval lies below zero. Share: pairs of batches whose gradients point apart. Layers: those whose cosine is below zero."
        )
        rows = [
            [point, " – ".join(pair["tasks"]), _cosine(pair), f"{pair['raw_cosine']:+.3f}", f"{pair['share']:.0%}", _layers(measured["layers"], place),
             "yes" if pair["conflicting"] else "no"]
            for point, measured in found.gradients.items() for place, pair in enumerate(measured["pairs"])
        ]  # fmt: skip
        made.append(
            (
                "Do the tasks' gradients conflict?",
                says,
                ["at", "tasks", "cosine", "raw", "share", "layers", "conflict"],
                rows,
            )
        )
    if found.gradients:
        says = "Length of each task's gradient, freed of noise, and the share of a batch's squared length that is not noise."
        rows = [
            [point, task, f"{one['norm']:.3g}", f"{one['signal']:.0%}"]
            for point, measured in found.gradients.items()
            for task, one in measured["tasks"].items()
        ]
        made.append(("How strong is each task's gradient?", says, ["at", "task", "length", "signal"], rows))
    if found.gaps:
        worse = {
            rival: [gap["gap"] < 0 for gap in found.gaps if gap["rival"] == rival] for rival in found.rivals
        }
        counts = ", ".join(
            f"{rival} on {sum(lost)} of {len(lost)} evaluation tasks" for rival, lost in worse.items()
        )
        says = f"Behind the best specialist: {counts}. The best of several is chosen by the score itself, which flatters it: small gaps prove nothing."
        rows = [
            [gap["task"], _percent(gap["base"]), gap["rival"], _percent(gap["joint"]), _percent(gap["best"]), gap["specialist"],
             f"{100 * gap['gap']:+.2f}"]
            for gap in found.gaps
        ]  # fmt: skip
        header = ["evaluation task", "base", "joint model", "its score", "best", "specialist", "gap"]
        made.append(("Joint model or specialist?", says, header, rows))
    if found.vectors:
        says = (
            "Length of each model's vector, what it was trained on, and its angle to the others in degrees."
        )
        names = [row["name"] for row in found.vectors]
        rows = [
            [row["name"], f"{row['norm']:.4f}", _count(row["records"]), _count(row["steps"]),
             *("–" if other == row["name"] else f"{row['angles'][other]:.1f}" for other in names)]
            for row in found.vectors
        ]  # fmt: skip
        made.append(
            (
                "How long are the vectors, and how far apart?",
                says,
                ["model", "‖V‖", "records", "steps", *names],
                rows,
            )
        )
    if found.dominance:
        leaders = ", ".join(
            f"{rival} (length {lead['norm']:.4f}) leans most to {max(lead['shares'], key=lambda share: share['cosine'])['name']}, and "
            f"{lead['explained']:.0%} of its squared length lies in the specialists' span"
            for rival, lead in found.dominance.items()
        )
        says = (
            f"Of the joint vectors {leaders}. Projection: how far one goes along a specialist's vector, 1 being as far. Coefficient: in the nearest "
            "combination of all."
        )
        rows = [
            [
                rival,
                share["name"],
                *(f"{share[measure]:+.3f}" for measure in ("cosine", "projection", "coefficient")),
                f"{share['norm']:.4f}",
            ]
            for rival, lead in found.dominance.items()
            for share in lead["shares"]
        ]
        header = ["joint model", "specialist", "cosine", "projection", "coefficient", "‖V‖"]
        made.append(("Who dominates the joint model?", says, header, rows))
    if found.arms:
        says = "Small specialists on shares of the records: `equal epochs` see theirs once, `equal steps` go on as long as the longest."
        if found.law:
            law = found.law
            says += (
                f" Within tasks ‖V‖ goes with records^{law['by_records']:.2f} · steps^{law['by_steps']:.2f}, which explains {law['explained']:.0%} of the variance of "
                f"its logarithm; records alone {law['explained_by_records']:.0%}, steps alone {law['explained_by_steps']:.0%}."
            )
        rows = [
            [
                arm["task"],
                arm["kind"],
                _count(arm["records"]),
                _count(arm["steps"]),
                f"{arm['norm']:.4f}",
                f"{arm['angle']:.1f}",
            ]
            for arm in found.arms
        ]
        made.append(
            (
                "Does length go with instances or with steps?",
                says,
                ["task", "arm", "records", "steps", "‖V‖", "angle to longest"],
                rows,
            )
        )
    return made


def _cosine(pair: dict) -> str:
    if pair["cosine"] is None:
        return "lost in noise"
    interval = "" if pair["low"] is None else f" ({pair['low']:+.3f} … {pair['high']:+.3f})"
    return f"{pair['cosine']:+.3f}{interval}"


def _layers(layers: dict, place: int) -> str:
    cosines = [pairs[place]["cosine"] for pairs in layers.values() if pairs[place]["cosine"] is not None]
    return f"{sum(cosine < 0 for cosine in cosines)} of {len(cosines)}"


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.2f}"


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _markdown(found: Findings, pictures: dict[str, str]) -> str:
    parts = [f"# {found.name}: conflict and imbalance\n"]
    if found.missing:
        parts.append(f"Not there yet: {'; '.join(found.missing)}.\n")
    for title, says, header, rows in tables(found):
        parts += [
            f"## {title}\n",
            f"{says}\n",
            _row(header),
            _row(["---"] * len(header)),
            *map(_row, rows),
            "",
        ]
    parts += [f"![{title}]({name}.png)\n" for name, title in pictures.items()]
    return "\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _section(found: Findings, pictures: dict[str, str]) -> str:
    from jinja2 import Environment, PackageLoader

    pages = Environment(
        loader=PackageLoader("selfpos.analysis"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return pages.get_template("section.html").render(found=found, tables=tables(found), pictures=pictures)
