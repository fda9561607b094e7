"""The report of a run: one HTML file that needs no network and no other file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfpos import __version__
from selfpos.errors import OperationError
from selfpos.report import figures
from selfpos.report.results import RunResults, read_results
from selfpos.report.table import make_table
from selfpos.storage.atomic import refuse_existing, write_text
from selfpos.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Picture:
    """One figure of the page: an SVG element, what it is called, and what one sees in it (also its alt text)."""

    title: str
    says: str
    svg: str


def write_report(folder: RunFolder, out: Path | None = None) -> Path:
    """Write the report of the run in `folder` to `out` (default: `report.html` in that folder) and return its path.

    Works from partial results and lists what is missing. Raises SelfposError when `folder` is no run or the `out` asked for exists,
    OperationError when the disk refuses.
    """
    from jinja2 import Environment, PackageLoader

    if out is not None:
        refuse_existing(out)
    results = read_results(folder)
    pages = Environment(loader=PackageLoader("selfpos.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = pages.get_template("report.html").render(
        results=results,
        table=make_table(results),
        pictures=_pictures(results),
        recipe=folder.recipe.read_text(encoding="utf-8"),
        versions=_versions(),
        sections=[file.read_text(encoding="utf-8") for file in folder.sections],
    )
    target = out or folder.report
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)
    except OSError as error:
        raise OperationError(f"cannot write the report {target}: {error.strerror}") from None
    return target


def _pictures(results: RunResults) -> list[Picture]:
    pictures = []
    complete = bool(results.scores) and all(results.mean(model) is not None for model in results.scores)
    if complete:
        top = max(results.scores, key=lambda model: results.mean(model) or 0)
        says = f"Mean score of each of {len(results.scores)} models over {len(results.tasks)} tasks; highest: {top}."
        pictures.append(Picture("Mean scores", says, figures.svg(figures.means(results))))
        says = "Difference of each model to the base on each task, in points of percent; orange is better than the base."
        pictures.append(Picture("Gain over the base", says, figures.svg(figures.heat_map(results))))
    for name, search in results.searches.items():
        found = ", ".join(
            f"{vector} {value:.3f}" for vector, value in zip(search.position["names"], search.position["coefficients"], strict=True)
        )
        says = f"Coefficients of the task vectors over the search; kept at step {search.position['step']}: {found}."
        pictures.append(Picture(f"Path of the coefficients: {name}", says, figures.svg(figures.coefficient_path(search))))
    if results.gram:
        says = (
            "Norm of each task vector and the angle between each two, in degrees; 90° means that the tasks moved the weights independently."
        )
        pictures.append(Picture("Norms and angles of the task vectors", says, figures.svg(figures.angles(results))))
    return pictures


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"selfpos": __version__} | {name: version(name) for name in ("torch", "transformers", "sentence-transformers", "mteb", "numpy")}
