"""`selfpos push`: publish a model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("push")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("repo")
@click.option("--private/--public", default=True, show_default=True)
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and the card; send nothing.")
def command(model: Path, repo: str, private: bool, dry_run: bool) -> None:
    """Publish the model folder MODEL as REPO (USER/NAME) on the Hugging Face Hub, with a card that says how it was made."""
    from selfpos.publishing.push import plan_push, push

    plan = plan_push(model, repo, private=private)
    if dry_run:
        click.echo(plan.text())
        return
    click.echo(push(plan))
