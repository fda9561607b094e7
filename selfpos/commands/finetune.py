"""`selfpos finetune`: one specialist from a base model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from selfpos.commands.options import (
    ALLOW_PICKLE,
    PATH,
    Verb,
    examples,
    given,
    named_values,
    options_of,
    without_pickles,
)
from selfpos.errors import SelfposError, nearest
from selfpos.recipe import TaskSource, TrainingSettings, ValidationSettings
from selfpos.recipe.data import PROBE_RECORDS

SIDES = {"query": "query", **dict.fromkeys(("document", "passage", "corpus"), "document")}
"""Words for the sides of a task: passage is E5's."""


@click.command(
    "finetune",
    cls=Verb,
    groups={
        "Data": (
            *("--data", "--split", "--limit", "--streaming", "--weight", "--column", "--drop-duplicates"),
            *("--prompt", "--mine"),
        ),
        "Training": (
            *("--steps", "--epochs", "--batch-size", "--learning-rate", "--temperature", "--max-length"),
            *("--sts-loss", "--matryoshka", "--lora", "--batching", "--seed", "--report-to"),
        ),
        "Memory and device": ("--cached", "--gradient-checkpointing", "--precision", "--device"),
        "Records held out": ("--probe", "--validate", "--validate-every", "--patience"),
    },
    epilog=examples(
        "finetune --task classification --data tickets.csv --out specialists/tickets",
        "finetune --task reranking --data wikiqa.csv --base cross-encoder/ms-marco-MiniLM-L6-v2 --out ranker",
        "finetune --task retrieval --data pairs.jsonl --base naver/splade-v3 --out specialists/sparse",
        "finetune --task retrieval --data pairs.jsonl --base BAAI/bge-m3 --lora 16 --out specialists/pairs",
    ),
)
@click.option("--task", required=True, help="Task type, one of `selfpos tasks`.")
@click.option(
    "--model-type",
    type=click.Choice(["sentence-transformer", "cross-encoder", "sparse-encoder", "multi-vector-encoder"]),
    metavar="CLASS",
    help="What to train: sentence-transformer, cross-encoder (--task reranking), sparse-encoder or "
    "multi-vector-encoder (SPLADE and ColBERT, --task retrieval) [default: what the base is].",
)
@click.option("--base", default="all-MiniLM-L6-v2", show_default=True, help="Model folder or Hub name.")
@click.option(
    "--data",
    multiple=True,
    help="A local file or folder, hub:NAME, or 'corpus' (docstrings on this machine; for retrieval also "
    "'corpus:names', 'corpus:see-also'); may be repeated.  [required]",
)
@click.option("--out", required=True, type=PATH, help="Folder to write; must not exist.")
@options_of(TaskSource, "split", "limit", "streaming", weights="weight")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="Name of a column in the data; OURS= leaves an optional one out.",
)
@click.option("--drop-duplicates", is_flag=True, help="Leave out records that occur before.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="[SIDE=]TEXT",
    help="Put before the texts; SIDE is query, or document (also passage).",
)
@click.option(
    "--mine", type=click.IntRange(min=1), metavar="COUNT", help="Hard negatives to mine for each pair."
)
@options_of(
    TrainingSettings,
    *("steps", "epochs", "batch_size", "learning_rate", "temperature", "max_length", "sts_loss", "cached"),
    *("matryoshka", "batching", "gradient_checkpointing", "precision", "device", "report_to"),
)
@click.option(
    "--lora", type=click.IntRange(min=1), metavar="RANK", help="Train a LoRA adapter of this rank instead."
)
@click.option(
    "--validate",
    metavar="SHARE|SPLIT",
    help="Measure on a share of the data or on a split of it, and keep the best state.",
)
@options_of(ValidationSettings, "patience", every="validate_every")
@click.option(
    "--probe",
    type=click.IntRange(min=0),
    default=PROBE_RECORDS,
    show_default=True,
    help="Records held out for Self Positioning; 0 for none. More than half of the data become a quarter.",
)
@ALLOW_PICKLE
@click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True)
@click.option(
    "--dry-run", is_flag=True, help="Check data and base, also for later merges and searches; train nothing."
)
def command(
    task: str,
    model_type: str | None,
    base: str,
    data: tuple[str, ...],
    out: Path,
    columns: tuple[str, ...],
    drop_duplicates: bool,
    prompts: tuple[str, ...],
    mine: int | None,
    lora: int | None,
    validate: str | None,
    probe: int,
    seed: int,
    dry_run: bool,
    allow_pickle: bool,
    **options: Any,
) -> None:
    """Fine-tune the base model on one task, and save it as a folder that loads in the base's class of
    sentence-transformers.
    """
    from selfpos.console import is_first, quiet_process, tell
    from selfpos.operations import check_finetune, finetune
    from selfpos.recipe import validate as checked
    from selfpos.tasks import get_task
    from selfpos.training.outside import check_trackers

    if not data:
        raise SelfposError(
            "say what to train on: --data FILE (or a folder, or hub:NAME), or --data corpus for the "
            "docstrings on this machine"
        )
    quiet_process()
    source = {
        "type": get_task(task).name,
        "data": data[0] if len(data) == 1 else list(data),
        "columns": named_values("--column", "OURS=THEIRS", columns, empty=True),
        "duplicates": "drop" if drop_duplicates else "keep",
        "prompts": _prompts(prompts),
        "mine": {"count": mine} if mine else None,
    }
    settings = given(options)
    source |= {
        name: settings.pop(name) for name in ("split", "limit", "streaming", "weights") if name in settings
    }
    if lora is not None:
        settings["lora"] = {"rank": lora, "alpha": 2 * lora}
    measuring = {name: settings.pop(name) for name in ("every", "patience") if name in settings}
    if validate is not None:
        settings["validation"] = _share_or_split(validate) | measuring
    elif measuring:
        raise SelfposError("--validate-every and --patience need --validate SHARE or --validate SPLIT")
    training = checked(TrainingSettings, settings, "selfpos finetune")
    check_trackers(training.report_to)
    records = checked(TaskSource, source, "selfpos finetune")
    base = without_pickles(base, allow_pickle)
    options = {"model_type": model_type, "probe": probe, "seed": seed}
    if dry_run:
        check_finetune(base, records, out, training, **options, say=click.echo)
        return
    result = finetune(base, records, out, training, **options, say=tell)
    if is_first():
        click.echo(f"{result.out}  ({result.steps} steps, {result.seconds:.0f} s)")


def _share_or_split(text: str) -> dict[str, Any]:
    try:
        return {"share": float(text)}
    except ValueError:
        return {"split": text}


def _prompts(options: tuple[str, ...]) -> str | dict[str, str]:
    """One prompt for all texts, or prompts by side."""
    sides = {}
    for option in options:
        side, text = _side(option)
        if side:
            sides[side] = text
    if len(sides) == len(options):
        return sides or ""
    if len(options) > 1:
        raise SelfposError("--prompt is given once for all texts, or as query=TEXT and document=TEXT")
    return options[0]


def _side(option: str) -> tuple[str, str]:
    """Side and text of `SIDE=TEXT`; no side for a text without one.

    Raises SelfposError for another word before the sign.
    """
    match = re.match(r"(\w+)=", option)
    if not match:
        return "", option
    side = SIDES.get(match[1].lower())
    if side is None:
        raise SelfposError(
            f"--prompt '{option}' names no side of a task; write query= or document= before the text"
            f"{nearest(match[1], SIDES)} (a prompt that begins like this is given for each side)"
        )
    return side, option[match.end() :]
