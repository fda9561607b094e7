"""`selfpos finetune`: one specialist from a base model."""

from __future__ import annotations

from pathlib import Path

import click

TYPES = (
    "sts, retrieval, reranking, classification, clustering, pair-classification, bitext, summarization, instruction-retrieval "
    "(`selfpos tasks` tells their columns)"
)


@click.command("finetune")
@click.option("--task", required=True, help=f"Task type: {TYPES}.")
@click.option("--base", default="all-MiniLM-L6-v2", show_default=True, help="Model folder or Hub name.")
@click.option(
    "--data", default="corpus", show_default=True, help="'corpus' (docstrings on this machine), a local file or folder, or hub:NAME."
)
@click.option("--split", default="train", show_default=True)
@click.option("--column", "columns", multiple=True, metavar="OURS=THEIRS", help="Name of a column in the data; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="Records to keep, drawn with the seed.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write; must not exist.")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps; wins over --epochs.")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True))
@click.option("--batch-size", type=click.IntRange(min=2))
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True))
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True))
@click.option("--max-length", type=click.IntRange(min=8), help="Tokens per text while training.")
@click.option("--lora", type=click.IntRange(min=1), metavar="RANK", help="Train a LoRA adapter of this rank instead of all weights.")
@click.option("--probe", type=click.IntRange(min=0), default=256, show_default=True, help="Records held out for Self Positioning.")
@click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True)
def command(
    task: str,
    base: str,
    data: str,
    split: str,
    columns: tuple[str, ...],
    limit: int | None,
    out: Path,
    lora: int | None,
    probe: int,
    seed: int,
    **given: float | None,
) -> None:
    """Fine-tune the base model on one task with sentence-transformers' trainer, and save it as a folder that SentenceTransformer loads."""
    from selfpos.console import screen
    from selfpos.errors import SelfposError
    from selfpos.operations import finetune
    from selfpos.quiet import quiet_process
    from selfpos.recipe import TaskSource, TrainingSettings, validate
    from selfpos.tasks import get_task

    quiet_process()
    kind = get_task(task)
    pairs = [column.partition("=") for column in columns]
    if wrong := [name for name, equals, theirs in pairs if not (equals and name and theirs)]:
        raise SelfposError(f"--column takes OURS=THEIRS, found '{wrong[0]}'")
    settings = {name: value for name, value in given.items() if value is not None}
    if lora is not None:
        settings["lora"] = {"rank": lora, "alpha": 2 * lora}  # type: ignore[assignment]
    training = validate(TrainingSettings, settings, "selfpos finetune")
    source = TaskSource(type=kind.name, data=data, split=split, columns={ours: theirs for ours, _, theirs in pairs}, limit=limit)
    result = finetune(base, source, out, training, probe=probe, seed=seed, say=screen().print)
    click.echo(f"{result.out}  ({result.steps} steps, {result.seconds:.0f} s)")
