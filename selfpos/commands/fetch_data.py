"""`selfpos fetch-data`: fill a folder for `--data-dir`."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.eval_mteb import ManyTasks


@click.command("fetch-data", cls=ManyTasks)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--tasks", multiple=True, metavar="TASK…", help="MTEB task names; 'quick' for one small task per type."
)
@click.option("--benchmark", help='An MTEB benchmark, such as "MTEB(eng, v2)".')
@click.option(
    "--task-types", multiple=True, metavar="TYPE…", help="Only tasks of these types, as MTEB calls them."
)
@click.option(
    "--languages", multiple=True, metavar="CODE…", help="Only tasks in these languages, as eng or eng-Latn."
)
def command(
    out: Path,
    tasks: tuple[str, ...],
    benchmark: str | None,
    task_types: tuple[str, ...],
    languages: tuple[str, ...],
) -> None:
    """Fetch the data of MTEB tasks from the Hugging Face Hub into the folder OUT, for `--data-dir` on
    machines without a network.
    """
    from selfpos.console import quiet_process
    from selfpos.errors import OperationError, SelfposError
    from selfpos.evaluation.hub_layout import fetch
    from selfpos.evaluation.select import offline, wanted_tasks

    quiet_process()
    if offline():
        raise OperationError(
            "HF_HUB_OFFLINE is set, so nothing is fetched; unset it, or fetch on a machine with a network"
        )
    if not (tasks or benchmark or task_types or languages):
        raise SelfposError("say what to fetch: --tasks, --benchmark, --task-types or --languages")
    names = [name for word in tasks for name in word.split(",")]
    found = wanted_tasks(names, benchmark, task_types, languages)
    if not found:
        raise SelfposError(f"{', '.join(names)}: no data of these is on the Hub")
    fetch(found, out, click.echo)
