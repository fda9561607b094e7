"""`selfpos eval-mteb`: score models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfpos.commands.options import (
    ALLOW_PICKLE,
    PATH,
    ManyValues,
    examples,
    show_rows,
    split_names,
    without_pickles,
)

if TYPE_CHECKING:
    from selfpos.errors import SelfposError
    from selfpos.evaluation.forecast import Forecast
    from selfpos.scores.files import TaskScore

SELECTION = (
    click.option(
        "--tasks",
        multiple=True,
        metavar="TASK…",
        help=(
            "MTEB task names; 'quick': one small task per type; 'corpus': those of the embedded corpus; "
            "FILE.yaml: your own task."
        ),
    ),
    click.option("--benchmark", help='An MTEB benchmark, such as "MTEB(eng, v2)".'),
    click.option(
        "--task-types",
        "types",
        multiple=True,
        metavar="TYPE…",
        help="Only tasks of these types, as MTEB calls them: STS, Retrieval, …",
    ),
    click.option(
        "--languages",
        multiple=True,
        metavar="CODE…",
        help="Only tasks in these languages, as eng or eng-Latn.",
    ),
    click.option(
        "--subsets",
        multiple=True,
        metavar="SUBSET…",
        help="Only these subsets of tasks, as MTEB calls them: en-en of STS17, …",
    ),
)


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that select MTEB tasks."""
    for option in reversed(SELECTION):
        function = option(function)
    return function


@click.command(
    "eval-mteb",
    cls=ManyValues,
    groups={
        "Which tasks": ("--tasks", "--benchmark", "--task-types", "--languages", "--subsets", "--data-dir"),
        "Where results go": ("--out", "--name", "--cache", "--no-cache"),
        "Ray": ("--ray", "--ray-cpus", "--ray-gpus"),
    },
    epilog=examples(
        "eval-mteb merged --tasks STSBenchmark Banking77Classification",
        'eval-mteb merged BAAI/bge-m3 --benchmark "MTEB(eng, v2)" --task-types STS',
    ),
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL…")
@selection_options
@click.option(
    "--data-dir",
    type=PATH,
    help="Folder with local MTEB data, in our layout or the Hub's; nothing is downloaded.",
)
@click.option("--out", type=PATH, help="Folder for MTEB's result files [default: checkpoints/scores].")
@click.option(
    "--name",
    help="Name under which the results of one model are filed, as USER/NAME for MTEB's leaderboard "
    "[default: MODEL].",
)
@ALLOW_PICKLE
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--cache",
    type=PATH,
    help=(
        "Folder for embeddings and tokens, from which a stopped or extended evaluation continues; may be "
        "removed at any time [default: OUT/cache]."
    ),
)
@click.option("--no-cache", is_flag=True, help="Keep embeddings and tokens in memory only.")
@click.option(
    "--ray",
    metavar="ADDRESS|auto",
    help="Send the tasks to a Ray cluster: its address, or auto for the one on this machine.",
)
@click.option(
    "--ray-cpus",
    type=click.FloatRange(min=0),
    default=1,
    show_default=True,
    help="CPUs for each task on the cluster.",
)
@click.option(
    "--ray-gpus",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="GPUs for each task on the cluster.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say how many texts are embedded and how long that takes on this machine; score nothing.",
)
def command(
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    out: Path | None,
    name: str | None,
    batch_size: int,
    cache: Path | None,
    no_cache: bool,
    ray: str | None,
    ray_cpus: float,
    ray_gpus: float,
    allow_pickle: bool,
    dry_run: bool,
    **selection: Any,
) -> None:
    """Score every MODEL (a folder or a Hub name) on MTEB tasks with mteb; results for the same weights are
    kept. Scores are shown as MTEB's leaderboard shows them, from 0 to 100.

    The preset `quick` is one task per type, each of a few thousand short texts, so that a small model takes
    minutes on a CPU: STSBenchmark, Banking77Classification, TwitterSemEval2015, AskUbuntuDupQuestions,
    TwentyNewsgroupsClustering.v2 and FeedbackQARetrieval; on local data selfpos-MRPC, selfpos-WikiQAReranking
    and selfpos-TwentyNewsgroupsSubjects replace the third to the fifth.
    """
    from selfpos.console import quiet_process, table_text
    from selfpos.errors import SelfposError
    from selfpos.extras import need_extra
    from selfpos.storage.locate import locate_model

    if cache is not None and no_cache:
        raise SelfposError("--cache and --no-cache exclude each other; give one of them")
    if name is not None and len(models) > 1:
        raise SelfposError("--name is the name of one model; score several without it")
    if ray is not None and dry_run:
        raise SelfposError("--dry-run tries this machine, not a cluster; leave out --ray")
    quiet_process()
    if ray is not None:
        need_extra("ray", "--ray")
    folders = {model: locate_model(without_pickles(model, allow_pickle)) for model in models}
    selection["names"] = split_names(tasks)
    out = out or Path("checkpoints") / "scores"
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "cache": None if no_cache else cache or out / "cache",
    }
    if dry_run:
        _show_forecasts(folders, selection, out, name=name, **options)
        return
    if ray is not None:
        options |= {"address": ray, "cpus": ray_cpus, "gpus": ray_gpus}
    scores, failures = _scores(folders, selection, out, name=name, **options)
    if any(scores.values()):
        click.echo(table_text(*_table(scores)))
    _raise_failures(failures, scores)


def _raise_failures(failures: list[SelfposError], scores: Mapping[str, Mapping[str, TaskScore]]) -> None:
    """Raise what failed, and what has no score, as one error."""
    from selfpos.errors import OperationError

    if unscored := [
        f"{task} of {model}"
        for model, row in scores.items()
        for task, score in row.items()
        if not isfinite(score.main_score)
    ]:
        failures.append(
            OperationError(
                f"{', '.join(unscored)}: mteb computed no score (NaN); see that the gold values of the data "
                "differ, and that the model tells texts apart"
            )
        )
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise OperationError("; ".join(map(str, failures)))


def _show_forecasts(
    folders: Mapping[str, Path], selection: dict[str, Any], out: Path, *, name: str | None, **options: Any
) -> None:
    """Print what scoring each model takes, after all that can be refused for any."""
    from selfpos.evaluation import select_tasks
    from selfpos.evaluation.forecast import check_forecast, forecast

    tasks = select_tasks(**selection)
    for folder in folders.values():
        check_forecast(folder, tasks, out)
    for model, folder in folders.items():
        show_rows([("model", name or model)])
        show_rows(_forecast_rows(forecast(folder, tasks, out, name=name or model, **options)))


def _forecast_rows(expected: Forecast) -> list[tuple[str, str]]:
    """What scoring one model takes, as labels and texts."""
    from selfpos.console import in_words

    rows = []
    if expected.scored:
        rows.append(("scored", f"{', '.join(expected.scored)}: not scored again"))
    if not expected.texts:
        return [*rows, ("time", "none")]
    counts = [f"{task} {count:,}" for task, count in expected.texts.items()]
    rows.append(("texts", f"{sum(expected.texts.values()):,}, each once: {', '.join(counts)}"))
    seconds = (expected.embedding + expected.rest, expected.embedding, expected.rest)
    whole, embedding, rest = map(in_words, seconds)
    return [*rows, ("time", f"about {whole}: {embedding} for the texts, {rest} for all else")]


def _scores(
    folders: Mapping[str, Path], selection: dict[str, Any], out: Path, *, name: str | None, **options: Any
) -> tuple[dict[str, dict[str, TaskScore]], list[SelfposError]]:
    """The scores of each model, and the failures of those that lack some; here or on a Ray cluster.

    What can be refused for any model is refused before the first is scored.
    """
    from selfpos.errors import SelfposError, keeping
    from selfpos.evaluation import TasksFailedError, evaluate, select_tasks
    from selfpos.evaluation.run import check_tasks

    score: Callable[..., dict[str, TaskScore]] = evaluate
    if "address" in options:
        from selfpos.pipeline.scores_on_ray import evaluate_on_ray

        score = partial(evaluate_on_ray, selection=selection)
    tasks = select_tasks(**selection)
    for folder in folders.values():
        check_tasks(folder, tasks, out)
    scores: dict[str, dict[str, TaskScore]] = {}
    failures: list[SelfposError] = []
    printed: set[tuple[str, str]] = set()
    with keeping(f"what is finished in {out}"):
        for model, folder in folders.items():
            announce = _announcer(printed, model if len(folders) > 1 else "")
            try:
                scores[model] = score(folder, tasks, out, name=name or model, announce=announce, **options)
            except TasksFailedError as error:
                scores[model] = error.scores
                failures.append(error)
            except SelfposError as error:  # the model itself is at fault
                scores[model] = {}
                failures.append(error)
    return scores, failures


def _announcer(printed: set[tuple[str, str]], model: str) -> Callable[[list[tuple[str, str]]], None]:
    """Prints what decides the scores, below the name of `model`, but not what was `printed` before."""
    heading = [f"{model}:"] if model else []

    def announce(rows: list[tuple[str, str]]) -> None:
        for label, text in rows:
            if (label, text) not in printed:
                printed.add((label, text))
                if heading:
                    click.echo(heading.pop(), err=True)
                click.echo(f"{label + ' ':<12}{text}", err=True)

    return announce


def _table(scores: dict[str, dict[str, TaskScore]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a task a row, with the score of each model; a dash where there is none."""
    header = ["task", "type", "metric", *(["score"] if len(scores) == 1 else scores)]
    score_of = {task: score for of_model in scores.values() for task, score in of_model.items()}
    rows = []
    for task, known_score in score_of.items():
        of_task = [of_model.get(task) for of_model in scores.values()]
        values = (
            f"{100 * score.main_score:.2f}" if score and isfinite(score.main_score) else "–"
            for score in of_task
        )
        rows.append([task, known_score.type, known_score.metric, *values])
    return header, rows
