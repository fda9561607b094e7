"""The report of a run: one HTML file that needs no network and no other file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.comparison.differences import MEAN
from selfpos.comparison.tables import differences_grid, how
from selfpos.errors import OperationError
from selfpos.report import drawing, figures, search_figures, space_figures
from selfpos.report.results import RunResults, read_results, with_details
from selfpos.report.table import make_table
from selfpos.storage.atomic import refuse_existing, write_text
from selfpos.storage.run_folder import RunFolder
from selfpos.version import __version__

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One figure of the page: what it is called, what one sees in it (also its alt text), and the figure; `wide` when it needs the whole width."""

    title: str
    says: str
    figure: Figure
    wide: bool = False

    @property
    def name(self) -> str:
        """What its files are called, and its ids begin with."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def svg(self) -> str:
        return drawing.svg(self.figure, self.name)


def write_report(folder: RunFolder, out: Path | None = None, *, figures_to: Path | None = None) -> Path:
    """Write the report of the run in `folder` to `out` (default: `report.html` in that folder) and return its path.

    With `figures_to` every figure is also written to that folder, as PNG and as SVG. Works from partial results and lists what is missing.
    Raises SelfposError when `folder` is no run or the `out` asked for exists, OperationError when the disk refuses.
    """
    from jinja2 import Environment, PackageLoader

    if out is not None:
        refuse_existing(out)
    results = with_details(read_results(folder), folder)
    pictures = _pictures(results)
    pages = Environment(
        loader=PackageLoader("selfpos.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters["breakable"] = breakable
    text = pages.get_template("report.html").render(
        results=results,
        table=make_table(results),
        differences=differences_grid(results.comparison) if results.comparison else None,
        how=how(results.comparison) if results.comparison else "",
        findings=findings(results),
        found=_coefficients(results),
        pictures=pictures,
        recipe=folder.recipe.read_text(encoding="utf-8"),
        versions=_versions(),
        sections=[file.read_text(encoding="utf-8") for file in folder.sections],
    )
    target = out or folder.report
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)
        if figures_to is not None:
            figures_to.mkdir(parents=True, exist_ok=True)
            for picture in pictures:
                for suffix in (".png", ".svg"):
                    drawing.save(picture.figure, figures_to / f"{picture.name}{suffix}")
    except OSError as error:
        raise OperationError(f"cannot write the report {target}: {error.strerror}") from None
    return target


def breakable(name: str) -> Markup:
    """`name`, which may be broken before a capital or after a hyphen rather than anywhere."""
    from markupsafe import Markup

    return Markup("<wbr>").join(part for part in re.split(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[-_])", name) if part)


def findings(results: RunResults) -> str:
    """Which model and which merge is best on the mean, and whether that is more than noise; empty where no model has all scores."""
    means = {model: mean for model in results.scores if (mean := results.mean(model)) is not None}
    if not means:
        return ""
    gains = (
        {row.model: row.differences.get(MEAN) for row in results.comparison.rows}
        if results.comparison
        else {}
    )

    def told(model: str) -> str:
        gain = gains.get(model)
        text = f"{model} ({100 * means[model]:.2f}"
        if gain is not None and gain.low is not None and gain.high is not None:
            noise = "" if gain.significant else ", not significant"
            text += f"; {100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}] against {results.baseline}{noise}"
        return f"{text})"

    best = max(means, key=lambda model: means[model])
    merged = [model for model in means if model in results.recipe.merges]
    text = f"Highest mean: {told(best)}."
    if merged and best not in merged:
        text += f" Best merge: {told(max(merged, key=lambda model: means[model]))}."
    return text


def _coefficients(results: RunResults) -> list[tuple[list[str], list[tuple[str, list[tuple[str, str]]]]]]:
    """The coefficients of all searches, those over the same vectors together: vectors, and for each search its name, values and intervals."""
    tables: dict[tuple[str, ...], list[tuple[str, list[tuple[str, str]]]]] = {}
    for name, search in results.searches.items():
        told = search.position
        spans = told.get("intervals") or [None] * len(told["names"])
        cells = [
            (f"{value:.4f}", f"[{span[0]:.2f}, {span[1]:.2f}]" if span else "")
            for value, span in zip(told["coefficients"], spans, strict=True)
        ]
        tables.setdefault(tuple(told["names"]), []).append((name, cells))
    return [(list(names), rows) for names, rows in tables.items()]


def _pictures(results: RunResults) -> list[Picture]:
    return [*_of_scores(results), *_of_searches(results), *_of_space(results)]


def _of_scores(results: RunResults) -> list[Picture]:
    pictures = []
    known = [model for model in results.scores if results.mean(model) is not None]
    if known:
        top = max(known, key=lambda model: results.mean(model) or 0)
        says = f"Mean score of each of {len(known)} models over {len(results.tasks)} tasks; highest: {top}."
        if results.comparison:
            says += (
                f" Bars are 95 % intervals of the difference to {results.baseline}, over the tasks' examples."
            )
        pictures.append(Picture("Mean scores", says, figures.means(results)))
    if results.scores and results.baseline in results.scores and len(results.scores) > 1:
        says = (
            f"From {results.baseline} to each model, by task type: mean score over the tasks of the type, in percent. Blue triangles are specialists, the "
            "yellow diamond is the joint model, green dots are merges, orange stars merges with learned coefficients."
        )
        pictures.append(Picture("Gains by task type", says, figures.slopes(results), wide=True))
        says = f"Score of each model on each task, in percent, and its difference to {results.baseline} in points; orange is better, violet worse"
        says += "; a tilde marks differences that are not significant." if results.comparison else "."
        pictures.append(
            Picture("Scores by method and task", says, figures.heat_map(results), wide=len(results.tasks) > 5)
        )
    if sum(bool(cost.total) and results.mean(cost.model) is not None for cost in results.costs) > 1:
        says = "Mean score of each model, and the seconds it took to make it with all that it is made from: for a merge its specialists, too."
        pictures.append(Picture("Score and cost", says, figures.score_and_cost(results)))
    return pictures


def _of_searches(results: RunResults) -> list[Picture]:
    pictures = []
    for name, search in results.searches.items():
        found = ", ".join(
            f"{vector} {value:.3f}"
            for vector, value in zip(search.position["names"], search.position["coefficients"], strict=True)
        )
        held = any("validation" in point for point in search.trajectory)
        lower = "loss of each task on batches of the probe (dots)" + (
            " and on its held-out part (lines)" if held else ""
        )
        says = f"Coefficients of the task vectors over the search, and the {lower}; kept at step {search.position['step']} (dotted): {found}."
        pictures.append(
            Picture(f"Path of the coefficients: {name}", says, search_figures.coefficient_path(search))
        )
        if search_figures.by_layer(search):
            says = "Coefficient of each task vector in each layer, the mean over the layer's tensors; red adds, blue subtracts."
            pictures.append(Picture(f"Coefficients by layer: {name}", says, search_figures.layer_map(search)))
    return pictures


def _of_space(results: RunResults) -> list[Picture]:
    pictures = []
    if results.gram:
        says = (
            "Norm of each task vector (diagonal) and the angle between each two, in degrees: at 90°, white, the tasks moved the weights independently; "
            "red is closer, blue apart."
        )
        pictures.append(Picture("Norms and angles of the task vectors", says, space_figures.angles(results)))
    return pictures


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"selfpos": __version__} | {
        name: version(name) for name in ("torch", "transformers", "sentence-transformers", "mteb", "numpy")
    }
