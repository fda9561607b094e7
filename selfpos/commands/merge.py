"""`selfpos merge`: specialists into one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfpos.commands.merge_recipes import merge_recipes, recipes_of
from selfpos.commands.merge_sweep import merge_sweep
from selfpos.commands.options import (
    ALLOW_PICKLE,
    PATH,
    ManyValues,
    examples,
    given,
    named_values,
    options_of,
    parse_params,
    say,
    show_rows,
    without_pickles,
    yaml_value,
)
from selfpos.errors import SelfposError, unknown
from selfpos.extras import need_extra
from selfpos.recipe.merging import MergeOptions

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.mergekit import Translation
    from selfpos.positioning.position import Position
    from selfpos.positioning.teaching import Teaching

DEFAULT_BASE = "all-MiniLM-L6-v2"

BEFORE_A_SEARCH = (
    "write each model that does not fit in the form of the base first, and give that (selfpos merge --base "
    "BASE --vectors MODEL --method average --take-from base --out NEW)"
)
"""What to do with models that need --take-from."""


@click.command(
    "merge",
    cls=ManyValues,
    groups={
        "What the method does": (
            *("--weights", "--param", "--seed", "--coefficients", "--sweep", "--adapter", "--rank"),
            *("--take-from", "--pooling"),
        ),
        "Methods that use data": ("--probe", "--texts", "--steps", "--statistics"),
        "Files and device": (
            *("--dtype", "--shard-size", "--memory", "--threads", "--device", "--allow-code"),
            "--allow-pickle",
        ),
    },
    epilog=examples(
        "merge --vectors legal medical --method ties --out merged",
        "merge --vectors specialists/tickets specialists/pairs --method self-positioning --out merged",
    ),
)
@click.argument("recipe", required=False, type=PATH)
@click.option(
    "--vectors", multiple=True, metavar="MODEL…", help="Fine-tuned models (folders, Hub names, or adapters)."
)
@click.option("--method", help="See `selfpos methods`.")
@click.option("--base", help=f"The model they were fine-tuned from. [default: {DEFAULT_BASE}]")
@click.option("--out", type=PATH, help="Folder to write; must not exist.  [required]")
@click.option(
    "--weights", multiple=True, metavar="WEIGHT…", help=MergeOptions.model_fields["weights"].description
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the method, values as for --weights; for a search, a setting. May be repeated.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be read, merged and written, and the time by a trial of a part; leave nothing.",
)
@click.option("--adapter", is_flag=True, help="Write one LoRA adapter, where all vectors are adapters.")
@options_of(
    MergeOptions,
    *("dtype", "seed", "rank", "take_from", "pooling", "device", "threads", "shard_size", "allow_code"),
    budget="memory",
)
@click.option(
    "--probe",
    type=PATH,
    help="Probe set, a file or folder, for methods that use data [default: what finetune held out].",
)
@click.option(
    "--texts",
    multiple=True,
    metavar="NAME=FILE",
    help="Texts without labels, for self-positioning without a probe set: of the vector NAME, or of NAME "
    "'general'; a file, a folder of documents, or 'corpus'. May be repeated.",
)
@click.option(
    "--statistics", type=PATH, help="Keep what fisher and regmean gather in this folder, for later merges."
)
@click.option(
    "--coefficients",
    type=PATH,
    help="Apply OUT.coefficients.json, which a search wrote beside its model, to the same vectors again.",
)
@click.option(
    "--sweep",
    type=PATH,
    help="Make several merges of the same vectors, which are read once: a YAML file "
    "{merges: {NAME: {method, weights, params, seed}}}, or {NAME: {coefficients: FILE}}. OUT holds a model "
    "for each NAME.",
)
@ALLOW_PICKLE
@click.option("--steps", type=click.IntRange(min=1), help="Search by that many steps of gradient descent.")
def command(
    recipe: Path | None,
    vectors: tuple[str, ...],
    method: str | None,
    base: str | None,
    out: Path | None,
    weights: tuple[str, ...],
    params: tuple[str, ...],
    dry_run: bool,
    adapter: bool,
    probe: Path | None,
    texts: tuple[str, ...],
    statistics: Path | None,
    coefficients: Path | None,
    sweep: Path | None,
    steps: int | None,
    allow_pickle: bool,
    **options: Any,
) -> None:
    """Merge fine-tuned models of one base. The result loads with SentenceTransformer and keeps the base's
    pooling, normalisation and prompts.

    RECIPE is a mergekit recipe (YAML); without one, --vectors and --method say what to merge.
    """
    says_what = {"--method": method, "--weights": weights, "--param": params}
    data = {"--probe": probe, "--texts": texts, "--statistics": statistics, "--steps": steps}
    options = given(options) | ({"output": "adapter"} if adapter else {})
    take_from = {"--take-from": options.get("take_from")}
    recipes: list[tuple[str, Translation]] = []
    if sweep is not None:
        files = {"a recipe": recipe, "--coefficients": coefficients, "--adapter": adapter}
        _refuse({**files, **says_what, **data}, "--sweep, whose file says how to merge")
    elif coefficients is not None:
        _refuse(
            {"a recipe": recipe, **says_what, **data, **take_from}, "--coefficients, which says how to merge"
        )
    elif recipe is None and not (vectors and method):
        raise SelfposError("say what to merge: --vectors and --method, or a mergekit recipe")
    elif recipe is not None:
        recipes = recipes_of(recipe, {"--base": base, "--vectors": vectors, **says_what})
    if out is None:
        raise SelfposError("say where the merged model goes: --out FOLDER")
    searches, gathers = _uses_data(method)
    parameters = parse_params(params)
    _check_installed(method, parameters)
    _check_data_options(method, searches, gathers, data)
    vectors = tuple(without_pickles(vector, allow_pickle) for vector in vectors)
    arguments = (without_pickles(base or DEFAULT_BASE, allow_pickle), vectors, out)
    from selfpos import operations, searched_merge

    if sweep is not None:
        merge_sweep(sweep, *arguments, options, dry_run)
    elif coefficients is not None:
        do, plan = searched_merge.merge_by_coefficients, searched_merge.plan_merge_by_coefficients
        _carry_out(do, plan, (coefficients, *arguments), options, dry_run)
    elif method is None:
        merge_recipes(recipes, out, options, dry_run, allow_pickle)
    elif searches:
        _refuse({"--weights": weights}, f"--method {method}")
        _refuse(take_from, f"--method {method}", BEFORE_A_SEARCH)
        settings = _search_settings(method, steps, parameters)
        _search(method, *arguments, settings, probe, texts, options, dry_run)
    else:
        values = [yaml_value(weight) for weight in weights]
        options["weights"] = values if len(values) > 1 else next(iter(values), None)
        options["params"] = parameters
        options |= _data(probe, statistics) if gathers else {}
        words = (*arguments[:2], method, out)
        _carry_out(operations.merge, operations.plan_merge, words, options, dry_run)


def _uses_data(method: str | None) -> tuple[bool, bool]:
    """Whether the method searches for coefficients, and whether it gathers statistics of data.

    Raises SelfposError where there is no such method.
    """
    from selfpos.merging import METHODS
    from selfpos.recipe import LEARNED

    if method is not None and method not in [*METHODS, *LEARNED]:
        raise unknown("merging method", method, [*METHODS, *LEARNED])
    return method in LEARNED, method in METHODS and bool(METHODS[method].probe)


def _check_installed(method: str | None, parameters: Mapping[str, Any]) -> None:
    """Raise SelfposError where the search needs a package that is not installed."""
    if "cma-es" in (method, parameters.get("search")):
        need_extra("search", "search cma-es")


def _carry_out(
    do: Callable[..., object],
    plan: Callable[..., list[tuple[str, str]]],
    words: tuple[object, ...],
    options: dict[str, Any],
    dry_run: bool,
) -> None:
    if dry_run:
        show_rows(plan(*words, **options))
    else:
        click.echo(str(do(*words, **options)))


def _refuse(options: dict[str, Any], other: str, instead: str = "omit it") -> None:
    """Raise SelfposError for the first given option that has no effect beside the other."""
    for option, value in options.items():
        if value:
            raise SelfposError(f"{option} does not go with {other}; {instead}")


def _check_data_options(method: str | None, searches: bool, gathers: bool, data: dict[str, Any]) -> None:
    if data["--probe"] is not None and not (gathers or searches):
        raise SelfposError(
            f"--probe is for methods that use data, and {method or 'a mergekit recipe'} does not; see "
            "`selfpos methods`"
        )
    if data["--texts"] and method != "self-positioning":
        raise SelfposError("--texts is for method self-positioning, which alone learns from plain texts")
    if data["--texts"] and data["--probe"]:
        raise SelfposError("--texts and --probe exclude each other; omit one of them")
    if data["--statistics"] is not None and not gathers:
        raise SelfposError("--statistics is for methods fisher and regmean, which alone gather them")
    if data["--steps"] is not None and method not in ("self-positioning", "layer-wise"):
        raise SelfposError(
            "--steps is for methods self-positioning and layer-wise, which alone descend a gradient"
        )


def _search_settings(method: str, steps: int | None, params: dict[str, Any]) -> dict[str, Any]:
    """What --method, --steps and --param say of a search. Raises SelfposError for contradictions."""
    from selfpos.recipe import LEARNED

    preset = LEARNED[method]
    wanted = str(params.get("preset", preset))
    owner = next((name for name, of_method in LEARNED.items() if of_method == wanted), method)
    if owner != method:
        raise SelfposError(f"--param preset={wanted} is another method: say --method {owner}")
    if preset not in ("default", wanted):
        raise SelfposError(f"method {method} has its own preset: omit --param preset={wanted}")
    if steps is None:
        return {"preset": preset, **params}
    if "steps" in params or params.get("search", "sgd") != "sgd":
        name = "steps" if "steps" in params else "search"
        raise SelfposError(
            f"--steps asks for so many steps of gradient descent, and --param {name}={params[name]} for "
            "something else; keep one"
        )
    return {"preset": preset, "search": "sgd", "steps": steps, **params}


def _data(probe: Path | None, statistics: Path | None) -> dict[str, Any]:
    """What a method that uses data takes beside the options of every merge."""
    from selfpos.console import quiet_process
    from selfpos.data.probe import read_probe

    quiet_process()
    return {"probe": read_probe(probe) if probe else None, "statistics_in": statistics}


def _search(
    method: str,
    base: str,
    vectors: tuple[str, ...],
    out: Path,
    search_settings: dict[str, Any],
    probe: Path | None,
    texts: tuple[str, ...],
    options: dict[str, Any],
    dry_run: bool,
) -> None:
    from selfpos.console import is_first, quiet_process
    from selfpos.operations import check_searches
    from selfpos.positioning.position import check, probe_for
    from selfpos.recipe import PositioningSettings, validate
    from selfpos.searched_merge import forecast_row, plan_search, position_and_merge
    from selfpos.storage.atomic import refuse_existing
    from selfpos.storage.locate import locate_model
    from selfpos.storage.model_class import OTHERS, check_embeds
    from selfpos.vectors.task_vector import distinct_names

    quiet_process()
    refuse_existing(out)
    kinds = ("coefficients.json", "trajectory.png", "trajectory.jsonl")
    coefficients, picture, trajectory = (out.with_name(f"{out.name}.{kind}") for kind in kinds)
    for path in (coefficients, picture, trajectory):
        refuse_existing(path)
    settings = validate(PositioningSettings, search_settings, "--param")
    check_embeds(locate_model(base), *OTHERS)
    sources = [locate_model(vector) for vector in vectors]
    tasks = probe_for(locate_model(base), _tasks(base, sources, probe, texts, options.get("seed", 0)))
    names = distinct_names(sources)
    check(tasks, settings, seed=options.get("seed", 0), vectors=len(names))
    alone = [] if texts else [f"vector {name}" for name in names if name not in tasks]
    alone += [] if texts else [f"probe task {task}" for task in tasks if task not in names]
    if alone:
        click.echo(
            "vectors and probe tasks do not match by name, which a search does not need: "
            f"{', '.join(alone)} alone",
            err=True,
        )
    if "threads" in options:
        import torch

        torch.set_num_threads(options["threads"])
    if dry_run:
        searched = ", ".join(f"{name} ({len(task.records)} records)" for name, task in tasks.items())
        rows = plan_search(base, vectors, settings, out, **options)
        applied = dict(rows)["method"].partition(":")[0]
        replaced = {
            "method": f"{method}: a search for coefficients, which are then applied as by {applied}",
            "weights": f"searched on {searched}",
        }
        show_rows([(label, replaced.get(label, text)) for label, text in rows])
        if settings.search == "linearised":
            show_rows([forecast_row(base, vectors, tasks, settings, **options)])
        else:
            check_searches(locate_model(base))
        return
    position = position_and_merge(
        base, vectors, tasks, settings, out, coefficients=coefficients, trajectory=trajectory, **options
    )
    if not is_first():
        return
    _draw(position, trajectory, picture)
    intervals = [f" ({low:.2f} to {high:.2f})" for low, high in position.intervals or []]
    shown = zip(position.names, position.coefficients, intervals or [""] * len(position.names), strict=True)
    click.echo(f"{out}  ({'  '.join(f'{name} {value:.3f}{interval}' for name, value, interval in shown)})")
    if position.teaching:
        click.echo(_agreement(position.teaching), err=True)
    if position.verdict:
        click.echo(f"on the probe set: {position.verdict}", err=True)
    if position.interrupted:
        raise KeyboardInterrupt(f"the best point so far, that of step {position.step}, is merged")


def _tasks(
    base: str, sources: list[Path], probe: Path | None, texts: tuple[str, ...], seed: int
) -> dict[str, ProbeTask]:
    """What a search learns from: a probe set, texts without labels, or what finetune held out."""
    from selfpos.data.probe import read_probe
    from selfpos.operations import probe_of, texts_of
    from selfpos.storage.locate import locate_model

    if texts:
        given_texts = named_values("--texts", "NAME=FILE", texts)
        return texts_of(locate_model(base), sources, given_texts, seed=seed, say=say)
    if probe:
        return read_probe(probe)
    try:
        return probe_of(sources)
    except SelfposError as error:
        raise type(error)(f"{error}, or plain texts of each vector with --texts NAME=FILE") from None


def _agreement(teaching: Teaching) -> str:
    """How far each model agrees with the teacher of each task, as a table."""
    from selfpos.console import table_text

    tasks = list(teaching.agreement)
    models = list(teaching.agreement[tasks[0]])
    rows = [[model, *(f"{teaching.agreement[task][model]:.2f}" for task in tasks)] for model in models]
    headings = [f"on texts of {task}, with {teaching.teachers[task]}" for task in tasks]
    return f"agreement of similarities\n{table_text(['model', *headings], rows)}"


def _draw(position: Position, trajectory: Path, out: Path) -> None:
    """The search's path as a picture beside its file, if it has one."""
    import json

    from selfpos.report.figures import coefficient_path, save

    steps = [json.loads(line) for line in trajectory.read_text(encoding="utf-8").splitlines()]
    figure = coefficient_path(position.names, steps, position.coefficients, position.step)
    if figure is not None:
        save(figure, out)
