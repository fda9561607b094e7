"""`selfpos push`: publish a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfpos.commands.options import PATH, Verb, examples


@click.command(
    "push",
    cls=Verb,
    groups={
        "Repository": ("--private", "--branch", "--pr", "--replace", "--message"),
        "Card": ("--license", "--results", "--overlap", "--keep-card"),
        "Parents": ("--collection", "--probe", "--probe-license"),
    },
    epilog=examples(
        "push merged USER/NAME --results scores --dry-run", "push merged USER/NAME --results scores --public"
    ),
)
@click.argument("model", type=PATH)
@click.argument("repo")
@click.option(
    "--private/--public", default=True, show_default=True, help="Of a repository that does not exist yet."
)
@click.option("--branch", help="Branch to push to; created if it does not exist.")
@click.option("--pr", is_flag=True, help="Open a pull request instead of pushing.")
@click.option("--replace", is_flag=True, help="Overwrite another model that the repository holds.")
@click.option("--message", help="Commit message.")
@click.option("--license", "licence", help="Licence of the model, if its parents do not share one.")
@click.option(
    "--results", type=PATH, help="Folder with MTEB results of this model and its rivals, for the card."
)
@click.option(
    "--overlap", type=PATH, help="Report of `selfpos overlap --out`, for the card [default: that of the run]."
)
@click.option("--keep-card", is_flag=True, help="Send the README.md in the folder as it is.")
@click.option(
    "--collection",
    is_flag=True,
    help="Publish its local parents, too, as REPO-NAME, and gather all in a collection.",
)
@click.option(
    "--probe", type=PATH, help="With --collection: folder of the probe set [default: that of the run]."
)
@click.option(
    "--probe-license",
    "probe_licence",
    help="With --collection: publish the probe set, too, under this licence.",
)
@click.option("--dry-run", is_flag=True, help="Show the files, their sizes and the card; send nothing.")
def command(
    model: Path,
    repo: str,
    branch: str | None,
    pr: bool,
    keep_card: bool,
    collection: bool,
    probe: Path | None,
    probe_licence: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Publish the model folder MODEL as REPO (USER/NAME) on the Hugging Face Hub.

    Its card says how it was made.
    """
    from selfpos.errors import SelfposError
    from selfpos.publishing.collection import CollectionPlan, plan_collection, push_collection
    from selfpos.publishing.plan import PushPlan, plan_push
    from selfpos.publishing.push import push

    plan: PushPlan | CollectionPlan
    if collection:
        if branch or pr or keep_card:
            raise SelfposError(
                "--collection excludes --branch, --pr and --keep-card: it creates repositories"
            )
        plan = plan_collection(model, repo, probe=probe, probe_licence=probe_licence, **options)
    else:
        plan = plan_push(model, repo, branch=branch, pull_request=pr, keep_card=keep_card, **options)
    if dry_run:
        click.echo(plan.text())
    if plan.problems:
        raise SelfposError(f"{model} cannot be pushed: {'; '.join(plan.problems)}")
    if dry_run:
        return
    for pushed in push_collection(plan) if isinstance(plan, CollectionPlan) else [push(plan)]:
        click.echo(str(pushed))
