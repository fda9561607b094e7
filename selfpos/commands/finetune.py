"""`selfpos finetune`: one specialist from a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfpos.errors import SelfposError

TYPES = (
    "sts, retrieval, reranking, classification, clustering, pair-classification, bitext, summarization, instruction-retrieval "
    "(`selfpos tasks` tells their columns)"
)


@click.command("finetune")
@click.option("--task", required=True, help=f"Task type: {TYPES}.")
@click.option("--base", default="all-MiniLM-L6-v2", show_default=True, help="Model folder or Hub name.")
@click.option(
    "--data", default=("corpus",), show_default=True, multiple=True,
    help="'corpus' (docstrings on this machine), a local file or folder, or hub:NAME; may be repeated.",
)  # fmt: skip
@click.option(
    "--weight",
    "weights",
    multiple=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Share of each --data, in order.",
)
@click.option("--split", default="train", show_default=True)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="Name of a column in the data; may be repeated.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Records to keep, drawn with the seed.")
@click.option(
    "--streaming", is_flag=True, help="Read the data record by record, for data larger than memory."
)
@click.option("--drop-duplicates", is_flag=True, help="Leave out records that occur before.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="[SIDE=]TEXT",
    help="Put before the texts; SIDE is query or document.",
)
@click.option(
    "--mine", type=click.IntRange(min=1), metavar="COUNT", help="Mine so many hard negatives for each pair."
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder to write; must not exist."
)
@click.option("--steps", type=click.IntRange(min=1), help="Training steps; wins over --epochs.")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True))
@click.option("--batch-size", type=click.IntRange(min=2))
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True))
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True))
@click.option("--max-length", type=click.IntRange(min=8), help="Tokens per text while training.")
@click.option("--sts-loss", type=click.Choice(["cosent", "infonce"]), help="Loss of graded pairs.")
@click.option(
    "--cached",
    type=click.IntRange(min=1),
    metavar="TEXTS",
    help="Gradient caching: texts in memory at once, for large batches.",
)
@click.option(
    "--matryoshka",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="DIM",
    help="Train for embeddings cut to DIM; repeat it.",
)
@click.option(
    "--batching",
    type=click.Choice(["shuffled", "length"]),
    help="'length': texts of like length in a batch, which pads less.",
)
@click.option("--gradient-checkpointing", is_flag=True, default=None, help="Less memory, a third slower.")
@click.option("--precision", type=click.Choice(["auto", "float32", "bf16", "fp16"]))
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]))
@click.option(
    "--validate",
    metavar="SHARE|SPLIT",
    help="Measure on a share of the data or on a split of it, and keep the best state.",
)
@click.option("--validate-every", type=click.IntRange(min=1), metavar="STEPS")
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    help="Measurements without a better one before the training stops.",
)
@click.option("--report-to", multiple=True, type=click.Choice(["wandb", "tensorboard", "mlflow", "trackio"]))
@click.option(
    "--lora",
    type=click.IntRange(min=1),
    metavar="RANK",
    help="Train a LoRA adapter of this rank instead of all weights.",
)
@click.option(
    "--probe",
    type=click.IntRange(min=0),
    default=256,
    show_default=True,
    help="Records held out for Self Positioning.",
)
@click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True)
def command(
    task: str,
    base: str,
    data: tuple[str, ...],
    weights: tuple[float, ...],
    split: str,
    columns: tuple[str, ...],
    limit: int | None,
    streaming: bool,
    drop_duplicates: bool,
    prompts: tuple[str, ...],
    mine: int | None,
    out: Path,
    validate: str | None,
    validate_every: int | None,
    patience: int | None,
    lora: int | None,
    probe: int,
    seed: int,
    **given: Any,
) -> None:
    """Fine-tune the base model on one task with sentence-transformers' trainer, and save it as a folder that SentenceTransformer loads."""
    from selfpos.console import is_first, quiet_process, screen
    from selfpos.operations import finetune
    from selfpos.recipe import TaskSource, TrainingSettings
    from selfpos.recipe import validate as checked
    from selfpos.tasks import get_task

    quiet_process()
    kind = get_task(task)
    pairs = [column.partition("=") for column in columns]
    if wrong := [name for name, equals, theirs in pairs if not (equals and name and theirs)]:
        raise SelfposError(f"--column takes OURS=THEIRS, found '{wrong[0]}'")
    settings = {name: value for name, value in given.items() if value not in (None, ())}
    if lora is not None:
        settings["lora"] = {"rank": lora, "alpha": 2 * lora}
    if validate is not None:
        settings["validation"] = _validation(validate, every=validate_every, patience=patience)
    elif validate_every or patience:
        raise SelfposError("--validate-every and --patience need --validate SHARE or --validate SPLIT")
    training = checked(TrainingSettings, settings, "selfpos finetune")
    asked = {
        "type": kind.name, "data": data[0] if len(data) == 1 else list(data), "weights": list(weights) or None, "split": split,
        "columns": {ours: theirs for ours, _, theirs in pairs}, "limit": limit, "streaming": streaming,
        "duplicates": "drop" if drop_duplicates else "keep", "prompts": _prompts(prompts), "mine": {"count": mine} if mine else None,
    }  # fmt: skip
    source = checked(TaskSource, asked, "selfpos finetune")
    result = finetune(base, source, out, training, probe=probe, seed=seed, say=screen().print)
    if is_first():
        click.echo(f"{result.out}  ({result.steps} steps, {result.seconds:.0f} s)")


def _validation(where: str, **more: int | None) -> dict[str, Any]:
    """Settings of a validation on a share of the data, when `where` is a number, or on the split of that name."""
    try:
        place: dict[str, Any] = {"share": float(where)}
    except ValueError:
        place = {"split": where}
    return place | {name: value for name, value in more.items() if value is not None}


def _prompts(given: tuple[str, ...]) -> str | dict[str, str]:
    """One prompt for all texts, or prompts by side."""
    sides = {
        side: text
        for side, equals, text in (prompt.partition("=") for prompt in given)
        if equals and side in ("query", "document")
    }
    if len(sides) == len(given):
        return sides or ""
    if len(given) > 1:
        raise SelfposError("--prompt is given once for all texts, or as query=TEXT and document=TEXT")
    return given[0]
