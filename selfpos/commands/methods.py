"""`selfpos methods`: the merge methods."""

from __future__ import annotations

import click


@click.command("methods")
def command() -> None:
    """List the merge methods, what each needs, and its parameters with their defaults."""
    from selfpos.console import table_text
    from selfpos.merging.registry import METHODS

    rows = [
        [name, method.summary, method.needs, ", ".join(str(parameter) for parameter in method.parameters)]
        for name, method in METHODS.items()
    ]
    click.echo(table_text(["method", "what it does", "needs", "parameters"], rows))
