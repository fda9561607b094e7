"""`selfpos methods`: the merge methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from selfpos.merging import Method

COUNTS = {
    (1, None): "",
    (1, 1): "one vector",
    (2, 2): "two vectors",
    (2, None): "two vectors or more",
    (1, 2): "one or two vectors",
}


@click.command("methods")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the merge methods, what each needs, and its parameters with their defaults; with NAME, show one:
    formula, source, when to prefer it.
    """
    from selfpos.console import table_text
    from selfpos.errors import unknown
    from selfpos.merging import METHODS
    from selfpos.positioning.methods import METHODS as LEARNED

    if name is None:
        rows = [method_row(method) for method in METHODS.values()]
        rows += [
            [method.name, method.summary, method.needs, method.parameters] for method in LEARNED.values()
        ]
        click.echo(table_text(["method", "what it does", "needs", "parameters"], sorted(rows)))
        return
    if name not in METHODS and name not in LEARNED:
        raise unknown("merging method", name, [*METHODS, *LEARNED])
    click.echo(f"{name}\n\n{METHODS[name].doc if name in METHODS else LEARNED[name].doc}")


def method_row(method: Method) -> list[str]:
    """Name, summary, needs and parameters of a method."""
    needs = [COUNTS[method.fewest, method.most], method.needs]
    return [
        method.name,
        method.summary,
        ", ".join(need for need in needs if need),
        ", ".join(map(str, method.parameters)),
    ]
