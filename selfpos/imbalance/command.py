"""`selfpos imbalance`: run a study, report it, and carry it over to text and to merging."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfpos.commands.options import Verb, examples
from selfpos.console import table_text
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from selfpos.imbalance.study.analysis import Study
    from selfpos.imbalance.verdicts import Outcome
    from selfpos.recipe import TaskSource

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(file_okay=False, exists=True, path_type=Path)
defaulted = partial(click.option, show_default=True)


def _out(ending: str, text: str) -> Callable[[Any], Any]:
    """--out, which must have this ending: journal, outcome and runs have the same name with other endings."""

    def check(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
        if file is not None and file.suffix != ending:
            raise click.BadParameter(f"the name must end in {ending}, found {file}")
        return file

    return click.option("--out", type=FILE, callback=check, help=text)


OUT_GRID = _out(
    ".parquet",
    "Parquet file of results [default: checkpoints/NAME/results.parquet]. A stopped run continues from it.",
)
DATA = click.option("--data", help="Folder of images or texts (or hub:NAME) in place of the recipe's.")
DEVICE = defaulted("--device", default="auto", help="cpu, cuda, …; auto takes a GPU where there is one.")


@click.group(
    "imbalance",
    epilog=examples(
        "imbalance run mnist-small --workers 2",
        "imbalance report checkpoints/imbalance-mnist-small/results.parquet",
    ),
)
def command() -> None:
    """Class imbalance in convolutional networks, reproduced, extended and carried over to text."""


@command.command(
    cls=Verb,
    epilog=examples(
        "imbalance run mnist-small --workers 2", "imbalance run cifar10 --data FOLDER --device cuda"
    ),
)
@click.argument("recipe", type=FILE)
@OUT_GRID
@DATA
@DEVICE
@defaulted("--workers", type=click.IntRange(1), default=1, help="Processes on a CPU: one per core.")
def run(recipe: Path, out: Path | None, data: str | None, device: str, workers: int) -> None:
    """Train the networks of RECIPE whose results are missing.

    RECIPE is a file, or the name of one that comes with selfpos, as mnist-small.
    """
    from selfpos.imbalance.study.data import read_images
    from selfpos.imbalance.study.grid import pick_device, plan, run_grid
    from selfpos.imbalance.study.recipe import load_imbalance_recipe
    from selfpos.imbalance.study.unit import check_packages

    study = load_imbalance_recipe(recipe)
    if study.encoder is not None:
        raise SelfposError(f"recipe {study.name} is about texts; run `selfpos imbalance compare text`")
    check_packages(plan(study))
    out = out or Path("checkpoints") / study.name / "results.parquet"
    target = pick_device(device)
    images = read_images(data or study.data, preprocessing=study.preprocessing)
    try:
        trained = run_grid(study, out, images, target, workers)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what is finished is in {out}, and the same command continues") from None
    click.echo(f"{trained} units trained; results in {out}")


@command.command(
    cls=Verb,
    epilog=examples(
        "imbalance report checkpoints/imbalance-mnist-small/results.parquet",
        "imbalance report results.parquet --out my-report",
    ),
)
@click.argument("results", type=FILE)
@click.option("--out", type=FOLDER, help="Folder of the report [default: RESULTS without its ending].")
def report(results: Path, out: Path | None) -> None:
    """Check the paper's claims A1 to A9 on RESULTS (a Parquet file of `run`) and draw its figures."""
    from selfpos.imbalance.study.report import write_report

    folder = out or results.with_suffix("")
    if folder == results:
        raise SelfposError(f"{results} is a file, and the report a folder; name that with --out")
    claims = write_report(results, folder)
    rows = [[f"{claim.name}  {claim.sentence}", claim.summary] for claim in claims]
    click.echo(table_text(["claim", "verdict"], rows))
    click.echo(f"numbers and figures: {folder / 'report.md'}")


@command.command(cls=Verb, epilog=examples("imbalance ordering short.parquet long.parquet"))
@click.argument("short", type=FILE)
@click.argument("long", type=FILE)
def ordering(short: Path, long: Path) -> None:
    """Compare the order of the methods in two results files, such as those of a short and a long training."""
    from selfpos.imbalance.study.analysis import compare_orderings

    orderings = compare_orderings(_study(short), _study(long))
    rows = []
    for order in orderings:
        tau = "–" if math.isnan(order.tau) else f"{order.tau:+.2f}"  # none where all methods are level
        rows.append([order.setting, str(order.methods), tau, ", ".join(order.reversed_pairs) or "none"])
    click.echo(table_text(["setting", "methods", "Kendall's τ", "significantly reversed pairs"], rows))
    if not orderings:
        click.echo("not decided: nothing in common")
        return
    changed = any(order.reversed_pairs for order in orderings)
    click.echo(f"the ordering {'changes' if changed else 'is not shown to change'}")


@command.command()
def methods() -> None:
    """List the methods and their sources."""
    from selfpos.imbalance.study.methods import METHODS

    rows = [[method.name, method.parent or "scratch", method.source] for method in METHODS.values()]
    click.echo(table_text(["method", "trained from", "source"], rows))


@command.group()
def compare() -> None:
    """What class imbalance teaches about merging, and the reverse: one comparison a verb, with a verdict."""


def _gone() -> None:
    raise SelfposError(
        "this comparison was removed in 0.2; docs/imbalance-report.md says what it had measured"
    )


ANY_WORDS = {"ignore_unknown_options": True, "allow_extra_args": True}
for removed in ("experts", "path", "norms"):
    compare.command(removed, hidden=True, context_settings=ANY_WORDS)(_gone)


@compare.command(
    cls=Verb,
    epilog=examples(
        "imbalance compare text clinc150-heads",
        "imbalance compare text clinc150-heads --against results.parquet",
    ),
)
@click.argument("recipe", type=FILE)
@click.option(
    "--against", type=FILE, help="Results (Parquet) of a study of images, to compare the order with."
)
@OUT_GRID
@DATA
@DEVICE
def text(recipe: Path, against: Path | None, out: Path | None, data: str | None, device: str) -> None:
    """The grid on labelled texts: does the order of the methods carry over?

    RECIPE is a file, or the name of one that comes with selfpos, as clinc150-heads.
    """
    from selfpos.imbalance.study.grid import pick_device, plan, run_grid
    from selfpos.imbalance.study.recipe import load_imbalance_recipe
    from selfpos.imbalance.study.unit import check_packages
    from selfpos.imbalance.text import outcome, read_texts

    study = load_imbalance_recipe(recipe)
    if study.encoder is None:
        raise SelfposError(f"recipe {recipe} is about images; run it with `selfpos imbalance run`")
    check_packages(plan(study))
    file = out or Path("checkpoints") / study.name / "results.parquet"
    images = _study(against) if against else None
    target, texts = pick_device(device), read_texts(study, data or study.data)
    click.echo(f"{texts.description}: {texts.division}")
    run_grid(study, file, texts, target)
    facts = {"recipe": study.name, "network": study.network, "encoder": study.encoder}
    _conclude(outcome(_study(file), images), file, facts | {"texts": texts.division})


@compare.command(
    cls=Verb,
    epilog=examples(
        "imbalance compare tasks imbalance-tasks",
        "imbalance compare tasks imbalance-tasks --rho 1,10 --seeds 3",
    ),
)
@click.argument("recipe", type=FILE)
@defaulted("--rho", default="1,3,10,50", help="Ratios of the largest to the smallest task.")
@defaulted("--largest", type=click.IntRange(2), default=3200, help="Training records of a large task.")
@defaulted("--seeds", type=click.IntRange(1), default=5)
@click.option("--data-root", type=EXISTING_FOLDER, help="Folder of the tasks' local data.")
@_out(
    ".json",
    "JSON file of measurements [default: checkpoints/compare-…]. A stopped comparison continues from it.",
)
def tasks(recipe: Path, rho: str, largest: int, seeds: int, data_root: Path | None, out: Path | None) -> None:
    """Imbalance between tasks: mixtures of joint training against merged specialists, at equal draws."""
    from selfpos.imbalance import tasks as comparison
    from selfpos.recipe import load_recipe

    run = load_recipe(recipe)
    comparison.check(run)
    try:
        ratios = [float(part) for part in rho.split(",")]
    except ValueError:
        raise SelfposError(f"--rho takes numbers with commas between them, found '{rho}'") from None
    file = out or Path("checkpoints") / f"compare-tasks-{run.name}.json"
    settings = {"comparison": "tasks", "rho": rho, "mu": comparison.MU, "largest": largest}
    settings |= run.model_dump(mode="json", exclude={"name", "seed"})
    most = largest + run.probe.per_task
    identity = settings | {"data": {name: _hash(task, most, data_root) for name, task in run.tasks.items()}}
    measure = partial(comparison.measure, run, ratios, largest, file.with_suffix(""), data_root)
    _conclude(comparison.outcome(comparison.over_seeds(file, identity, seeds, measure)), file, settings)


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


def _conclude(outcome: Outcome, file: Path, settings: dict[str, Any]) -> None:
    outcome.write(file, settings)
    click.echo(table_text(outcome.header, outcome.rows))
    if outcome.findings:
        rows = [finding.row for finding in outcome.findings]
        click.echo(table_text(["claim", "difference [95 %]", "seeds", "verdict"], rows))
    click.echo(f"falsifier: {outcome.falsifier}\nkept in {file} and {file.with_suffix('.md')}")
