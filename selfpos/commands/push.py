"""`selfpos push`: publish a model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("push")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("repo")
@click.option("--private/--public", default=True, show_default=True, help="Of a repository that is new.")
@click.option("--license", "licence", metavar="ID", help="Where none follows from the parents: a Hub identifier, or other:NAME:LINK.")
@click.option("--branch", metavar="NAME", help="Send to this branch, made where it is missing.")
@click.option("--pr", "pull_request", is_flag=True, help="Open a pull request instead of changing the repository.")
@click.option("--replace", is_flag=True, help="Overwrite another model that the repository holds.")
@click.option("--message", metavar="TEXT", help="Of the commit.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder of MTEB result files for the card [default: those of the run].")
@click.option("--keep-card", is_flag=True, help="Send the README.md of the folder as it stands.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and the card; send nothing.")
def command(
    model: Path, repo: str, private: bool, licence: str | None, branch: str | None, pull_request: bool, replace: bool, message: str | None,
    results: Path | None, keep_card: bool, dry_run: bool,
) -> None:  # fmt: skip
    """Publish the model folder MODEL as REPO (USER/NAME) on the Hugging Face Hub, with a card that says how it was made."""
    from selfpos.errors import SelfposError
    from selfpos.publishing.push import plan_push, push

    plan = plan_push(
        model, repo, private=private, licence=licence, branch=branch, pull_request=pull_request, replace=replace, message=message,
        results=results, keep_card=keep_card,
    )  # fmt: skip
    if not dry_run:
        click.echo(push(plan))
        return
    click.echo(plan.text())
    if plan.problems:
        raise SelfposError(f"this would not be sent: {'; '.join(plan.problems)}")
