"""`selfpos tasks`: the task types."""

from __future__ import annotations

import click

from selfpos.commands.options import examples


@click.command("tasks", epilog=examples("tasks"))
def command() -> None:
    """List the task types, what a record of each holds, and the column names that are understood."""
    from selfpos.console import table_text
    from selfpos.tasks import TASKS

    rows = []
    for name, kind in TASKS.items():
        columns = [f"{column}: {', '.join(aliases)}" for column, aliases in kind.columns.items()]
        rows.append([name, "\n".join(columns), kind.summary])
    click.echo(table_text(["type", "columns (accepted names)", "what it is"], rows))
