"""`selfpos fetch-data`: download data for `--data-dir`."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.eval_mteb import selection_options
from selfpos.commands.options import PATH, ManyValues, examples, split_names


@click.command(
    "fetch-data",
    cls=ManyValues,
    epilog=examples(
        "fetch-data mteb-data --tasks STSBenchmark Banking77Classification",
        'fetch-data mteb-data --benchmark "MTEB(eng, v2)"',
    ),
)
@click.argument("out", type=PATH)
@selection_options
def command(
    out: Path,
    tasks: tuple[str, ...],
    benchmark: str | None,
    types: tuple[str, ...],
    languages: tuple[str, ...],
    subsets: tuple[str, ...],
) -> None:
    """Download the data of MTEB tasks from the Hugging Face Hub into the folder OUT.

    `--data-dir` reads it from there on machines without a network.
    """
    from selfpos.console import quiet_process
    from selfpos.errors import OperationError, SelfposError
    from selfpos.evaluation.local_data import fetch
    from selfpos.evaluation.select import offline, wanted_tasks

    quiet_process()
    if offline():
        raise OperationError(
            "HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or use a machine with a network"
        )
    if not (tasks or benchmark or types or languages):
        raise SelfposError("say what to fetch: --tasks, --benchmark, --task-types or --languages")
    wanted = wanted_tasks(split_names(tasks), benchmark, types, languages, subsets)
    if not wanted:
        raise SelfposError(
            f"{', '.join(tasks)}: no data of these tasks is on the Hub, for they read files of yours; "
            "eval-mteb says which"
        )
    fetch(wanted, out, click.echo)
