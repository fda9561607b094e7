"""`selfpos analyse`: the measurements of one run or recipe, each a job that is kept once done."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.analysis.findings import Findings, ShortTraining, length_law, write_findings
from selfpos.console import log_to, progress, quiet_libraries
from selfpos.devices import default_device
from selfpos.errors import SelfposError, unknown
from selfpos.jobs.job import Job, execute, locked
from selfpos.recipe import AnalysisSettings, Recipe, load_recipe
from selfpos.recipe.shipped import shipped_recipes
from selfpos.storage.atomic import write_text
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import locate_model
from selfpos.storage.manifest import read_json, read_manifest
from selfpos.storage.model_class import check_embeds
from selfpos.storage.run_folder import RunFolder
from selfpos.vectors.names import layer_name

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from selfpos.data.tasks import TaskData
    from selfpos.positioning.live import LiveModel
    from selfpos.positioning.objective import Batch
    from selfpos.tasks import TaskType

BASE = "base"


def analyse(
    target: Path,
    settings: AnalysisSettings | None = None,
    *,
    out: Path | None = None,
    data_root: Path | None = None,
) -> tuple[Path, Findings]:
    """Measure gradient conflict, and the lengths and angles of the vectors, of a run or of a recipe.

    Measurements of an earlier start are kept. Memory: one model, one backward pass and `settings.memory` GiB.

    Args:
        target: a run folder, or a recipe (as `load_recipe` finds it) of which only the base can be measured.
        settings: what is measured, and on how many batches.
        out: `<run>/analysis` when absent, or `checkpoints/<recipe>-analysis`.
        data_root: as for `run_recipe`, where training records are read.

    Returns:
        The folder written, and the findings.

    Raises:
        SelfposError: `target` is neither, or its data cannot be read or drawn from.
    """
    study = _open_study(target, settings or AnalysisSettings(), out, data_root)
    with locked(study.folder), log_to(study.folder.log):
        study.folder.recipe.write_text(study.recipe.as_yaml(), encoding="utf-8")
        execute(study.jobs(), study.folder)
        findings = study.findings()
        write_findings(study.folder.path, findings)
    return study.folder.path, findings


def _open_study(target: Path, settings: AnalysisSettings, out: Path | None, data_root: Path | None) -> Study:
    if target.is_dir():
        run = RunFolder(target)
        if not run.recipe.is_file():
            raise SelfposError(
                f"{target} is no run: it has no {run.recipe.name}; name a run's folder, or a recipe"
            )
        folder = RunFolder(out or target / "analysis")
        return Study(load_recipe(run.recipe), run, folder, settings, data_root)
    if not target.is_file() and str(target) not in shipped_recipes():
        raise SelfposError(f"there is no run folder and no recipe {target}")
    recipe = load_recipe(target)
    folder = RunFolder(out or Path("checkpoints") / f"{recipe.name}-analysis")
    return Study(recipe, None, folder, settings, data_root)


@dataclass(frozen=True)
class Study:
    """One analysis. `run` is None for a recipe that has not been run."""

    recipe: Recipe
    run: RunFolder | None
    folder: RunFolder
    settings: AnalysisSettings
    data_root: Path | None

    @cached_property
    def base(self) -> Path:
        base = locate_model(self.recipe.base)
        check_embeds(base)
        return base

    @cached_property
    def models(self) -> dict[str, Path]:
        """The specialists and joint models that the run has finished."""
        if self.run is None:
            return {}
        folders = {task: self.run.specialist(task) for task in self.recipe.tasks}
        folders |= {name: self.run.rival(name) for name in self.recipe.joints}
        return {name: folder for name, folder in folders.items() if folder.is_dir()}

    @cached_property
    def points(self) -> list[str]:
        """The models at which gradients are measured. Raises SelfposError for one that is not in the run."""
        available = [BASE, *self.models]
        for point in self.settings.points:
            if point not in available:
                raise unknown("point", point, available)
        return list(dict.fromkeys(self.settings.points)) or available

    @cached_property
    def data(self) -> dict[str, TaskData]:
        from selfpos.data.tasks import load_tasks

        return load_tasks(self.recipe, self.data_root)

    @cached_property
    def records(self) -> dict[str, tuple[TaskType, Dataset]]:
        """The records whose gradients are measured."""
        if self.settings.records == "training":
            return {name: (task.type, task.training) for name, task in self.data.items()}
        if self.run is not None and self.run.probe.is_dir():
            from selfpos.data.probe import read_probe

            return {name: (task.type, task.records) for name, task in read_probe(self.run.probe).items()}
        return {name: (task.type, task.probe) for name, task in self.data.items()}

    @cached_property
    def live(self) -> LiveModel:
        """The base with all models as vectors: it can stand at any of the points."""

        from selfpos.positioning.live import LiveModel
        from selfpos.storage.model_folder import open_model
        from selfpos.vectors import open_vectors

        base = open_model(self.base)
        vectors = open_vectors(base, list(self.models.values()), names=list(self.models))
        device = default_device()
        with quiet_libraries():
            return LiveModel(base, vectors, device=device, max_length=self.recipe.training.max_length)

    def jobs(self) -> list[Job]:
        from selfpos.data.sources import hash_records
        from selfpos.pipeline.tables import write_geometry

        inputs = {
            "base": content_hash(self.base),
            "records": {name: hash_records(records) for name, (_, records) in self.records.items()},
            "training": self.recipe.training.model_dump(mode="json"),
            "seed": self.recipe.seed,
        }
        hashes = {name: content_hash(folder) for name, folder in self.models.items()}
        batches = {"batches": self.settings.batches, "batch_size": self.settings.batch_size}
        jobs = []
        for point in self.points:
            described = inputs | batches | {"point": hashes.get(point)}
            work = partial(self._measure, point)
            jobs.append(Job(f"gradients/{point}", described, self._gradients(point), work, derived=True))
        if self.models:
            described = inputs | {"models": hashes}
            models = list(self.models.values())
            work = partial(write_geometry, self.base, models, self.folder.geometry, list(self.models))
            jobs.append(Job("vectors", described, self.folder.geometry, work, derived=True))
        if self.settings.arms:
            for task in self.recipe.tasks:
                for name, (records, steps, _) in self._short_trainings(task).items():
                    described = inputs | {"data": self.data[task].hash, "records": records, "steps": steps}
                    work = partial(self._train, task, name, records, steps)
                    jobs.append(Job(f"arms/{name}", described, self._short_training(name), work))
        return jobs

    def _gradients(self, point: str) -> Path:
        return self.folder.path / "gradients" / f"{point}.json"

    def _short_training(self, name: str) -> Path:
        return self.folder.path / "arms" / name

    def _measure(self, point: str) -> None:
        import torch

        names = list(self.models)
        if names:
            coefficients = torch.zeros(len(self.live.keys), len(names), dtype=torch.float64)
            if point != BASE:
                coefficients[:, names.index(point)] = 1
            self.live.set_coefficients(coefficients)
        temperature, seed = self.recipe.training.temperature, self.recipe.seed
        measured = measure_point(
            self.live, self.records, self.settings, temperature=temperature, seed=seed, title=point
        )
        self._gradients(point).parent.mkdir(parents=True, exist_ok=True)
        write_text(self._gradients(point), json.dumps(measured, indent=1))

    def _short_trainings(self, task: str) -> dict[str, tuple[int, int, str]]:
        """The small specialists of a task: name → (records, steps, kind).

        The longest sees its records once; others see fewer records once ("equal epochs"), or for as many
        steps.
        """
        batch = self.recipe.training.batch_size
        most = min(len(self.data[task].training), self.settings.arm_steps * batch)
        longest = max(1, most // batch)
        trainings: dict[str, tuple[int, int, str]] = {}
        for share in sorted(set(self.settings.arm_shares)):
            records = max(2 * batch, round(share * most))
            if records > most:
                raise SelfposError(
                    f"task {task} has {most} records, too few for batches of {batch}; lower the batch size"
                )
            for steps, kind in ((max(1, records // batch), "equal epochs"), (longest, "equal steps")):
                name = f"{task}-{records}-records-{steps}-steps"
                trainings.setdefault(name, (records, steps, kind if records < most else "longest"))
        return trainings

    def _train(self, task: str, name: str, records: int, steps: int) -> None:
        from selfpos.training import train

        data = self.data[task]
        rows = sorted(random.Random(f"arms {self.recipe.seed}").sample(range(len(data.training)), records))
        chosen = {task: (data.type, data.training.select(rows))}
        settings = self.recipe.training.model_copy(update={"steps": steps})
        train(self.base, chosen, self._short_training(name), settings, seed=self.recipe.seed, name=name)

    def findings(self) -> Findings:
        missing = []
        if self.run is not None:
            names = (*self.recipe.tasks, *self.recipe.joints)
            missing = [f"model {name}" for name in names if name not in self.models]
        return Findings(
            name=self.recipe.name,
            records=self.settings.records,
            gradients={point: read_json(self._gradients(point)) for point in self.points},
            vectors=self._vectors() if self.models else [],
            missing=missing,
            **(self._length_findings() if self.settings.arms else {}),
        )

    def _vectors(self) -> list[dict[str, Any]]:
        """Length and angles of every model's vector, and what its manifest says that it was trained on."""
        from selfpos.vectors import norms_and_cosines

        norms, cosines = norms_and_cosines(np.array(read_json(self.folder.geometry)["gram"]))
        degrees = np.degrees(np.arccos(cosines))
        rows = []
        for index, (name, folder) in enumerate(self.models.items()):
            manifest = read_manifest(folder)
            angles = {other: float(degrees[index, at]) for at, other in enumerate(self.models) if at != index}
            row = {
                "name": name,
                "norm": float(norms[index]),
                "records": sum(task["records"] for task in manifest.get("tasks", {}).values()) or None,
                "steps": manifest.get("steps"),
                "samples": manifest.get("samples"),
                "angles": angles,
            }
            rows.append(row)
        return rows

    def _length_findings(self) -> dict[str, Any]:
        from selfpos.storage.model_folder import open_model
        from selfpos.vectors import gram, norms_and_cosines, open_vectors

        measured = []
        for task in self.recipe.tasks:
            trainings = self._short_trainings(task)
            folders = [self._short_training(name) for name in trainings]
            norms, cosines = norms_and_cosines(gram(open_vectors(open_model(self.base), folders)))
            sizes = [(records, steps) for records, steps, _ in trainings.values()]
            degrees = np.degrees(np.arccos(cosines[:, sizes.index(max(sizes))]))
            for (records, steps, kind), norm, angle in zip(trainings.values(), norms, degrees, strict=True):
                measured.append(ShortTraining(task, kind, records, steps, float(norm), float(angle)))
        return {"arms": measured, "law": length_law(measured)}


def measure_point(
    live: LiveModel,
    records: Mapping[str, tuple[TaskType, Dataset]],
    settings: AnalysisSettings,
    *,
    temperature: float,
    seed: int = 0,
    title: str = BASE,
) -> dict[str, Any]:
    """The conflicts of all tasks at the weights of `live`: over the whole model and in each layer.

    Batches are drawn with `seed`, the same at every point; dropout is off.
    """
    import torch

    from selfpos.analysis.gradients import gradient_products, pair_conflicts, passes, task_gradients
    from selfpos.positioning.objective import TaskProbe, texts_of

    probes = {}
    for name, (task_type, data) in records.items():
        probes[name] = TaskProbe(name, task_type, task_type.prepare(data, seed), temperature)
    generator = torch.Generator().manual_seed(seed)
    tasks = [name for name in probes for _ in range(settings.batches)]
    try:
        batches = [probes[name].draw(settings.batch_size, generator) for name in tasks]
    except SelfposError as error:
        raise SelfposError(f"{error}; raise the probe's records per task, or change --batch-size") from None

    def loss_of(batch: Batch) -> Callable[[], torch.Tensor]:
        def loss() -> torch.Tensor:
            columns = live.embed(texts_of([batch])).split([len(column) for column in batch.columns])
            return probes[batch.task].loss_of(batch, columns)

        return loss

    memory = int(settings.memory * (1 << 30))
    sizes = {key: parameter.numel() for key, parameter in live.parameters.items()}
    total = len(passes(sizes, len(tasks), memory)) * len(tasks)
    losses = [loss_of(batch) for batch in batches]
    with progress(f"gradients at {title}", total, unit="passes") as bar:
        products = gradient_products(live.parameters, losses, memory=memory, after_pass=bar.advance)
    layers: dict[str, np.ndarray] = {}
    for key, gram in products.items():
        layers[layer_name(key)] = layers.get(layer_name(key), 0) + gram
    whole = np.sum(list(products.values()), axis=0)

    def pairs_of(gram: np.ndarray) -> list[dict[str, Any]]:
        return [asdict(pair) | {"conflicting": pair.conflicting} for pair in pair_conflicts(gram, tasks)]

    return {
        "batches": settings.batches,
        "batch_size": settings.batch_size,
        "pairs": pairs_of(whole),
        "tasks": {task: asdict(gradient) for task, gradient in task_gradients(whole, tasks).items()},
        "layers": {layer: pairs_of(gram) for layer, gram in layers.items()},
    }
