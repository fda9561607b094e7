"""`selfpos imbalance`: run a study, report it, and the comparisons that carry it over to text and to merging."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from selfpos.imbalance.carryover.outcome import Outcome
    from selfpos.imbalance.study.analysis import Study
    from selfpos.recipe import TaskSource

FILE = click.Path(dir_okay=False, path_type=Path)


def _ending(ending: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Refuses another ending of --out: the journal, the outcome and the runs lie beside the results, under
    the same name with other endings.
    """

    def check(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
        if file is not None and file.suffix != ending:
            raise click.BadParameter(f"the name must end in {ending}, found {file}")
        return file

    return check


OUT_GRID = click.option(
    "--out",
    type=FILE,
    callback=_ending(".parquet"),
    help="Parquet file of results; checkpoints/NAME/results.parquet when absent. A stopped run goes on from it.",
)
OUT_SEEDS = click.option(
    "--out",
    type=FILE,
    callback=_ending(".json"),
    help="JSON file of what was measured, checkpoints/compare-… when absent; a stopped comparison goes on from it.",
)


@click.group()
def imbalance() -> None:
    """Class imbalance in convolutional networks, reproduced, extended and carried over to text."""


@imbalance.command()
@click.argument("recipe", type=FILE)
@OUT_GRID
@click.option("--data", help="Folder of images (or hub:NAME) in place of the recipe's.")
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, … ; auto takes a GPU when there is one."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes on a CPU; as many as it has cores.",
)
@click.option("--dry-run", is_flag=True, help="Only list what would be trained.")
def run(recipe: Path, out: Path | None, data: str | None, device: str, workers: int, dry_run: bool) -> None:
    """Train the networks of RECIPE whose results are still missing."""
    from selfpos.imbalance.study.grid import left_to_run, run_grid
    from selfpos.imbalance.study.recipe import load_imbalance_recipe

    settings = load_imbalance_recipe(recipe)
    out = out or Path("checkpoints") / settings.name / "results.parquet"
    if dry_run:
        units = left_to_run(settings, out, device)
        for unit in units:
            click.echo(f"{unit}{' + ' + ', '.join(unit.refits) if unit.refits else ''} (rate {unit.rate:g})")
        click.echo(
            f"{len(units)} units, {sum(len(unit.seeds) for unit in units)} networks to train; results in "
            f"{out}"
        )
        return
    try:
        trained = run_grid(settings, out, data=data, device=device, workers=workers)
    except KeyboardInterrupt:
        click.echo(
            f"stopped; what was finished is in {out}, and the same command goes on from there", err=True
        )
        raise SystemExit(130) from None
    click.echo(f"{trained} units trained; results in {out}")


@imbalance.command()
@click.argument("results", type=FILE)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the report; the results' name without its ending when absent.",
)
@click.option(
    "--select",
    type=click.Choice(["validation", "test"]),
    help="What learning rates are chosen on; the recipe's choice when absent.",
)
def report(results: Path, out: Path | None, select: str | None) -> None:
    """Check the paper's claims A1 to A9 on RESULTS (a Parquet file of `run`) and draw its figures."""
    from selfpos.console import table_text
    from selfpos.errors import SelfposError
    from selfpos.imbalance.study.report import write_report

    folder = out or results.with_suffix("")
    if folder == results:
        raise SelfposError(f"{results} is a file, and the report a folder; name that with --out")
    claims = write_report(results, folder, select)
    click.echo(
        table_text(
            ["claim", "verdict"], [[f"{claim.name}  {claim.sentence}", claim.told] for claim in claims]
        )
    )
    click.echo(f"numbers and figures: {folder / 'report.md'}")


@imbalance.command()
@click.argument("short", type=FILE)
@click.argument("long", type=FILE)
def ordering(short: Path, long: Path) -> None:
    """Compare the order of the methods in two results files, such as those of a short and of a long training."""
    from selfpos.console import table_text
    from selfpos.imbalance.study.ordering import compare_orderings

    found = compare_orderings(_study(short), _study(long))
    taus = [
        "–" if math.isnan(one.tau) else f"{one.tau:+.2f}" for one in found
    ]  # none where all methods are level
    rows = [
        [one.setting, str(one.methods), tau, ", ".join(one.reversed_pairs) or "none"]
        for one, tau in zip(found, taus, strict=True)
    ]
    click.echo(table_text(["setting", "methods", "Kendall's τ", "significantly reversed pairs"], rows))
    changed = any(one.reversed_pairs for one in found)
    click.echo(
        "not decided: nothing in common"
        if not found
        else f"the ordering {'changes' if changed else 'is not shown to change'}"
    )


@imbalance.command()
def methods() -> None:
    """List the methods and their sources."""
    from selfpos.console import table_text
    from selfpos.imbalance.study.methods.registry import Refit, get_method, method_names

    rows = [get_method(name) for name in method_names()]
    click.echo(
        table_text(
            ["method", "trained from", "source"],
            [[m.name, m.parent if isinstance(m, Refit) else "scratch", m.source] for m in rows],
        )
    )


@imbalance.group()
def compare() -> None:
    """What class imbalance teaches about merging, and the reverse: one comparison a verb, each with its
    verdict.
    """


DATA = click.option("--data", help="Folder of images or texts (or hub:NAME) in place of the recipe's.")
DEVICE = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, … ; auto takes a GPU when there is one."
)


def _on_networks(name: str, description: str) -> None:
    """Add the verb of a comparison that trains networks of a recipe, seed by seed: `measure` and `outcome` of
    its file.
    """

    @compare.command(name, help=description)
    @click.argument("recipe", type=FILE)
    @click.option(
        "--rho",
        type=click.FloatRange(1, min_open=True),
        default=100,
        show_default=True,
        help="Imbalance ratio.",
    )
    @click.option(
        "--mu",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.5,
        show_default=True,
        help="Share of minority classes of a step imbalance.",
    )
    @OUT_SEEDS
    @DATA
    @DEVICE
    def verb(recipe: Path, rho: float, mu: float, out: Path | None, data: str | None, device: str) -> None:
        import importlib

        from selfpos.console import progress
        from selfpos.errors import SelfposError
        from selfpos.imbalance.carryover.arms import Bench, only_rate
        from selfpos.imbalance.carryover.outcome import missing_seeds, over_seeds
        from selfpos.imbalance.carryover.text import open_data
        from selfpos.imbalance.study.cell import Imbalance, Unit
        from selfpos.imbalance.study.checks import check_study
        from selfpos.imbalance.study.grid import pick_device
        from selfpos.imbalance.study.recipe import load_imbalance_recipe

        comparison = importlib.import_module(f"selfpos.imbalance.carryover.{name}")
        chosen = load_imbalance_recipe(recipe)
        if not chosen.validation:
            raise SelfposError(
                f"recipe {recipe} keeps no validation set, on which this comparison chooses; set field "
                "'validation'"
            )
        file = out or Path("checkpoints") / f"compare-{name}-{chosen.name}-rho{rho:g}-mu{mu:g}.json"
        rate = only_rate(chosen)
        place, found = pick_device(device), open_data(chosen, data)
        point = Imbalance(
            "step", rho, mu, chosen.minority if isinstance(chosen.minority, str) else tuple(chosen.minority)
        )
        check_study([Unit(point, "ros", (), rate, tuple(range(chosen.seeds)))], chosen, found)
        settings = {"comparison": name, "rho": rho, "mu": mu} | chosen.model_dump(
            mode="json", exclude={"data", "grid", "methods", "seeds"}
        )
        with progress(
            name,
            round(comparison.TRAININGS * len(missing_seeds(file, chosen.seeds)) * chosen.training.iterations),
        ) as bar:
            bench = Bench(point, chosen, found, place, bar.advance)
            measured = over_seeds(
                file,
                settings | {"data": found.fingerprint},
                chosen.seeds,
                lambda seed: comparison.measure(bench, seed),
            )
        _conclude(comparison.outcome(measured), file, settings)


for _name, _description in {
    "path": "Weights between baseline and ROS against sampling to partial ratios.",
    "experts": "Experts of the large and of the small classes, merged, against oversampling and thresholding.",
    "norms": "Lengths of vectors and head rows against the number of examples, and equalised after training.",
}.items():
    _on_networks(_name, _description)


@compare.command()
@click.argument("recipe", type=FILE)
@click.option(
    "--against",
    type=FILE,
    help="Results (Parquet) of a study of images, whose order of the methods is compared.",
)
@OUT_GRID
@DATA
@DEVICE
def text(recipe: Path, against: Path | None, out: Path | None, data: str | None, device: str) -> None:
    """The grid on labelled texts: does the order of the methods carry over?"""
    from selfpos.errors import SelfposError
    from selfpos.imbalance.carryover.text import open_data, outcome
    from selfpos.imbalance.study.grid import run_grid
    from selfpos.imbalance.study.recipe import load_imbalance_recipe

    chosen = load_imbalance_recipe(recipe)
    if chosen.encoder is None:
        raise SelfposError(f"recipe {recipe} is about images; run it with `selfpos imbalance run`")
    file = out or Path("checkpoints") / chosen.name / "results.parquet"
    images = _study(against) if against else None
    found = open_data(chosen, data)
    click.echo(f"{found.description}: {found.division}")
    run_grid(chosen, file, images=found, device=device)
    told = {
        "recipe": chosen.name,
        "network": chosen.network,
        "encoder": chosen.encoder,
        "texts": found.division,
    }
    _conclude(outcome(_study(file), images), file, told)


@compare.command()
@click.argument("recipe", type=FILE)
@click.option(
    "--rho", default="1,3,10,50", show_default=True, help="Ratios of the largest to the smallest task."
)
@click.option("--mu", type=float, default=0.5, show_default=True, help="Share of small tasks.")
@click.option(
    "--largest",
    type=click.IntRange(2),
    default=3200,
    show_default=True,
    help="Training records of a large task.",
)
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--data-root",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Folder of the tasks' local data.",
)
@OUT_SEEDS
def tasks(
    recipe: Path, rho: str, mu: float, largest: int, seeds: int, data_root: Path | None, out: Path | None
) -> None:
    """Imbalance between tasks: mixtures of joint training against merged specialists, at equal draws."""
    from selfpos.errors import SelfposError
    from selfpos.imbalance.carryover import tasks as comparison
    from selfpos.imbalance.carryover.outcome import over_seeds
    from selfpos.recipe import load_recipe

    chosen = load_recipe(recipe)
    comparison.check(chosen)
    try:
        ratios = [float(part) for part in rho.split(",")]
    except ValueError:
        raise SelfposError(f"--rho takes numbers with commas between them, found '{rho}'") from None
    file = out or Path("checkpoints") / f"compare-tasks-{chosen.name}.json"
    settings = {"comparison": "tasks", "rho": rho, "mu": mu, "largest": largest} | chosen.model_dump(
        mode="json", exclude={"name", "seed"}
    )
    data = {
        name: _hash(source, largest + chosen.probe.per_task, data_root)
        for name, source in chosen.tasks.items()
    }
    folder = file.with_suffix("")
    measured = over_seeds(
        file,
        settings | {"data": data},
        seeds,
        lambda seed: comparison.measure(chosen, ratios, mu, largest, folder, data_root, seed),
    )
    _conclude(comparison.outcome(measured), file, settings)


def _hash(source: TaskSource, most: int, data_root: Path | None) -> str:
    """SHA-256 (hex) of all the task's records; of a stream, which may be endless, of the first `most`."""
    from selfpos.data.sources import load_task

    whole = source.model_copy(update={"limit": most if source.streaming else None})
    return load_task(whole, seed=0, data_root=data_root).hash


def _study(file: Path) -> Study:
    """The records of a results file, with learning rates chosen as its recipe says."""
    from selfpos.imbalance.study.analysis import Study
    from selfpos.imbalance.study.results import read_results

    records, recipe = read_results(file)
    return Study(records, recipe.select)


def _conclude(found: Outcome, file: Path, settings: dict[str, Any]) -> None:
    """Print the outcome, and write it beside `file`."""
    from selfpos.console import table_text
    from selfpos.imbalance.carryover.outcome import write_outcome

    write_outcome(found, file, settings)
    click.echo(table_text(found.header, found.rows))
    if found.findings:
        click.echo(table_text(["claim", "difference [95 %]", "seeds", "verdict"], found.found))
    click.echo(f"falsifier: {found.falsifier}\nkept in {file} and {file.with_suffix('.md')}")


command = imbalance
