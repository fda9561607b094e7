"""`selfpos methods`: the merge methods."""

from __future__ import annotations

import click


@click.command("methods")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the merge methods, what each needs, and its parameters with their defaults; with NAME, say all about one: formula, source, when to
    prefer it.
    """
    from selfpos.errors import unknown
    from selfpos.merging import METHODS
    from selfpos.merging.describe import method_rows
    from selfpos.positioning.methods import METHODS as LEARNED

    if name is not None:
        if name not in METHODS and name not in LEARNED:
            raise unknown("merging method", name, [*METHODS, *LEARNED])
        click.echo(f"{name}\n\n{METHODS[name].doc if name in METHODS else LEARNED[name].doc}")
        return
    from selfpos.console import table_text

    learned = [(method.name, method.summary, method.needs, method.parameters) for method in LEARNED.values()]
    rows = sorted([*method_rows(), *learned])
    click.echo(table_text(["method", "what it does", "needs", "parameters"], [list(row) for row in rows]))
