"""Fine-tune one specialist on one source: data → probe held out → trainer → a folder that says what made it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError
from selfpos.recipe import TaskSource, TrainingSettings, validate

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.training import TrainingResult


def finetune(
    base: str, source: TaskSource, out: Path, settings: TrainingSettings, *, probe: int = 256, seed: int = 0, say: Callable[[str], object] = print
) -> TrainingResult:
    """Train a specialist of `base` (folder or Hub name) on `source` and write it to `out`.

    `probe` records are held out of the training data; they can be drawn again with `probe_of`. Raises SelfposError on bad input or when `out` exists.
    """
    from selfpos.data.probe import hold_out
    from selfpos.data.sources import load_source
    from selfpos.storage.locate import locate_model
    from selfpos.tasks import get_task
    from selfpos.training import train

    if out.exists():
        raise SelfposError(f"{out} exists; choose another folder with --out, or remove it")
    kind = get_task(source.type)
    folder = locate_model(base)
    found = load_source(source.data, kind, split=source.split, columns=source.columns, data_root=None, limit=source.limit, seed=seed)
    say(f"data: {found.description}")
    training, _ = hold_out(found.dataset, probe, seed)
    remembered = {"source": source.model_dump(mode="json"), "hash": found.hash, "probe": probe, "seed": seed}
    return train(folder, {source.type: (kind, training)}, out, settings, seed=seed, name=out.name, base_name=base, provenance={"finetune": remembered})


def probe_of(specialists: Sequence[Path]) -> dict[str, ProbeTask]:
    """The probe records that `finetune` held out for each of `specialists`, drawn again from their sources.

    Raises SelfposError when a folder does not say what it was trained on, or its data has changed since.
    """
    from selfpos.data.probe import ProbeTask, hold_out
    from selfpos.data.sources import load_source
    from selfpos.storage.manifest import read_manifest
    from selfpos.tasks import get_task

    probes: dict[str, Any] = {}
    for folder in specialists:
        remembered = (read_manifest(folder) or {}).get("finetune")
        if not remembered or not remembered["probe"]:
            raise SelfposError(f"{folder} does not say which records were held out for a probe; give the probe set with --probe FOLDER")
        source = validate(TaskSource, remembered["source"], f"{folder}/selfpos.json")
        kind = get_task(source.type)
        found = load_source(
            source.data, kind, split=source.split, columns=source.columns, data_root=None, limit=source.limit, seed=remembered["seed"]
        )
        if found.hash != remembered["hash"]:
            raise SelfposError(f"the data of {folder} ({source.data}) has changed since it was trained; give a probe set with --probe FOLDER")
        _, probe = hold_out(found.dataset, remembered["probe"], remembered["seed"])
        probes[folder.name] = ProbeTask(folder.name, kind, probe)
    return probes
