"""`selfpos merge`: specialists into one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class ManyValues(click.Command):
    """Lets `--vectors A B C` take all words up to the next option, as `--vectors A --vectors B` does."""

    many: tuple[str, ...] = ("--vectors", "--weights")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        option: str | None = None
        for word in args:
            if word.startswith("--"):
                option = word if word in self.many else None
                if option is None:
                    spread.append(word)
            elif option is not None:
                spread += [option, word]
            else:
                spread.append(word)
        return super().parse_args(ctx, spread)


@click.command("merge", cls=ManyValues)
@click.option(
    "--vectors", "sources", multiple=True, required=True, metavar="MODEL…", help="Fine-tuned models (folders, Hub names, or adapters)."
)
@click.option("--method", required=True, help="See `selfpos methods`; or self-positioning, which learns the coefficients.")
@click.option("--base", default="all-MiniLM-L6-v2", show_default=True, help="The model they were fine-tuned from.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write; must not exist.")
@click.option("--weights", multiple=True, type=float, metavar="NUMBER…", help="One per vector.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the method; may be repeated.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Of the weights written [default: the base's].")
@click.option("--probe", type=click.Path(path_type=Path), help="Probe set folder for self-positioning [default: what finetune held out].")
@click.option("--steps", type=click.IntRange(min=1), help="Search by that many steps of gradient descent instead of linearised.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(
    sources: tuple[str, ...], method: str, base: str, out: Path, weights: tuple[float, ...], params: tuple[str, ...], dtype: str | None,
    probe: Path | None, steps: int | None, seed: int,
) -> None:  # fmt: skip
    """Merge fine-tuned models of one base. The result loads with SentenceTransformer and keeps the base's pooling, normalisation and prompts."""
    from selfpos.operations import merge

    if method == "self-positioning":
        _position(sources, base, out, probe, steps, seed, dtype)
    else:
        merge(base, sources, method, out, weights=list(weights) or None, params=_parse(params), dtype=dtype)
    click.echo(str(out))


def _position(sources: tuple[str, ...], base: str, out: Path, probe: Path | None, steps: int | None, seed: int, dtype: str | None) -> None:
    from selfpos.commands.quiet import quiet_libraries
    from selfpos.data.probe import read_probe
    from selfpos.operations import position_and_merge, probe_of
    from selfpos.recipe import PositioningSettings
    from selfpos.storage.locate import locate_model

    quiet_libraries()
    settings = PositioningSettings() if steps is None else PositioningSettings(search="sgd", steps=steps)
    tasks = read_probe(probe) if probe else probe_of([locate_model(source) for source in sources])
    found = position_and_merge(base, sources, tasks, settings, out, seed=seed, dtype=dtype)
    click.echo("  ".join(f"{name} {value:.3f}" for name, value in zip(found.names, found.coefficients, strict=True)))


def _parse(params: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    from selfpos.errors import SelfposError

    parsed = {}
    for param in params:
        name, equals, value = param.partition("=")
        if not equals:
            raise SelfposError(f"--param takes NAME=VALUE, found '{param}'")
        parsed[name.replace("-", "_")] = yaml.safe_load(value)
    return parsed
