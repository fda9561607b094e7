"""`selfpos retain`: what a fine-tune learned, without what it forgot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfpos.commands.options import (
    ALLOW_PICKLE,
    PATH,
    ManyValues,
    examples,
    given,
    options_of,
    say,
    without_pickles,
)
from selfpos.recipe.merging import MergeOptions
from selfpos.recipe.retain import RetainSettings


@click.command(
    "retain",
    cls=ManyValues,
    groups={
        "What is measured": ("--domain", "--general", "--data-dir", "--index", "--max-length", "--seed"),
        "Which point is taken": ("--promise", "--keep", "--alpha", "--space"),
        "Files and device": ("--dtype", "--memory", "--device", "--allow-pickle"),
    },
    epilog=examples(
        "retain all-MiniLM-L6-v2 my-fine-tune --domain my-documents/ --out merged",
        "retain BAAI/bge-m3 run-1 run-2 --domain pairs.jsonl --keep 0.95 --out merged",
    ),
)
@click.argument("base")
@click.argument("tuned", nargs=-1, required=True)
@click.option("--out", required=True, type=PATH, help="Folder to write; must not exist.")
@options_of(
    RetainSettings,
    *("domain", "general", "data_dir", "promise", "keep", "alpha", "space", "index", "max_length", "seed"),
    "device",
)
@options_of(MergeOptions, "dtype", budget="memory")
@ALLOW_PICKLE
def command(base: str, tuned: tuple[str, ...], out: Path, allow_pickle: bool, **options: Any) -> None:
    """Fine-tune without forgetting: find the front between what TUNED learned from BASE and what it forgot,
    and write the model of the best point that keeps a promise.

    Several TUNED are runs or checkpoints of one training.
    """
    from selfpos.console import quiet_process, table_text
    from selfpos.recipe import validate
    from selfpos.retaining import front_files, retain
    from selfpos.retention.story import index_rows, rows, sentences
    from selfpos.storage.atomic import refuse_existing

    quiet_process()
    for path in front_files(out):
        refuse_existing(path)
    chosen = {
        name: list(value) if isinstance(value, tuple) else value for name, value in given(options).items()
    }
    merging = {name: chosen.pop(name) for name in ("dtype", "budget") if name in chosen}
    settings = validate(RetainSettings, chosen, "selfpos retain")
    base, *models = (without_pickles(model, allow_pickle) for model in (base, *tuned))
    facts = retain(base, models, out, settings, say=say, **merging)
    click.echo(table_text(*rows(facts)))
    if "index" in facts:
        click.echo(table_text(*index_rows(facts)))
    for sentence in sentences(facts):
        click.echo(sentence)
    click.echo(str(out))
