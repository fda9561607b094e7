"""`selfpos run`: carry out a recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from selfpos.commands.options import PATH, examples


@click.command("run", epilog=examples("run my-recipe.yaml --dry-run", "run english --out runs/english"))
@click.argument("recipe", type=PATH)
@click.option("--out", type=PATH, help="Folder of the run [default: checkpoints/NAME of the recipe].")
@click.option(
    "--data-root",
    type=PATH,
    help="Local copies of the data: tasks read what their field `local` names, MTEB its own data.",
)
@click.option(
    "--ray",
    metavar="ADDRESS|auto",
    help="Send the jobs to a Ray cluster: its address, or auto for the one on this machine.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check recipe, data and base, and say what would be done, on how much disk and how long.",
)
def command(recipe: Path, out: Path | None, data_root: Path | None, ray: str | None, dry_run: bool) -> None:
    """Carry out RECIPE, a file or a name of `selfpos recipes`: train the specialists and the joint rival,
    merge, score every model, write the report.

    A run that was stopped continues when started again: finished jobs are kept, a training continues from its
    last checkpoint.
    """
    carry_out(recipe, out, data_root, ray, dry_run=dry_run)


def carry_out(
    recipe: Path,
    out: Path | None,
    data_root: Path | None = None,
    ray: str | None = None,
    *,
    dry_run: bool = False,
) -> None:
    """Carry out a recipe, and print its scores and where the report is; with `dry_run`, its jobs only."""
    from selfpos.console import quiet_process, screen
    from selfpos.errors import keeping
    from selfpos.extras import need_extra
    from selfpos.pipeline.checks import check_installed
    from selfpos.recipe import load_recipe
    from selfpos.storage.locate import locate_model

    quiet_process()
    if ray is not None:
        need_extra("ray", "--ray")
    plan = load_recipe(recipe)
    check_installed(plan)
    locate_model(plan.base)  # before torch and mteb are imported, which takes seconds
    folder = out or Path("checkpoints") / plan.name
    screen().print(
        f"[bold]{plan.name}[/bold]: {len(plan.tasks)} tasks, {len(plan.merges)} merges, into {folder}"
    )
    from selfpos.jobs.job import Executor, execute
    from selfpos.pipeline.run import plan_run, run_recipe
    from selfpos.report.of_run import score_table

    executor: Executor = execute
    if ray is not None:
        from selfpos.jobs.ray import execute_on_ray

        executor = partial(execute_on_ray, address=ray)
    if dry_run:
        planned = plan_run(plan, folder, data_root=data_root)
        for rows in (planned.rows, planned.forecasts):  # the second takes a while
            for label, text in rows():
                click.echo(f"{label + ' ':<11}{text}")
        return
    with keeping(f"what is finished in {folder}"):
        done = run_recipe(plan, folder, data_root=data_root, executor=executor)
    click.echo(score_table(done))
    click.echo(f"report: {done.report}")
