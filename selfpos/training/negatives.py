"""Hard negatives for pairs that have none, mined once with sentence-transformers and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.console import screen, warn
from selfpos.errors import SelfposError
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import cache_folder, locate_model
from selfpos.tasks.task import Prompts, column_prompts

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.recipe import MiningSettings
    from selfpos.tasks import TaskType


def mine(
    records: Dataset, task_type: TaskType, settings: MiningSettings, base: Path, prompts: Prompts, seed: int
) -> Dataset:
    """`records`, prepared, with `settings.count` columns of negatives: near answers of other records.

    `settings.model` embeds them, or `base`. Pairs with fewer negatives are left out with a warning. Raises
    SelfposError for a type without question and answer, for records with negatives, and when none are mined.
    """
    from datasets import Dataset as Records

    pairs = task_type.prepare(records, seed)
    if pairs.column_names != ["anchor", "positive"]:
        has_negatives = "negative" in pairs.column_names
        why = "has negatives already" if has_negatives else "has no question and answer"
        raise SelfposError(
            f"hard negatives cannot be mined for task type {task_type.name}, whose data {why}; remove 'mine'"
        )
    model = locate_model(settings.model) if settings.model else base
    prompt_of = column_prompts(task_type, prompts, pairs.column_names)
    facts = {
        "records": pairs.to_dict(),
        "model": content_hash(model),
        "settings": settings.model_dump(mode="json", exclude={"model"}),
        "prompts": prompt_of,
        "seed": seed,
        "version": version("sentence-transformers"),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    file = cache_folder() / f"negatives-{key}.parquet"
    if not file.is_file():
        screen().print(f"mining hard negatives for {len(pairs)} pairs")
        mined = _mine(pairs, settings, model, prompt_of, seed)
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

    answers = len(set(pairs["positive"]))
    deepest = min(settings.range_max, answers - 1)
    if deepest - settings.range_min < settings.count:
        raise SelfposError(
            f"{answers} different answers leave no {settings.count} beyond the nearest "
            f"{settings.range_min}; give more data, mine fewer, or write a recipe, where mine: has range_min"
        )
    with quiet_libraries():
        set_seed(seed)  # for the random sampling
        mined = mine_hard_negatives(
            pairs,
            SentenceTransformer(str(model), local_files_only=True),
            anchor_column_name="anchor",
            positive_column_name="positive",
            num_negatives=settings.count,
            range_min=settings.range_min,
            range_max=deepest,
            relative_margin=settings.relative_margin,
            max_score=settings.max_score,
            min_score=settings.min_score,
            sampling_strategy=settings.sampling,
            query_prompt=prompts.get("anchor"),
            corpus_prompt=prompts.get("positive"),
            output_format="n-tuple",
            batch_size=64,
            verbose=False,
        )
    if len(mined) == 0:
        raise SelfposError(
            f"no hard negatives for {len(pairs)} pairs: the nearest other answers are as similar as the "
            "right ones; leave --mine out, or write a recipe, where mine: has range_max, range_min and "
            "relative_margin"
        )
    if len(mined) < len(pairs):
        warn(
            f"{len(pairs) - len(mined)} of {len(pairs)} pairs have fewer than {settings.count} hard "
            "negatives and are left out"
        )
    return mined.rename_columns({"negative_1": "negative"}) if "negative_1" in mined.column_names else mined
