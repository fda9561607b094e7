"""`selfpos merge`: specialists into one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from selfpos.positioning import Position


class ManyValues(click.Command):
    """Lets `--vectors A B C` take all words up to the next option, as `--vectors A --vectors B` does; `--vectors=A B` too."""

    many: tuple[str, ...] = ("--vectors", "--weights")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        option: str | None = None
        for word in args:
            if word.startswith("--"):
                name, equals, _ = word.partition("=")
                option = name if name in self.many else None
                if option is None or equals:
                    spread.append(word)
            elif option is not None:
                spread += [option, word]
            else:
                spread.append(word)
        return super().parse_args(ctx, spread)


@click.command("merge", cls=ManyValues)
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option(
    "--vectors",
    "sources",
    multiple=True,
    metavar="MODEL…",
    help="Fine-tuned models (folders, Hub names, or adapters).",
)
@click.option("--method", help="See `selfpos methods`.")
@click.option(
    "--base", default="all-MiniLM-L6-v2", show_default=True, help="The model they were fine-tuned from."
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder to write; must not exist."
)
@click.option(
    "--weights",
    multiple=True,
    metavar="WEIGHT…",
    help="One for all vectors, or one per vector: 0.5, a ramp over depth 0.2..0.8, or '{layers.0-5: 0.3, default: 1}'.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the method, values as for --weights; of methods that search, a setting. May be repeated.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the weights written [default: the widest of the inputs'].",
)
@click.option("--dry-run", is_flag=True, help="Show what would be read, merged and written; write nothing.")
@click.option(
    "--adapter", is_flag=True, help="Write one LoRA adapter, where all vectors are such, instead of a model."
)
@click.option("--rank", type=click.IntRange(min=1), help="With --adapter: truncate to this rank.")
@click.option(
    "--take-from",
    metavar="NAME",
    help="'base' or a vector's name: take from it what differs (tokenizer, pooling, prompts, shapes).",
)
@click.option(
    "--device",
    help="Where the arithmetic runs: cpu, cuda, cuda:1, … [default: cpu, for most methods wait for the disk; a search takes the GPU if there is one]",
)
@click.option("--threads", type=click.IntRange(min=1), help="[default: one per core]")
@click.option(
    "--memory",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="MB that may be used beyond the runtime.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    help="MB that one weight file may have.",
)
@click.option("--allow-code", is_flag=True, help="Keep Python code that the base brings along.")
@click.option(
    "--probe",
    type=click.Path(path_type=Path),
    help="Probe set folder, for methods that look at data [default: what finetune held out].",
)
@click.option(
    "--statistics",
    type=click.Path(path_type=Path),
    help="Keep what fisher and regmean gather in this folder, for other merges to take.",
)
@click.option(
    "--coefficients",
    type=click.Path(path_type=Path),
    help="Apply this file, which self-positioning wrote beside its model (OUT.coefficients.json), to the same vectors again.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Search by that many steps of gradient descent.")
@click.option("--seed", type=click.IntRange(min=0, max=2**32 - 2), default=0, show_default=True)
def command(
    recipe: Path | None, sources: tuple[str, ...], method: str | None, base: str, out: Path, weights: tuple[str, ...], params: tuple[str, ...],
    dtype: str | None, dry_run: bool, adapter: bool, rank: int | None, take_from: str | None, device: str | None, threads: int | None, memory: int,
    shard_size: int, allow_code: bool, probe: Path | None, statistics: Path | None, coefficients: Path | None, steps: int | None, seed: int,
) -> None:  # fmt: skip
    """Merge fine-tuned models of one base. The result loads with SentenceTransformer and keeps the base's pooling, normalisation and prompts.

    RECIPE is a mergekit recipe (YAML); without one, --vectors and --method say what to merge.
    """
    from selfpos.errors import SelfposError, unknown

    if coefficients is not None:
        idle = {"a recipe": recipe, "--method": method, "--weights": weights, "--param": params, "--probe": probe, "--steps": steps,
                "--take-from": take_from, "--statistics": statistics}  # fmt: skip
        if given := [option for option, value in idle.items() if value]:
            raise SelfposError(
                f"--coefficients says how to merge, so {given[0]} does not go with it; leave it away"
            )
    elif recipe is None and not (sources and method):
        raise SelfposError("say what to merge: --vectors and --method, or a mergekit recipe")
    based = click.get_current_context().get_parameter_source("base") is not click.core.ParameterSource.DEFAULT
    if recipe is not None and (sources or method or weights or params or based):
        raise SelfposError(
            f"{recipe} says what to merge; leave --base, --vectors, --method, --weights and --param away"
        )
    from selfpos.merging import METHODS
    from selfpos.recipe import LEARNED

    if method is not None and method not in [*METHODS, *LEARNED]:
        raise unknown("merging method", method, [*METHODS, *LEARNED])
    gathers = method in METHODS and bool(METHODS[method].probe)
    if probe is not None and not (gathers or method in LEARNED):
        raise SelfposError(
            f"--probe is for methods that look at data, and {method or 'a mergekit recipe'} does not; see `selfpos methods`"
        )
    if statistics is not None and not gathers:
        raise SelfposError("--statistics is for methods fisher and regmean, which alone gather such")
    if steps is not None and method not in ("self-positioning", "layer-wise"):
        raise SelfposError(
            "--steps is for methods self-positioning and layer-wise, which alone descend a gradient"
        )
    options: dict[str, Any] = {
        "dtype": dtype, "seed": seed, "threads": threads, "budget": memory << 20, **({"device": device} if device else {}),
        "shard_size": shard_size * 1_000_000, "rank": rank, "take_from": take_from,
        "output": "adapter" if adapter else "model", "allow_code": allow_code,
    }  # fmt: skip
    if coefficients is not None:
        from selfpos.operations import merge_by_coefficients, plan_merge_by_coefficients

        if dry_run:
            return _show(plan_merge_by_coefficients(coefficients, base, sources, out, **options))
        click.echo(str(merge_by_coefficients(coefficients, base, sources, out, **options)))
        return None
    if method in LEARNED:
        refused = {"--weights": weights, "--take-from": take_from}
        if given := [option for option, value in refused.items() if value]:
            raise SelfposError(f"{given[0]} does not go with --method {method}; leave it away")
        given_settings = _search_settings(method, steps, _parse(params))
        return _position(method, sources, base, given_settings, out, probe, options, dry_run)
    if recipe is None:
        values = [_value(weight) for weight in weights]
        options |= {
            "weights": (values if len(values) > 1 else values[0]) if values else None,
            "params": _parse(params),
        }
    _merge(
        recipe,
        base,
        sources,
        method or "",
        out,
        options,
        dry_run,
        _data(probe, statistics) if gathers else {},
    )
    return None


def _search_settings(method: str, steps: int | None, params: dict[str, Any]) -> dict[str, Any]:
    """What --method, --steps and --param say of a search. Raises SelfposError where they contradict each other."""
    from selfpos.errors import SelfposError
    from selfpos.recipe import LEARNED

    own = LEARNED[method]
    owner = {preset: name for name, preset in LEARNED.items()}.get(str(params.get("preset", own)), method)
    if owner != method:
        raise SelfposError(f"--param preset={params['preset']} is another method: say --method {owner}")
    if own != "default" and params.get("preset", own) != own:
        raise SelfposError(
            f"method {method} has a preset of its own: leave --param preset={params['preset']} away"
        )
    if steps is None:
        return {"preset": own, **params}
    if "steps" in params or params.get("search", "sgd") != "sgd":
        name = "steps" if "steps" in params else "search"
        raise SelfposError(
            f"--steps asks for so many steps of gradient descent, and --param {name}={params[name]} for something else; keep one"
        )
    return {"preset": own, "search": "sgd", "steps": steps, **params}


def _data(probe: Path | None, statistics: Path | None) -> dict[str, Any]:
    """What a method that looks at data takes beside the options of every merge."""
    from selfpos.console import quiet_process
    from selfpos.data.probe import read_probe

    quiet_process()
    return {"probe": read_probe(probe) if probe else None, "statistics_in": statistics}


def _merge(
    recipe: Path | None, base: str, sources: tuple[str, ...], method: str, out: Path, options: dict[str, Any], dry_run: bool,
    data: dict[str, Any],
) -> None:  # fmt: skip
    from selfpos.operations import merge, plan_merge

    if recipe is not None:
        from selfpos.mergekit import recipe_arguments

        base, found, method, asked, notes = recipe_arguments(recipe)
        sources = tuple(found)
        options |= asked | ({"dtype": options["dtype"]} if options["dtype"] else {})
        for note in notes:
            click.echo(note, err=True)
    if dry_run:
        _show(plan_merge(base, sources, method, out, **data, **options))
        return
    merge(base, sources, method, out, **data, **options)
    click.echo(str(out))


def _show(rows: list[tuple[str, str]]) -> None:
    for label, text in rows:
        click.echo(f"{label:<14}{text}")


def _position(
    method: str, sources: tuple[str, ...], base: str, given: dict[str, Any], out: Path, probe: Path | None, options: dict[str, Any],
    dry_run: bool,
) -> None:  # fmt: skip
    from selfpos.console import is_first, quiet_process
    from selfpos.data.probe import read_probe
    from selfpos.operations import plan_merge, position_and_merge, probe_of
    from selfpos.positioning.position import check
    from selfpos.recipe import PositioningSettings, validate
    from selfpos.storage.atomic import refuse_existing
    from selfpos.storage.locate import locate_model
    from selfpos.vectors.task_vector import distinct_names

    quiet_process()
    refuse_existing(out)
    kinds = ("coefficients.json", "trajectory.png", "trajectory.jsonl")
    coefficients, picture, trajectory = (out.with_name(f"{out.name}.{kind}") for kind in kinds)
    for file in (coefficients, picture, trajectory):
        refuse_existing(file)
    settings = validate(PositioningSettings, given, "--param")
    tasks = read_probe(probe) if probe else probe_of([locate_model(source) for source in sources])
    names = distinct_names([locate_model(source) for source in sources])
    check(tasks, settings, seed=options["seed"], vectors=len(names))
    if alone := [
        *(f"vector {name}" for name in names if name not in tasks),
        *(f"probe task {task}" for task in tasks if task not in names),
    ]:
        click.echo(
            f"vectors and probe tasks do not match by name, which a search does not need: {', '.join(alone)} alone",
            err=True,
        )
    if dry_run:
        searched = ", ".join(f"{name} ({len(task.records)} records)" for name, task in tasks.items())
        replaced = {
            "method": f"{method}: a search for coefficients, which are then applied as by linear",
            "weights": f"searched on {searched}",
        }
        rows = plan_merge(base, sources, "linear", out, **options)
        _show([(label, replaced.get(label, text)) for label, text in rows])
        return
    if options["threads"]:
        import torch

        torch.set_num_threads(options["threads"])
    found = position_and_merge(
        base, sources, tasks, settings, out, coefficients=coefficients, trajectory=trajectory, **options
    )
    if not is_first():
        return
    _draw(found, trajectory, picture)
    ranges = [f" ({low:.2f} to {high:.2f})" for low, high in found.intervals or []] or [""] * len(found.names)
    shown = "  ".join(
        f"{name} {value:.3f}{reach}"
        for name, value, reach in zip(found.names, found.coefficients, ranges, strict=True)
    )
    click.echo(f"{out}  ({shown})")
    if found.verdict:
        click.echo(f"on the probe set: {found.verdict}", err=True)
    if found.interrupted:
        raise KeyboardInterrupt(f"the best point so far, that of step {found.step}, is merged")


def _draw(found: Position, trajectory: Path, out: Path) -> None:
    """The way of the search as a picture beside its file."""
    import json
    from dataclasses import asdict

    from selfpos.report.drawing import save
    from selfpos.report.results import Search
    from selfpos.report.search_figures import coefficient_path

    steps = [json.loads(line) for line in trajectory.read_text(encoding="utf-8").splitlines()]
    save(coefficient_path(Search(asdict(found), steps)), out)


def _value(text: str) -> Any:
    """A word of the command line as a number, ramp, rules or word: as YAML reads it."""
    import yaml

    from selfpos.errors import SelfposError

    if text.startswith("*"):  # a pattern, where YAML would look for an anchor
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise SelfposError(
            f"cannot read the value '{text}'; rules are written like '{{layers.0-5: 0.3, default: 1}}'"
        ) from None


def _parse(params: tuple[str, ...]) -> dict[str, Any]:
    from selfpos.errors import SelfposError

    parsed = {}
    for param in params:
        name, equals, value = param.partition("=")
        if not equals:
            raise SelfposError(f"--param takes NAME=VALUE, found '{param}'")
        name = name.replace("-", "_")
        if name in parsed:
            raise SelfposError(f"--param gives {name} twice; keep one of them")
        parsed[name] = _value(value)
    return parsed
