"""`selfpos imbalance`: run a study, report it, and the comparisons that carry it over to text and to merging."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def imbalance() -> None:
    """Class imbalance in convolutional networks, reproduced, extended and carried over to text."""


@imbalance.command()
@click.argument("recipe", type=FILE)
@click.option(
    "--out", type=FILE, help="Parquet file of results; checkpoints/NAME/results.parquet when absent. A stopped run goes on from it."
)
@click.option("--data", help="Folder of images (or hub:NAME) in place of the recipe's.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, … ; auto takes a GPU when there is one.")
@click.option("--dry-run", is_flag=True, help="Only list what would be trained.")
def run(recipe: Path, out: Path | None, data: str | None, device: str, dry_run: bool) -> None:
    """Train the networks of RECIPE whose results are still missing."""
    from selfpos.imbalance.grid import plan, run_grid
    from selfpos.imbalance.recipe import load_imbalance_recipe

    settings = load_imbalance_recipe(recipe)
    out = out or Path("checkpoints") / settings.name / "results.parquet"
    if dry_run:
        units = plan(settings)
        for unit in units:
            click.echo(f"{unit}{' + ' + ', '.join(unit.refits) if unit.refits else ''} (rate {unit.rate:g})")
        click.echo(f"{len(units)} units, {sum(len(unit.seeds) for unit in units)} networks to train; results in {out}")
        return
    try:
        trained = run_grid(settings, out, data=data, device=device)
    except KeyboardInterrupt:
        click.echo(f"stopped; what was finished is in {out}, and the same command goes on from there", err=True)
        raise SystemExit(130) from None
    click.echo(f"{trained} units trained; results in {out}")


@imbalance.command()
@click.argument("results", type=FILE)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the report; beside the results when absent.")
@click.option(
    "--select", type=click.Choice(["validation", "test"]), help="What learning rates are chosen on; the recipe's choice when absent."
)
def report(results: Path, out: Path | None, select: str | None) -> None:
    """Check the paper's claims A1 to A9 on RESULTS (a Parquet file of `run`) and draw its figures."""
    from selfpos.console import table_text
    from selfpos.imbalance.report import write_report

    folder = out or results.parent / "report"
    claims = write_report(results, folder, select)
    click.echo(table_text(["claim", "verdict"], [[f"{claim.name}  {claim.sentence}", claim.verdict] for claim in claims]))
    click.echo(f"numbers and figures: {folder / 'report.md'}")


@imbalance.command()
@click.argument("short", type=FILE)
@click.argument("long", type=FILE)
def ordering(short: Path, long: Path) -> None:
    """Compare the order of the methods in two results files, such as those of a short and of a long training."""
    from selfpos.console import table_text
    from selfpos.imbalance.analysis import Study
    from selfpos.imbalance.ordering import compare_orderings
    from selfpos.imbalance.results import read_results

    studies = [Study(records, recipe.select) for records, recipe in (read_results(short), read_results(long))]
    found = compare_orderings(*studies)
    rows = [[one.setting, str(one.methods), f"{one.tau:+.2f}", ", ".join(one.reversed_pairs) or "none"] for one in found]
    click.echo(table_text(["setting", "methods", "Kendall's τ", "significantly reversed pairs"], rows))
    changed = any(one.reversed_pairs for one in found)
    click.echo("not decided: nothing in common" if not found else f"the ordering {'changes' if changed else 'is not shown to change'}")


@imbalance.command()
def methods() -> None:
    """List the methods and their sources."""
    from selfpos.console import table_text
    from selfpos.imbalance.methods.registry import Refit, get_method, method_names

    rows = [get_method(name) for name in method_names()]
    click.echo(
        table_text(
            ["method", "trained from", "source"], [[m.name, m.parent if isinstance(m, Refit) else "scratch", m.source] for m in rows]
        )
    )


@imbalance.group()
def compare() -> None:
    """What class imbalance teaches about merging, and the reverse: one comparison a verb, each with its verdict."""


@compare.command()
@click.argument("recipe", type=FILE)
@click.option("--rho", type=float, default=100, show_default=True, help="Imbalance ratio of a step imbalance.")
@click.option("--mu", type=float, default=0.5, show_default=True, help="Share of minority classes.")
@click.option("--data", help="Folder of images (or hub:NAME) in place of the recipe's.")
@click.option("--device", default="auto", show_default=True)
def path(recipe: Path, rho: float, mu: float, data: str | None, device: str) -> None:
    """Weights between baseline and ROS against sampling to partial ratios, with the network and training of RECIPE."""
    import numpy as np

    from selfpos.console import progress, table_text
    from selfpos.errors import SelfposError
    from selfpos.imbalance.cell import Imbalance
    from selfpos.imbalance.compare.path import MARGIN, compare_path
    from selfpos.imbalance.grid import pick_device
    from selfpos.imbalance.recipe import load_imbalance_recipe
    from selfpos.imbalance.sources import read_images

    settings = load_imbalance_recipe(recipe)
    if not settings.validation:
        raise SelfposError(f"recipe {recipe} keeps no validation images, on which this comparison chooses; set field 'validation'")
    images = read_images(data or settings.data, preprocessing=settings.preprocessing)
    with progress("path", 5 * settings.seeds * settings.training.iterations) as bar:
        point = Imbalance("step", rho, mu, "random")
        found = compare_path(point, settings, images, pick_device(device), tick=bar.advance)
    rows = [["α of the path", f"{alpha:g}", f"{np.mean(values):.2f}"] for alpha, values in found.by_alpha.items()]
    rows += [["ratio after ROS", f"{ratio:.4g}", f"{np.mean(values):.2f}"] for ratio, values in found.by_ratio.items()]
    click.echo(table_text(["", "value", "test AUC × 100"], rows))
    click.echo(f"chosen on validation: α {found.chosen_alpha}, ratio {[round(ratio, 1) for ratio in found.chosen_ratio]}")
    click.echo(f"interpolation minus best ratio: {found.gain} ({found.gain.n} seeds, paired bootstrap)")
    click.echo(f"interpolation is no worse than a searched ratio (margin {MARGIN}): {found.verdict}")


command = imbalance
