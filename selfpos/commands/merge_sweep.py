"""Several merges of the same models under `selfpos merge --sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from selfpos.commands.options import show_rows


def merge_sweep(
    file: Path, base: str, vectors: Sequence[str], out: Path, options: dict[str, Any], dry_run: bool
) -> None:
    """Carry out the merges of a file, or show them."""
    from selfpos import sweep

    merges = sweep.read_sweep(file)
    if not dry_run:
        for path in sweep.merge_sweep(base, vectors, merges, out, **options):
            click.echo(str(path))
        return
    for number, (name, rows) in enumerate(
        sweep.describe_sweep(base, vectors, merges, out, **options).items()
    ):
        click.echo(f"{chr(10) if number else ''}{name}")
        show_rows(rows)
