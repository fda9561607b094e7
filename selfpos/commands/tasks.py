"""`selfpos tasks`: the task types."""

from __future__ import annotations

import click

from selfpos.commands.options import examples, help_width


@click.command("tasks", epilog=examples("tasks"))
def command() -> None:
    """List the task types, what a record of each holds, and the column names that are understood."""
    from selfpos.tasks import TASKS

    formatter = click.HelpFormatter(width=help_width())
    for name, kind in TASKS.items():
        with formatter.section(name):
            formatter.write_text(f"{kind.summary[:1].upper()}{kind.summary[1:]}.")
            formatter.write_dl([(column, ", ".join(aliases)) for column, aliases in kind.columns.items()])
    formatter.write_paragraph()
    formatter.write_text(
        "Left the columns of a task, right the names by which they are found in any case; "
        "`--column OURS=THEIRS` names another."
    )
    click.echo(formatter.getvalue().strip("\n"))
