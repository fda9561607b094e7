"""Training records, probe sets and test records of the study, all from one folder of data sets."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from settings import SOURCES, Setting

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.data.probe import ProbeTask

TEXTS = 200  # of a specialist, for a search without labels
TEST_TITLES = 4000  # StackOverflow titles kept for tests, the same in every seed


def titles(count: int) -> list[int]:
    """The order of the StackOverflow titles, the same for every seed; the last are for tests."""
    return random.Random("titles").sample(range(count), count)


@cache
def _source(task: str, data: Path) -> tuple[Any, Dataset]:
    from selfpos.data.sources import load_source
    from selfpos.tasks import get_task

    type_name, folder, split, _ = SOURCES[task]
    task_type = get_task(type_name)
    columns = {"text": "positive", "summary": "answer"} if folder == "pubmedqa_l" else None
    dataset = load_source(folder, task_type, split=split, data_root=data, columns=columns).dataset
    if folder == "stackoverflow_short":
        dataset = dataset.select(titles(len(dataset))[:-TEST_TITLES])
    if folder == "pubmedqa_l":
        dataset = dataset.select(range(700))  # the others are for tests
    if folder == "medquad":
        dataset = dataset.select(random.Random("medquad").sample(range(len(dataset)), 6000)[:-1000])
    return task_type, dataset


@cache
def split(task: str, seed: int, data: Path) -> tuple[Any, Dataset, Dataset]:
    """(type, training records, probe records) of a task. No text of the probe is trained on."""
    from selfpos.data.probe import hold_out

    task_type, dataset = _source(task, data)
    training, probe = hold_out(dataset, SOURCES[task][3], seed)
    return task_type, training, probe


def training_records(task: str, setting: Setting, seed: int, data: Path) -> tuple[Any, Dataset]:
    """(type, records) that the specialist of `task` is trained on. Strays have tasks of their own."""
    if task == "harmful":
        task_type, dataset, _ = split("classification", seed, data)
        return task_type, with_labels_shuffled(dataset, seed)
    if task == "useless":
        task_type, dataset, _ = split("summarization", seed, data)
        return task_type, dataset
    task_type, dataset, _ = split(task, seed, data)
    most = setting.sizes.get(task, len(dataset))
    rows = random.Random(f"{task} {seed}").sample(range(len(dataset)), min(most, len(dataset)))
    return task_type, dataset if most >= len(dataset) else dataset.select(sorted(rows))


def probe_of(setting: Setting, seed: int, data: Path) -> dict[str, ProbeTask]:
    """The probe set of a setting's tasks."""
    from selfpos.data.probe import ProbeTask

    probe = {}
    for task in setting.steps:
        task_type, _, records = split(task, seed, data)
        probe[task] = ProbeTask(task, task_type, records)
    return probe


def plain_texts(setting: Setting, seed: int, data: Path, vectors: list[str]) -> dict[str, ProbeTask]:
    """TEXTS texts of each specialist, strays last, without labels, and as many general ones.

    They are by the names of `vectors`, so that each specialist teaches on its own. Those of tasks are of the
    probe, which nobody trained on; those of strays of their training records.
    """
    from datasets import Dataset

    from selfpos.data.probe import ProbeTask, positive_texts
    from selfpos.data.texts import read_texts
    from selfpos.tasks.texts import GENERAL
    from selfpos.tasks.texts import TEXTS as KIND

    texts: dict[str, list[str]] = {GENERAL: read_texts("corpus", most=TEXTS).texts}
    for task, vector in zip([*setting.steps, *setting.strays], vectors, strict=True):
        if task in setting.strays:
            records = training_records(task, setting, seed, data)[1].select(range(TEXTS))
        else:
            records = split(task, seed, data)[2]
        texts[vector] = [text for record in positive_texts(records) for text in sorted(record)]
    rng, probe = random.Random(f"texts {seed}"), {}
    for name, some in texts.items():
        distinct = list(dict.fromkeys(some))
        chosen = rng.sample(distinct, min(TEXTS, len(distinct)))
        probe[name] = ProbeTask(name, KIND, Dataset.from_dict({"text": chosen}))
    return probe


def with_labels_shuffled(dataset: Dataset, seed: int) -> Dataset:
    """`dataset` with its labels in random order: what learns from it learns nothing, or harm."""
    labels = dataset["label"][:]
    random.Random(seed).shuffle(labels)
    return dataset.remove_columns("label").add_column("label", labels)
