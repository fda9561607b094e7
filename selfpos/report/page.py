"""A report: one HTML file that needs no network and no other file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.comparison.tables import differences_grid, how
from selfpos.errors import OperationError, printable_page
from selfpos.report import figures
from selfpos.report.answer import findings
from selfpos.report.results import Results, Search, make_table
from selfpos.storage.atomic import refuse_existing, write_text
from selfpos.version import __version__, versions_of

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

LIBRARIES = ("torch", "transformers", "sentence-transformers", "mteb", "numpy")  # whose versions are shown

MARKS = {
    "base": "a grey square is the base",
    "specialist": "blue triangles are specialists",
    "iterative": "dark triangles are stages of one training",
    "joint": "a yellow diamond is a joint model",
    "bagging": "pink triangles are models of bags",
    "merge": "green dots are merges",
    "positioned": "orange stars are merges whose coefficients were searched for",
    "model": "dark pentagons are models of unknown origin",
}


@dataclass(frozen=True)
class Picture:
    """One figure of the page, with its title and alt text; `wide` takes the whole width."""

    title: str
    says: str
    figure: Figure
    wide: bool = False

    @property
    def name(self) -> str:
        """The name of its files, with which its ids begin."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def svg(self) -> str:
        return figures.svg(self.figure, self.name)

    @property
    def narrow_svg(self) -> str:
        return figures.narrow_svg(self.figure, self.name)


def write_report(
    results: Results,
    out: Path,
    *,
    replace: bool = False,
    figures_to: Path | None = None,
    formats: tuple[str, ...] = (".png", ".svg"),
) -> Path:
    """Write the report of `results` to `out`; returns the path.

    With `figures_to` every figure is also written to that folder in each of `formats`. Raises SelfposError
    where `out` exists, unless it may `replace` that; OperationError where the disk refuses.
    """
    from jinja2 import Environment, PackageLoader

    if not replace:
        refuse_existing(out)
    pictures = list(_pictures(results))
    loader = PackageLoader("selfpos.report")
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters["breakable"] = breakable
    text = pages.get_template("report.html").render(
        results=results,
        table=make_table(results),
        differences=differences_grid(results.comparison) if results.comparison else None,
        how=how(results.comparison) if results.comparison else "",
        findings=findings(results),
        coefficients=_coefficients(results),
        pictures=pictures,
        versions={"selfpos": __version__, **versions_of(*LIBRARIES)},
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, printable_page(text))
        if figures_to is not None:
            figures_to.mkdir(parents=True, exist_ok=True)
            for picture in pictures:
                for suffix in formats:
                    figures.save(picture.figure, figures_to / f"{picture.name}{suffix}")
    except OSError as error:
        raise OperationError(f"cannot write the report {out}: {error.strerror}") from None
    return out


def breakable(name: str) -> Markup:
    """`name`, which may break before a capital or after a hyphen rather than anywhere."""
    from markupsafe import Markup

    return Markup("<wbr>").join(part for part in re.split(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[-_])", name) if part)


def _coefficients(results: Results) -> list[tuple[Any, list[tuple[str, list[tuple[str, str]]]]]]:
    """Vectors, and for each search over them its name with the coefficients and their intervals."""
    tables: dict[tuple[str, ...], list[tuple[str, list[tuple[str, str]]]]] = {}
    for name, search in results.searches.items():
        names = search.position["names"]
        intervals = search.position.get("intervals") or [None] * len(names)
        cells = []
        for value, interval in zip(search.position["coefficients"], intervals, strict=True):
            cells.append((f"{value:.4f}", f"[{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""))
        tables.setdefault(tuple(names), []).append((name, cells))
    return list(tables.items())


def _pictures(results: Results) -> Iterator[Picture]:
    complete = [model for model in results.scores if results.mean(model) is not None]
    if len(complete) > 1:
        shown = [said for kind, said in MARKS.items() if kind in {results.kinds[model] for model in complete}]
        says = f"Mean score of each of {len(complete)} models over {len(results.tasks)} tasks. "
        says += f"{', '.join(shown)}.".capitalize()
        if results.comparison:
            says += (
                f" Bars are 95 % intervals of the difference to {results.baseline}, over the tasks' examples."
            )
        yield Picture("Mean scores", says, figures.means(results))
    if results.baseline in results.scores and len(results.scores) > 1 and len(results.tasks) > 1:
        says = (
            f"Score of each model on each task, in percent, and its difference to {results.baseline} in "
            "points; orange is better, violet worse"
        )
        says += "; a tilde marks differences that are not significant." if results.comparison else "."
        wide = len(results.tasks) > 5
        yield Picture("Scores by method and task", says, figures.heat_map(results), wide)
    with_cost = [cost for cost in results.costs if cost.total and results.mean(cost.model) is not None]
    if len(with_cost) > 1:
        says = (
            "Mean score of each model, and the seconds for making it with all that it is made from: "
            "a merge includes its specialists."
        )
        yield Picture("Score and cost", says, figures.score_and_cost(results))
    for name, search in results.searches.items():
        yield from _pictures_of_search(name, search)
    if results.gram:
        says = (
            "Norm of each task vector (diagonal) and the angle between each two, in degrees: at 90°, white, "
            "the tasks moved the weights independently; red is closer, blue apart."
        )
        yield Picture("Norms and angles of the task vectors", says, figures.angles(results))


def _pictures_of_search(name: str, search: Search) -> Iterator[Picture]:
    names, values = search.position["names"], search.position["coefficients"]
    step, tensors = search.position["step"], search.position.get("tensors")
    figure = figures.coefficient_path(names, search.trajectory, values, step)
    if figure is not None:
        says = (
            "Coefficients of the task vectors over the search, and the loss of each task on batches of "
            f"the probe (dots) and on its held-out part (lines); kept at step {step} (dotted)."
        )
        yield Picture(f"Path of the coefficients: {name}", says, figure)
    if tensors and figures.vary(figures.by_layer(tensors)):
        says = (
            "Coefficient of each task vector in each layer, the mean over the layer's tensors; "
            "red adds, blue subtracts."
        )
        yield Picture(f"Coefficients by layer: {name}", says, figures.layer_map(names, tensors))
