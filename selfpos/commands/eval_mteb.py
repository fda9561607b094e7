"""`selfpos eval-mteb`: score a model."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.merge import ManyValues


class ManyTasks(ManyValues):
    many = ("--tasks",)


@click.command("eval-mteb", cls=ManyTasks)
@click.argument("model")
@click.option("--tasks", multiple=True, metavar="TASK…", help="MTEB task names; 'corpus' for those of the embedded corpus.")
@click.option("--benchmark", help='An MTEB benchmark, such as "MTEB(eng, v2)".')
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder with MTEB data kept locally; nothing else is read when given.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for MTEB's result files [default: checkpoints/scores].")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
def command(model: str, tasks: tuple[str, ...], benchmark: str | None, data_dir: Path | None, out: Path | None, batch_size: int) -> None:
    """Score MODEL (a folder or a Hub name) on MTEB tasks with mteb itself. Results already there for the same weights are kept."""
    from selfpos.console import table_text
    from selfpos.evaluation import evaluate, select_tasks
    from selfpos.quiet import quiet_process
    from selfpos.storage.locate import locate_model

    quiet_process()
    folder = locate_model(model)
    chosen = select_tasks([name for word in tasks for name in word.split(",")], benchmark=benchmark, data_dir=data_dir)
    scores = evaluate(folder, chosen, out or Path("checkpoints") / "scores", name=model, batch_size=batch_size)
    rows = [[name, score.type, score.metric, f"{score.main_score:.5f}"] for name, score in scores.items()]
    click.echo(table_text(["task", "type", "metric", "score"], rows))
