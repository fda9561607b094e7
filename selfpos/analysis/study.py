"""`selfpos analyse`: the measurements of one run or recipe, each a job that is kept once done, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import log_to, progress
from selfpos.errors import SelfposError, unknown
from selfpos.jobs.job import Job, execute, locked
from selfpos.recipe import AnalysisSettings, Recipe, load_recipe
from selfpos.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from selfpos.data.tasks import TaskData
    from selfpos.positioning.live import LiveModel
    from selfpos.tasks import TaskType

BASE = "base"


@dataclass(frozen=True)
class Findings:
    """Everything that an analysis found, read back from its folder; what was not measured is empty or None.

    `gradients`: point → {"pairs", "tasks", "layers", "batches", …} as `measure_point` writes them. `dominance`: joint model → who leads it.
    """

    name: str
    records: str
    gradients: dict[str, dict[str, Any]] = field(default_factory=dict)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    vectors: list[dict[str, Any]] = field(default_factory=list)
    dominance: dict[str, dict[str, Any]] = field(default_factory=dict)
    arms: list[dict[str, Any]] = field(default_factory=list)
    law: dict[str, Any] | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def rivals(self) -> list[str]:
        """The joint models of which there are scores."""
        return list(dict.fromkeys(gap["rival"] for gap in self.gaps))


def analyse(
    target: Path,
    settings: AnalysisSettings | None = None,
    *,
    out: Path | None = None,
    data_root: Path | None = None,
) -> tuple[Path, Findings]:
    """Measure the run in the folder `target`, or what the recipe `target` would train: gradients at the base and, of a run, at its specialists and its
    joint models (or at `settings.points` of these); scores, lengths and angles of a run; with `settings.arms` small specialists of either. Returns the folder written, and the findings.

    The folder is `out`, `<run>/analysis` when absent, or `checkpoints/<recipe>-analysis`. Measurements already there are kept; `data_root` is needed
    where the run was given it and training records are read. Memory: one model, one backward pass, and `settings.memory` GiB of gradients.
    Raises SelfposError when `target` is neither, or its data cannot be read or drawn from.
    """
    study = _study(target, settings or AnalysisSettings(), out, data_root)
    with locked(study.folder), log_to(study.folder.log):
        study.folder.recipe.write_text(study.recipe_text, encoding="utf-8")
        execute(study.jobs(), study.folder)
        from selfpos.analysis.write import write_findings

        found = study.findings()
        write_findings(study.folder.path, found)
    return study.folder.path, found


def _study(target: Path, settings: AnalysisSettings, out: Path | None, data_root: Path | None) -> Study:
    if target.is_dir():
        run = RunFolder(target)
        if not run.recipe.is_file():
            raise SelfposError(
                f"{target} is no run: it has no {run.recipe.name}; give a run's folder, or a recipe"
            )
        recipe = load_recipe(run.recipe)
        return Study(recipe, run, RunFolder(out or target / "analysis"), settings, data_root)
    if not target.is_file():
        raise SelfposError(f"there is no run folder and no recipe {target}")
    recipe = load_recipe(target)
    return Study(
        recipe, None, RunFolder(out or Path("checkpoints") / f"{recipe.name}-analysis"), settings, data_root
    )


@dataclass(frozen=True)
class Study:
    """One analysis. `run` is absent for a recipe of which nothing was trained yet."""

    recipe: Recipe
    run: RunFolder | None
    folder: RunFolder
    settings: AnalysisSettings
    data_root: Path | None

    @property
    def recipe_text(self) -> str:
        import yaml

        return yaml.safe_dump(self.recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False)

    @cached_property
    def base(self) -> Path:
        from selfpos.storage.locate import locate_model

        return locate_model(self.recipe.base)

    @cached_property
    def models(self) -> dict[str, Path]:
        """The specialists and the joint models that the run has finished."""
        if self.run is None:
            return {}
        places = {task: self.run.specialist(task) for task in self.recipe.tasks} | {
            name: self.run.rival(name) for name in self.recipe.joints
        }
        return {name: place for name, place in places.items() if place.is_dir()}

    @property
    def specialists(self) -> list[str]:
        return [name for name in self.models if name in self.recipe.tasks]

    @cached_property
    def points(self) -> list[str]:
        """Where gradients are measured. Raises SelfposError for a point of the settings that is no model of the run."""
        every = [BASE, *self.models]
        for point in self.settings.points:
            if point not in every:
                raise unknown("point", point, every)
        return list(dict.fromkeys(self.settings.points)) or every

    @cached_property
    def data(self) -> dict[str, TaskData]:
        from selfpos.data.tasks import load_tasks

        return load_tasks(self.recipe, self.data_root)

    @cached_property
    def measured(self) -> dict[str, tuple[TaskType, Dataset]]:
        """The records whose gradients are measured."""
        if self.settings.records == "training":
            return {name: (task.type, task.training) for name, task in self.data.items()}
        if self.run is not None and self.run.probe.is_dir():
            from selfpos.data.probe import read_probe

            return {name: (task.type, task.records) for name, task in read_probe(self.run.probe).items()}
        return {name: (task.type, task.probe) for name, task in self.data.items()}

    @cached_property
    def live(self) -> LiveModel:
        """The base with the specialists and the joint models as vectors: it can stand at any of the points."""
        import torch

        from selfpos.console import quiet_libraries
        from selfpos.positioning.live import LiveModel
        from selfpos.storage.model_folder import open_model
        from selfpos.vectors import open_vectors

        base = open_model(self.base)
        vectors = open_vectors(base, list(self.models.values()), names=list(self.models))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with quiet_libraries():
            return LiveModel(base, vectors, device=device, max_length=self.recipe.training.max_length)

    def jobs(self) -> list[Job]:
        from selfpos.data.sources import hash_records
        from selfpos.storage.hashing import content_hash

        inputs = {
            "base": content_hash(self.base),
            "records": {name: hash_records(records) for name, (_, records) in self.measured.items()},
            "training": self.recipe.training.model_dump(mode="json"),
            "seed": self.recipe.seed,
        }
        drawn = {"batches": self.settings.batches, "batch_size": self.settings.batch_size}
        hashes = {name: content_hash(folder) for name, folder in self.models.items()}
        found = [
            Job(
                f"gradients/{point}",
                inputs | drawn | {"point": hashes.get(point)},
                self.gradients(point),
                partial(self._measure, point),
                derived=True,
            )
            for point in self.points
        ]
        if self.models:
            found.append(
                Job(
                    "vectors", inputs | {"models": hashes}, self.folder.geometry, self._geometry, derived=True
                )
            )
        if self.settings.arms:
            found += self._arm_jobs(inputs)
        return found

    def gradients(self, point: str) -> Path:
        return self.folder.path / "gradients" / f"{point}.json"

    def arm(self, name: str) -> Path:
        return self.folder.path / "arms" / name

    def _measure(self, point: str) -> None:
        import torch

        names = list(self.models)
        if names:
            table = torch.zeros(len(self.live.keys), len(names), dtype=torch.float64)
            if point != BASE:
                table[:, names.index(point)] = 1
            self.live.set_coefficients(table)
        found = measure_point(
            self.live,
            self.measured,
            self.settings,
            temperature=self.recipe.training.temperature,
            seed=self.recipe.seed,
            title=point,
        )
        _write(self.gradients(point), found)

    def _geometry(self) -> None:
        from selfpos.storage.model_folder import open_model
        from selfpos.vectors import gram, open_vectors

        vectors = open_vectors(open_model(self.base), list(self.models.values()), names=list(self.models))
        _write(self.folder.geometry, {"names": list(self.models), "gram": gram(vectors).tolist()})

    def _arm_jobs(self, inputs: Mapping[str, Any]) -> list[Job]:
        found = []
        for task in self.recipe.tasks:
            for name, (records, steps, _) in self._arms(task).items():
                described = {**inputs, "data": self.data[task].hash, "records": records, "steps": steps}
                found.append(
                    Job(
                        f"arms/{name}",
                        described,
                        self.arm(name),
                        partial(self._train_arm, task, name, records, steps),
                    )
                )
        return found

    def _arms(self, task: str) -> dict[str, tuple[int, int, str]]:
        """The arms of a task: name → (records, steps, kind). The longest sees its records once; `epochs` arms see theirs once, `steps` arms go as long."""
        batch, longest = self.recipe.training.batch_size, self.settings.arm_steps
        most = min(len(self.data[task].training), longest * batch)
        longest = max(1, most // batch)
        arms: dict[str, tuple[int, int, str]] = {}
        for share in sorted(set(self.settings.arm_shares)):
            records = max(2 * batch, round(share * most))
            if records > most:
                raise SelfposError(
                    f"task {task} has {most} records to train arms on, too few for batches of {batch}; lower the batch size"
                )
            for steps, kind in ((max(1, records // batch), "equal epochs"), (longest, "equal steps")):
                arms.setdefault(
                    f"{task}-{records}-records-{steps}-steps",
                    (records, steps, kind if records < most else "longest"),
                )
        return arms

    def _train_arm(self, task: str, name: str, records: int, steps: int) -> None:
        import random

        from selfpos.training import train

        data = self.data[task]
        rows = sorted(random.Random(f"arms {self.recipe.seed}").sample(range(len(data.training)), records))
        settings = self.recipe.training.model_copy(update={"steps": steps})
        train(
            self.base,
            {task: (data.type, data.training.select(rows))},
            self.arm(name),
            settings,
            seed=self.recipe.seed,
            name=name,
        )

    def findings(self) -> Findings:
        from selfpos.analysis.balance import dominance, joint_gaps

        missing = []
        if self.run is not None:
            missing = [
                f"model {name}"
                for name in (*self.recipe.tasks, *self.recipe.joints)
                if name not in self.models
            ]
        gaps: list[Any] = []
        if self.run is not None and self.run.table.is_file():
            gaps = joint_gaps(
                _read(self.run.table)["scores"], list(self.recipe.tasks), list(self.recipe.joints)
            )
        elif self.run is not None:
            missing.append("scores")
        vectors: list[Any] = []
        lead: dict[str, Any] = {}
        if self.models:
            import numpy as np

            vectors, gram = self._vectors(), np.array(_read(self.folder.geometry)["gram"])
            names = list(self.models)
            for rival in (
                [name for name in names if name not in self.recipe.tasks] if self.specialists else []
            ):
                rows = [names.index(name) for name in (*self.specialists, rival)]
                lead[rival] = asdict(dominance(gram[np.ix_(rows, rows)], self.specialists))
        arms, law = self._arm_findings() if self.settings.arms else ([], None)
        gradients = {point: _read(self.gradients(point)) for point in self.points}
        return Findings(
            self.recipe.name,
            self.settings.records,
            gradients,
            [asdict(gap) for gap in gaps],
            vectors,
            lead,
            arms,
            law,
            missing,
        )

    def _vectors(self) -> list[dict[str, Any]]:
        """Length and angles of every model's vector, and what it was trained on, as far as its manifest says."""
        import numpy as np

        from selfpos.storage.manifest import read_manifest
        from selfpos.vectors import norms_and_cosines

        norms, cosines = norms_and_cosines(np.array(_read(self.folder.geometry)["gram"]))
        rows = []
        for place, (name, folder) in enumerate(self.models.items()):
            manifest = read_manifest(folder) or {}
            rows.append({
                "name": name,
                "norm": float(norms[place]),
                "records": sum(task["records"] for task in manifest.get("tasks", {}).values()) or None,
                "steps": manifest.get("steps"),
                "samples": manifest.get("samples"),
                "angles": {other: float(np.degrees(np.arccos(cosines[place, at]))) for at, other in enumerate(self.models) if at != place},
            })  # fmt: skip
        return rows

    def _arm_findings(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        import numpy as np

        from selfpos.analysis.balance import Arm, length_law
        from selfpos.storage.model_folder import open_model
        from selfpos.vectors import gram, norms_and_cosines, open_vectors

        found = []
        for task in self.recipe.tasks:
            arms = self._arms(task)
            norms, cosines = norms_and_cosines(
                gram(open_vectors(open_model(self.base), [self.arm(name) for name in arms]))
            )
            last = max(range(len(arms)), key=lambda place: list(arms.values())[place][:2])
            for place, (records, steps, kind) in enumerate(arms.values()):
                angle = float(np.degrees(np.arccos(cosines[place, last])))
                found.append(Arm(task, kind, records, steps, float(norms[place]), angle))
        law = length_law(found)
        return [asdict(arm) for arm in found], asdict(law) if law else None


def measure_point(
    live: LiveModel,
    records: Mapping[str, tuple[TaskType, Dataset]],
    settings: AnalysisSettings,
    *,
    temperature: float,
    seed: int = 0,
    title: str = BASE,
) -> dict[str, Any]:
    """The conflicts of all tasks at the weights that `live` holds: over the whole model ("pairs", "tasks") and in each layer ("layers").

    Batches are drawn with `seed`, the same at every point. Dropout is off, as `live` was made. Raises SelfposError where no batch can be drawn.
    """
    import numpy as np
    import torch

    from selfpos.analysis.conflict import pair_conflicts, task_gradients
    from selfpos.analysis.gradients import gradient_products, passes
    from selfpos.positioning.groups import layer_of
    from selfpos.positioning.objective import Batch, TaskProbe, texts_of

    probes = {
        name: TaskProbe(name, kind, kind.prepare(data, seed), temperature)
        for name, (kind, data) in records.items()
    }
    generator = torch.Generator().manual_seed(seed)
    owners = [name for name in probes for _ in range(settings.batches)]
    try:
        batches = [probes[name].draw(settings.batch_size, generator) for name in owners]
    except SelfposError as error:
        raise SelfposError(f"{error}; raise the probe's records per task, or change --batch-size") from None

    def loss_of(batch: Batch) -> Callable[[], torch.Tensor]:
        def loss() -> torch.Tensor:
            embeddings = live.embed(texts_of([batch]))
            return probes[batch.task].loss_of(
                batch, embeddings.split([len(column) for column in batch.columns])
            )

        return loss

    memory = int(settings.memory * (1 << 30))
    total = len(
        passes({key: parameter.numel() for key, parameter in live.parameters.items()}, len(owners), memory)
    ) * len(owners)
    with progress(f"gradients at {title}", total, unit="passes") as bar:
        found = gradient_products(
            live.parameters, [loss_of(batch) for batch in batches], memory=memory, each=lambda: bar.advance(1)
        )
    whole = np.zeros((len(owners), len(owners)))
    layers: dict[str, np.ndarray] = {}
    for key, gram in found.items():
        whole += gram
        layers[layer_of(key)] = layers.get(layer_of(key), np.zeros_like(whole)) + gram
    return {
        "batches": settings.batches,
        "batch_size": settings.batch_size,
        "pairs": _facts(pair_conflicts(whole, owners)),
        "tasks": {task: asdict(gradient) for task, gradient in task_gradients(whole, owners).items()},
        "layers": {layer: _facts(pair_conflicts(gram, owners)) for layer, gram in layers.items()},
    }


def _facts(pairs: Sequence[Any]) -> list[dict[str, Any]]:
    return [asdict(pair) | {"conflicting": pair.conflicting} for pair in pairs]


def _write(file: Path, found: Any) -> None:
    from selfpos.storage.atomic import write_text

    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(found, indent=1))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
