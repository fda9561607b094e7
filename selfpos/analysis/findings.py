"""The findings of an analysis, written as JSON, Markdown, a figure, and the section of a run's report."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import markdown_table
from selfpos.storage.atomic import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE = "Cosine of the tasks' gradients, with 95 % intervals; a ring where the batches give none"


@dataclass(frozen=True)
class ShortTraining:
    """One small specialist: its `records` and `steps`, the `norm` of its vector, and the `angle` in degrees
    to the vector of the task's longest training."""

    task: str
    kind: str
    records: int
    steps: int
    norm: float
    angle: float


@dataclass(frozen=True)
class LengthLaw:
    """‖V‖ ≈ c_task · records^`by_records` · steps^`by_steps`, a least-squares fit of logarithms within tasks.

    `explained` is the share of variance that both explain, the others that of records or steps alone.
    """

    by_records: float
    by_steps: float
    explained: float
    explained_by_records: float
    explained_by_steps: float


@dataclass(frozen=True)
class Findings:
    """What an analysis measured; empty or None where nothing was. `gradients`: model → `measure_point`."""

    name: str
    records: str
    gradients: dict[str, dict[str, Any]] = field(default_factory=dict)
    vectors: list[dict[str, Any]] = field(default_factory=list)
    arms: list[ShortTraining] = field(default_factory=list)
    law: LengthLaw | None = None
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """One table of the findings, with a sentence on how to read it."""

    title: str
    explanation: str
    header: list[str]
    rows: list[list[str]]


def length_law(trainings: Sequence[ShortTraining]) -> LengthLaw | None:
    """Fit the law; None where the trainings do not tell records from steps."""
    used = [training for training in trainings if training.norm > 0]
    if not used:
        return None
    logs = np.log([[training.records, training.steps, training.norm] for training in used])
    for task in {training.task for training in used}:  # tasks are not compared with each other
        rows = np.array([training.task == task for training in used])
        logs[rows] -= logs[rows].mean(0)
    causes, lengths = logs[:, :2], logs[:, 2]
    total = float(lengths @ lengths)
    if np.linalg.matrix_rank(causes, tol=1e-8) < 2 or math.isclose(total, 0, abs_tol=1e-24):
        return None

    def explained(columns: np.ndarray) -> float:
        exponents = np.linalg.lstsq(columns, lengths, rcond=None)[0]
        return 1 - float(np.square(lengths - columns @ exponents).sum()) / total

    by_records, by_steps = map(float, np.linalg.lstsq(causes, lengths, rcond=None)[0])
    shares = (explained(columns) for columns in (causes, causes[:, :1], causes[:, 1:]))
    return LengthLaw(by_records, by_steps, *shares)


def write_findings(folder: Path, findings: Findings) -> None:
    """Write analysis.json, analysis.md, gradients.png, and section.html, which the run's report includes."""
    from jinja2 import Environment, PackageLoader

    from selfpos.report.figures import save, svg

    write_text(folder / "analysis.json", json.dumps(asdict(findings), indent=1) + "\n")
    picture = ""
    if _has_pairs(findings):
        figure = gradient_figure(findings)
        save(figure, folder / "gradients.png")
        picture = svg(figure)
    loader = PackageLoader("selfpos.analysis")
    pages = Environment(loader=loader, trim_blocks=True, keep_trailing_newline=True)
    pages.filters["escape"] = escape
    content = {"findings": findings, "tables": tables(findings), "title": FIGURE, "picture": picture}
    for name, template in (("analysis.md", "analysis.md.j2"), ("section.html", "section.html")):
        text = pages.get_template(template).render(**content, markdown_table=markdown_table)
        write_text(folder / name, text)


def tables(findings: Findings) -> list[Table]:
    """The findings as tables, without those that nothing was measured for."""
    made = [
        _conflict_table(findings) if _has_pairs(findings) else None,
        _strength_table(findings) if findings.gradients else None,
        _vector_table(findings) if findings.vectors else None,
        _length_table(findings) if findings.arms else None,
    ]
    return [table for table in made if table is not None]


def _has_pairs(findings: Findings) -> bool:
    return any(point["pairs"] for point in findings.gradients.values())


def _conflict_table(findings: Findings) -> Table:
    rows = []
    for point, measured in findings.gradients.items():
        for index, pair in enumerate(measured["pairs"]):
            cosines = [pairs[index]["cosine"] for pairs in measured["layers"].values()]
            defined = [cosine for cosine in cosines if cosine is not None]
            negative = f"{sum(cosine < 0 for cosine in defined)} of {len(defined)}"
            row = [point, " – ".join(pair["tasks"]), _cosine(pair), f"{pair['raw_cosine']:+.3f}"]
            rows.append([*row, f"{pair['share']:.0%}", negative, "yes" if pair["conflicting"] else "no"])
    explanation = (
        f"Cosine of two tasks' gradients on {findings.records} records, without the noise of batches, with "
        "its 95 % interval (jackknife over batches). Conflict: the whole interval is below zero. Share: "
        "pairs of batches with a negative inner product. Layers: those with a negative cosine."
    )
    header = ["at", "tasks", "cosine", "raw", "share", "layers", "conflict"]
    return Table("Do the tasks' gradients conflict?", explanation, header, rows)


def _strength_table(findings: Findings) -> Table:
    rows = []
    for point, measured in findings.gradients.items():
        for task, gradient in measured["tasks"].items():
            rows.append([point, task, f"{gradient['norm']:.3g}", f"{gradient['signal']:.0%}"])
    explanation = (
        "Length of each task's gradient without noise, and the share of signal in a batch's gradient."
    )
    return Table("How strong is each task's gradient?", explanation, ["at", "task", "length", "signal"], rows)


def _vector_table(findings: Findings) -> Table:
    names = [vector["name"] for vector in findings.vectors]
    rows = []
    for vector in findings.vectors:
        angles = ["–" if name == vector["name"] else f"{vector['angles'][name]:.1f}" for name in names]
        counts = [_count(vector["records"]), _count(vector["steps"])]
        rows.append([vector["name"], f"{vector['norm']:.4f}", *counts, *angles])
    explanation = (
        "Length of each model's vector, what it was trained on, and its angle to the others in degrees."
    )
    header = ["model", "‖V‖", "records", "steps", *names]
    return Table("How long are the vectors, and how far apart?", explanation, header, rows)


def _length_table(findings: Findings) -> Table:
    explanation = (
        "Small specialists on shares of the records: `equal epochs` see theirs once, `equal steps` train as "
        "long as the longest."
    )
    if law := findings.law:
        explanation += (
            f" Within tasks ‖V‖ grows as records^{law.by_records:.2f} · steps^{law.by_steps:.2f}. This "
            f"explains {law.explained:.0%} of the variance of its logarithm; records alone "
            f"{law.explained_by_records:.0%}, steps alone {law.explained_by_steps:.0%}."
        )
    rows = []
    for arm in findings.arms:
        counts = [_count(arm.records), _count(arm.steps)]
        rows.append([arm.task, arm.kind, *counts, f"{arm.norm:.4f}", f"{arm.angle:.1f}"])
    header = ["task", "training", "records", "steps", "‖V‖", "angle to longest"]
    return Table("Does length depend on records or on steps?", explanation, header, rows)


def gradient_figure(findings: Findings) -> Figure:
    """One row for each pair of tasks and model; left of zero the tasks conflict."""
    from selfpos.report.figures import GREY, LINES, plot

    points = list(findings.gradients)
    pairs = range(len(findings.gradients[points[0]]["pairs"]))
    rows = [(point, findings.gradients[point]["pairs"][index]) for index in pairs for point in points]
    figure, axes = plot(6.8, 1.0 + 0.26 * len(rows))
    for y, (point, pair) in enumerate(reversed(rows)):
        if pair["cosine"] is None:
            axes.annotate("lost in noise", (0, y), fontsize=8, color=GREY, va="center")
            continue
        colour = LINES[points.index(point) % len(LINES)]
        if pair["low"] is not None:
            axes.plot([pair["low"], pair["high"]], [y, y], color=colour, alpha=0.6)
        fill = "none" if pair["low"] is None else colour
        axes.plot([pair["cosine"]], [y], "o", color=colour, markersize=5, markerfacecolor=fill)
    axes.axvline(0, color=GREY, linewidth=1)
    labels = [f"{' – '.join(pair['tasks'])} at {point}" for point, pair in reversed(rows)]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlabel("cosine")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _cosine(pair: dict[str, Any]) -> str:
    if pair["cosine"] is None:
        return "lost in noise"
    interval = "" if pair["low"] is None else f" ({pair['low']:+.3f} … {pair['high']:+.3f})"
    return f"{pair['cosine']:+.3f}{interval}"


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"
