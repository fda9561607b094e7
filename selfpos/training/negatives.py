"""Hard negatives for pairs that have none, mined once with sentence-transformers and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.console import log, screen
from selfpos.errors import SelfposError
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import cache_folder, locate_model
from selfpos.tasks.prompts import Prompts, column_prompts

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.recipe import MiningSettings
    from selfpos.tasks import TaskType


def mine(
    records: Dataset, kind: TaskType, settings: MiningSettings, base: Path, prompts: Prompts, seed: int
) -> Dataset:
    """`records` of `kind`, prepared, with `settings.count` columns of negatives: texts that answer other records and are near to the question.

    Found by `settings.model`, or `base`. Pairs for which fewer are found are left out, and their number is told. Equal data, model, settings
    and seed give the same, from the cache the second time. Raises SelfposError for a type whose texts do not ask and answer, for records that
    have negatives of their own, and when none are found.
    """
    from datasets import Dataset as Records

    pairs = kind.prepare(records, seed)
    if pairs.column_names != ["anchor", "positive"]:
        why = (
            "has negatives of its own" if "negative" in pairs.column_names else "knows no question and answer"
        )
        raise SelfposError(
            f"hard negatives cannot be mined for task type {kind.name}, whose data {why}; leave 'mine' away"
        )
    model = locate_model(settings.model) if settings.model else base
    before = column_prompts(kind, prompts, pairs.column_names)
    facts = {
        "records": pairs.to_dict(),
        "model": content_hash(model),
        "settings": settings.model_dump(mode="json", exclude={"model"}),
        "prompts": before,
        "seed": seed,
        "version": version("sentence-transformers"),
    }
    file = (
        cache_folder()
        / f"negatives-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]}.parquet"
    )
    if file.is_file():
        return Records.from_parquet(str(file), keep_in_memory=True)
    screen().print(f"mining hard negatives for {len(pairs)} pairs")
    mined = _mine(pairs, settings, model, before, seed)
    if len(mined) == 0:
        raise SelfposError(
            f"no hard negatives were found for {len(pairs)} pairs; raise range_max, or lower range_min or the margin"
        )
    if len(mined) < len(pairs):
        notice = f"{len(pairs) - len(mined)} of {len(pairs)} pairs are left out, for which there are not {settings.count} hard negatives"
        log.warning(notice)
        screen().print(f"[yellow]{notice}[/yellow]")
    partial = file.with_suffix(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    mined.to_parquet(str(partial))
    partial.replace(file)
    return Records.from_parquet(str(file), keep_in_memory=True)


def _mine(
    pairs: Dataset, settings: MiningSettings, model: Path, prompts: dict[str, str], seed: int
) -> Dataset:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives
    from transformers import set_seed

    from selfpos.console import quiet_libraries

    with quiet_libraries():
        set_seed(seed)  # for the random sampling
        encoder = SentenceTransformer(str(model), local_files_only=True)
        deepest = min(settings.range_max, len(set(pairs["positive"])) - 1)
        if deepest - settings.range_min < settings.count:
            raise SelfposError(
                f"{len(set(pairs['positive']))} different answers leave no {settings.count} beyond the nearest {settings.range_min}; "
                "lower range_min, or give more data"
            )
        found = mine_hard_negatives(
            pairs, encoder, anchor_column_name="anchor", positive_column_name="positive", num_negatives=settings.count,
            range_min=settings.range_min, range_max=deepest, relative_margin=settings.relative_margin, max_score=settings.max_score,
            min_score=settings.min_score, sampling_strategy=settings.sampling, query_prompt=prompts.get("anchor"),
            corpus_prompt=prompts.get("positive"), output_format="n-tuple", batch_size=64, verbose=False,
        )  # fmt: skip
    return found.rename_columns({"negative_1": "negative"}) if "negative_1" in found.column_names else found
