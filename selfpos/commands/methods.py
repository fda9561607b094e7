"""`selfpos methods`: the merge methods."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from selfpos.commands.options import examples, help_width

if TYPE_CHECKING:
    from selfpos.merging import Method
    from selfpos.positioning.methods import Learned

COUNTS = {
    (1, None): "",
    (1, 1): "one vector",
    (2, 2): "two vectors",
    (2, None): "two vectors or more",
    (1, 2): "one or two vectors",
}


@click.command("methods", epilog=examples("methods", "methods ties"))
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the merge methods; with NAME, show one: formula, parameters and their defaults, what it needs, its
    source, when to prefer it.
    """
    from selfpos.errors import unknown
    from selfpos.merging import METHODS
    from selfpos.positioning.methods import METHODS as LEARNED

    if name is None:
        merges = METHODS.values()
        groups: dict[str, list[Method | Learned]] = {
            "Without data": [method for method in merges if not method.probe],
            "With statistics of a probe set": [method for method in merges if method.probe],
            "Learned on a probe set": list(LEARNED.values()),
        }
        click.echo(_listed(groups))
        return
    if name not in METHODS and name not in LEARNED:
        raise unknown("merging method", name, [*METHODS, *LEARNED])
    method = METHODS[name] if name in METHODS else LEARNED[name]
    defaults = ", ".join(map(str, method.parameters)) or "no parameters"
    facts = {"defaults": defaults, "needs": needs_of(method) or "nothing but the vectors"}
    paragraphs = [_wrapped(paragraph, help_width()) for paragraph in method.doc.split("\n\n")]
    lines = [
        textwrap.fill(f"{label + ':':<9} {text}", help_width(), subsequent_indent=" " * 10)
        for label, text in facts.items()
    ]
    click.echo("\n\n".join([name, *paragraphs, "\n".join(lines)]))


def _wrapped(paragraph: str, width: int) -> str:
    """The paragraph of a docstring, wrapped where a line is wider than `width`; each argument on its own."""
    lines = paragraph.splitlines()
    if max(map(len, lines)) <= width:
        return paragraph
    fill = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
    if lines[0] != "Args:":
        return fill(" ".join(lines))
    entries: list[str] = []
    for line in lines[1:]:
        if line.startswith(" " * 8):
            entries[-1] += " " + line.strip()
        else:
            entries.append(line.strip())
    broken = (fill(entry, initial_indent=" " * 4, subsequent_indent=" " * 8) for entry in entries)
    return "\n".join(["Args:", *broken])


def _listed(groups: Mapping[str, Sequence[Method | Learned]]) -> str:
    """The methods of each group with a line on what they do, as wide as the terminal."""
    formatter = click.HelpFormatter(width=help_width())
    for title, methods in groups.items():
        with formatter.section(title):
            formatter.write_dl(sorted((method.name, method.summary) for method in methods))
    formatter.write_paragraph()
    formatter.write_text(
        "`selfpos methods NAME` shows one: formula, parameters, what it needs, when to prefer it."
    )
    return formatter.getvalue().rstrip("\n")


def needs_of(method: Method | Learned) -> str:
    """What a method needs besides the base: how many vectors, which data, how much memory."""
    count = COUNTS[method.fewest, method.most]
    return ", ".join(need for need in (count, method.needs) if need)
