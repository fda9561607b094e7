"""`selfpos reproduce`: make a merged model again."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.options import ALLOW_PICKLE, PATH, examples, named_values


@click.command(
    "reproduce", epilog=examples("reproduce merged", "reproduce USER/NAME --parent legal=my-folders/legal")
)
@click.argument("model")
@click.option("--out", type=PATH, help="Keep the new model in this folder; must not exist.")
@click.option(
    "--parent",
    "given",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Where a parent is that is not on the Hub; may be repeated.",
)
@click.option(
    "--probe",
    type=PATH,
    help="Probe set folder, for merges by fisher and regmean [default: beside MODEL, or as held out].",
)
@ALLOW_PICKLE
def command(
    model: str, out: Path | None, given: tuple[str, ...], probe: Path | None, allow_pickle: bool
) -> None:
    """Repeat the merge that made MODEL, and say whether the bytes are the same.

    MODEL is a folder, or USER/NAME[@REVISION] on the Hub.
    """
    from selfpos.console import quiet_process
    from selfpos.errors import OperationError
    from selfpos.reproduction import reproduce

    folders = named_values("--parent", "NAME=FOLDER", given)
    parents = {name: Path(folder) for name, folder in folders.items()}
    quiet_process()
    result = reproduce(model, out, parents=parents, probe=probe, allow_pickle=allow_pickle)
    if not result.identical:
        raise OperationError(str(result))
    click.echo(str(result))
