"""`selfpos methods`: the merge methods."""

from __future__ import annotations

import click


@click.command("methods")
def command() -> None:
    """List the merge methods, what each needs, and its parameters with their defaults."""
    from selfpos.console import table_text
    from selfpos.merging.describe import method_rows

    click.echo(table_text(["method", "what it does", "needs", "parameters"], [list(row) for row in method_rows()]))
