"""The specialists and joint models of the study, trained where they are not there yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data import split, training_records
from settings import BATCH, JOINT, LEARNING_RATE, MAX_LENGTH, Setting


def base_model() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    from selfpos.storage.locate import locate_model

    return locate_model("all-MiniLM-L6-v2")


def fit(base: Path, records: dict[str, Any], out: Path, steps: int, setting: Setting, **options: Any) -> None:
    """Train `out` from `base` with the batches and lengths of the study and the rate of `setting`.

    `records` has (type, records) of each task; `options` are those of `selfpos.training.train`.
    """
    from selfpos.recipe import TrainingSettings
    from selfpos.training import train

    training = TrainingSettings(
        steps=steps, batch_size=BATCH, learning_rate=setting.rate, max_length=MAX_LENGTH
    )
    train(base, records, out, training, **options)


def specialists(setting: Setting, seed: int, data: Path, models: Path) -> list[Path]:
    """The specialists of a setting, strays last. Settings share those of equal data and length."""
    folders = []
    for task, steps in {**setting.steps, **setting.strays}.items():
        size = f"-of-{setting.sizes[task]}" if task in setting.sizes else ""
        rate = f"-at-{setting.rate:.0e}" if setting.rate != LEARNING_RATE else ""
        out = models / f"seed{seed}" / f"{task}-{steps}{size}{rate}"
        if not out.exists():
            records = {task: training_records(task, setting, seed, data)}
            fit(base_model(), records, out, steps, setting, seed=seed, name=task)
        folders.append(out)
    return folders


def joint(name: str, label: str, setting: Setting, seed: int, data: Path, models: Path) -> Path:
    """The joint model `name` of the setting called `label`, of as many draws as its specialists together."""
    from datasets import concatenate_datasets

    from selfpos.recipe import MixtureSettings

    out = models / f"seed{seed}" / f"{name}-{label}"
    if out.exists():
        return out
    mixture = MixtureSettings.model_validate(JOINT[name])
    tasks = [*setting.steps, *setting.strays]
    steps = setting.draws // BATCH
    if mixture.surgery:
        steps //= len(tasks)  # a step takes a batch of every task
    records = {task: training_records(task, setting, seed, data) for task in tasks}
    if name == "joint-on-probe":
        for task in setting.steps:
            task_type, dataset = records[task]
            records[task] = task_type, concatenate_datasets([dataset, split(task, seed, data)[2]])
    fit(base_model(), records, out, steps, setting, seed=seed, mixture=mixture, name=name)
    return out
