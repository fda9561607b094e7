"""A recipe becomes a graph of jobs: specialists and joint rival → task vectors → merges → scores → table and report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfpos.console import log, log_to
from selfpos.data.tasks import TaskData, load_tasks
from selfpos.errors import SelfposError, unknown
from selfpos.jobs.job import Executor, Job, execute, locked, refuse_foreign
from selfpos.pipeline.trainings import SEPARATE, Training, plan_trainings
from selfpos.recipe import LEARNED, MergeSettings, MixtureSettings, Recipe, ResourceSettings, TrainingSettings
from selfpos.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from datasets import Dataset


# Of the table of pipelines: its name for what a training's manifest says.
SUMMED = {"draws": "samples", "steps": "steps", "tokens": "tokens", "seconds": "seconds"}
PEAKS = ("peak_memory_bytes", "peak_gpu_memory_bytes")


def run_recipe(
    recipe: Recipe, out: Path, *, data_root: Path | None = None, executor: Executor = execute
) -> RunFolder:
    """Carry out `recipe` in the folder `out` and return that folder.

    Finished jobs of an earlier start are kept; `executor` does the others, here or on a cluster. With `data_root`, tasks that name a `local` data set read it from there.
    Raises SelfposError on any mistake in the recipe, before anything is trained or written.
    """
    import yaml

    from selfpos.evaluation.select import recipe_tasks
    from selfpos.overlap.contamination import open_guard
    from selfpos.storage.atomic import write_text
    from selfpos.storage.hashing import content_hash
    from selfpos.storage.locate import locate_model
    from selfpos.storage.model_folder import open_model

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SelfposError(
            "a run does one job after the other in one process: start `selfpos run` by itself, on a cluster with --ray; "
            "`selfpos finetune` and `selfpos merge --method self-positioning` are what torchrun and accelerate can start"
        )
    base = locate_model(recipe.base)
    _check_methods(recipe, [key for key, entry in open_model(base).tensors.items() if entry.mergeable])
    data = load_tasks(recipe, data_root)
    _check_probe(recipe, data)
    evaluation = recipe_tasks(recipe.evaluation, data_root)
    guard = open_guard(recipe.overlap, evaluation)
    if (
        guard is not None
    ):  # a second time, for nothing has been read of mteb until the data was known to be right
        data = load_tasks(recipe, data_root, guard)
        _check_probe(recipe, data)
    folder = RunFolder(out)
    graph = _Graph(recipe, folder, base, content_hash(base), data, evaluation)
    with locked(folder), log_to(folder.log):
        jobs = graph.jobs()
        refuse_foreign(jobs, folder)
        write_text(
            folder.recipe, yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False)
        )
        if guard is not None:
            guard.write(folder.overlap)
            folder.overlap_section.parent.mkdir(exist_ok=True)
            write_text(folder.overlap_section, guard.section())
        executor(jobs, folder)
    return folder


def _check_methods(recipe: Recipe, keys: list[str]) -> None:
    """Refuse what no merge of the tensors `keys` could be made with, before anything is trained."""
    from selfpos.merging import METHODS, get_method
    from selfpos.merging.settings import make_settings

    counts = {"separate": len(recipe.tasks), "iterative": len(recipe.stages), "bagging": len(recipe.bags)}
    for name, merge in recipe.merges.items():
        if merge.method in LEARNED:
            continue
        if merge.method not in METHODS:
            raise unknown("merging method", merge.method, [*METHODS, *LEARNED])
        method = get_method(merge.method)
        try:
            method.check_count(counts[merge.vectors])
            make_settings(method, counts[merge.vectors], merge.weights, merge.params, keys)
        except SelfposError as error:
            raise SelfposError(f"recipe {recipe.name}, merge {name}: {error}") from None
    names = ["base", *recipe.tasks, *recipe.joints, *recipe.stages, *recipe.bags, *recipe.merges]
    twice = sorted(
        name
        for name in {*names}
        if names.count(name) > 1 or (name == "joint" and name in {*recipe.tasks, *recipe.merges})
    )
    if twice:
        raise SelfposError(
            f"recipe {recipe.name}: the name '{twice[0]}' stands for two models; rename the task, the joint rival or the merge"
        )


def _check_probe(recipe: Recipe, data: dict[str, TaskData]) -> None:
    """Refuse a probe set or ratios that no search, and no method that looks at data, could work with, before anything is trained."""
    from selfpos.data.probe import ProbeTask
    from selfpos.merging import METHODS
    from selfpos.positioning.position import check
    from selfpos.statistics import check_probe

    probe = {name: ProbeTask(name, task.type, task.probe, task.source.prompts) for name, task in data.items()}
    for name, merge in recipe.merges.items():
        try:
            if settings := merge.search:
                check(probe, settings, seed=recipe.seed)
            else:
                check_probe(METHODS[merge.method].probe, probe, recipe.seed)
        except SelfposError as error:
            raise SelfposError(f"recipe {recipe.name}, merge {name}: {error}") from None


@dataclass(frozen=True)
class _Graph:
    """The jobs of one recipe. Every method that ends in `_job` makes one; the functions below the class do the work."""

    recipe: Recipe
    folder: RunFolder
    base: Path
    base_hash: str
    data: dict[str, TaskData]
    evaluation: list[Any]

    def jobs(self) -> list[Job]:
        trainings = self._trainings()
        trained = [self._training_job(training) for training in trainings]
        merges = [self._merge_job(name, merge) for name, merge in self.recipe.merges.items()]
        models = {"base": (self.base, ())} | {
            training.name: (training.out, (training.job,)) for training in trainings
        }
        models |= {
            name: (job.output, (job.name,)) for name, job in zip(self.recipe.merges, merges, strict=True)
        }
        scores = [self._score_job(name, model, after) for name, (model, after) in models.items()]
        table = Job(
            "table",
            {},
            self.folder.table,
            partial(write_table, self.folder, list(models)),
            tuple(job.name for job in scores),
            derived=True,
        )
        pipelines = self._pipelines_job(tuple(job.name for job in trained))
        last = (table.name, "vectors", pipelines.name)
        report = Job(
            "report", {}, self.folder.report, partial(_write_report, self.folder), last, derived=True
        )
        cards = [self._card_job(name, table.name) for name in self.recipe.merges]
        return [
            *trained,
            self._probe_job(),
            self._geometry_job(),
            *merges,
            *scores,
            pipelines,
            table,
            *cards,
            report,
        ]

    @cached_property
    def _pipelines(self) -> dict[str, list[Training]]:
        return plan_trainings(
            self.recipe, self.folder, {task: len(data.training) for task, data in self.data.items()}
        )

    @property
    def _held_out(self) -> int | dict[str, int]:
        """The probe records of each task that its training goes without: one number where all have as many."""
        probe = self.recipe.probe
        if probe.split is not None:
            return 0
        return probe.counts(self.recipe.tasks) if probe.ratio else probe.per_task

    def _trainings(self) -> list[Training]:
        """All trainings, each once."""
        return list(
            {
                training.job: training for pipeline in self._pipelines.values() for training in pipeline
            }.values()
        )

    def _training_job(self, training: Training) -> Job:
        inputs: dict[str, Any] = {
            "base": self.base_hash,
            "data": {task: self.data[task].hash for task in training.tasks},
            "types": {task: self.data[task].type.name for task in training.tasks},
            "sources": {task: self.data[task].decides() for task in training.tasks},
            "training": self._settings(training).that_decide(),
            "probe": self._held_out,
            "seed": self._seed(training),
        }
        if training.mixture is not None:
            inputs["mixture"] = training.mixture.model_dump(
                mode="json", include=set(MixtureSettings.model_fields)
            )
        if training.share < 1:
            inputs["share"] = training.share
        if training.on_probe:
            inputs["on_probe"] = True
        after = (training.start.job,) if training.start else ()
        return Job(
            training.job,
            inputs,
            training.out,
            partial(self._train, training),
            after,
            **self._resources("training"),
        )

    def _resources(self, kind: Literal["training", "merging", "evaluation"]) -> dict[str, Any]:
        return self.recipe.resources.get(kind, ResourceSettings()).model_dump()

    def _settings(self, training: Training) -> TrainingSettings:
        return self.recipe.training.model_copy(update={"steps": training.steps})

    def _seed(self, training: Training) -> int:
        return (self.recipe.seed + training.variant) % 2**32

    def _train(self, training: Training) -> None:
        from selfpos.training import train
        from selfpos.training.bagging import random_part

        seed = self._seed(training)
        chosen = {task: self.data[task] for task in training.tasks}
        records = {
            task: (found.type, random_part(self._records(found, training.on_probe), training.share, seed))
            for task, found in chosen.items()
        }
        train(
            self.base, records, training.out, self._settings(training), seed=seed, mixture=training.mixture,
            start=training.start.out if training.start else None, name=training.name,
            validation={task: found.validation for task, found in chosen.items() if found.validation is not None},
            prompts={task: found.source.prompts for task, found in chosen.items()},
            provenance={"data": {task: self._report(task) for task in chosen}},
        )  # fmt: skip

    def _pipelines_job(self, trained: tuple[str, ...]) -> Job:
        folders = {
            name: [training.out for training in trainings] for name, trainings in self._pipelines.items()
        }
        held = self.recipe.budget.equal if self.recipe.budget else None
        return Job(
            "pipelines",
            {},
            self.folder.pipelines,
            partial(write_pipelines, self.folder, folders, held),
            trained,
            derived=True,
        )

    def _records(self, data: TaskData, on_probe: bool) -> Dataset:
        """The records that one task is trained on, with hard negatives where they are asked for."""
        from datasets import concatenate_datasets

        from selfpos.training.negatives import mine

        records = concatenate_datasets([data.training, data.probe]) if on_probe else data.training
        if data.source.mine is None:
            return records
        kind = data.type.under(self.recipe.training)
        return mine(records, kind, data.source.mine, self.base, data.source.prompts, self.recipe.seed)

    def _report(self, task: str) -> dict[str, Any]:
        """What one task's data is like; logged as well."""
        from selfpos.data.report import describe_data, report_lines

        report = describe_data(self.data[task].loaded, self.data[task].type, self.base)
        log.info("data of %s: %s", task, "; ".join([self.data[task].description, *report_lines(report)]))
        return report

    def _probe_job(self) -> Job:
        from selfpos.data.sources import hash_records

        hashes = {task: hash_records(data.probe) for task, data in self.data.items()}
        inputs = {
            "data": {task: data.hash for task, data in self.data.items()},
            "per_task": self._held_out or hashes,
            "prompts": {task: data.source.prompts for task, data in self.data.items()},
            "seed": self.recipe.seed,
        }
        return Job("probe", inputs, self.folder.probe, self._write_probe)

    def _write_probe(self) -> None:
        from selfpos.data.probe import write_probe

        probe = {task: data.probe for task, data in self.data.items()}
        types = {task: data.type for task, data in self.data.items()}
        prompts = {task: data.source.prompts for task, data in self.data.items()}
        write_probe(self.folder.probe, probe, types, prompts)

    def _geometry_job(self) -> Job:
        specialists = self._pipelines[SEPARATE]
        work = partial(
            write_geometry, self.base, [training.out for training in specialists], self.folder.geometry
        )
        return Job("vectors", {}, self.folder.geometry, work, tuple(training.job for training in specialists))

    def _merge_job(self, name: str, merge: MergeSettings) -> Job:
        inputs = {"merge": merge.model_dump(mode="json"), "seed": self.recipe.seed}
        learned = merge.search is not None
        work: Callable[[], None] = partial(self._position_and_merge if learned else self._merge, name, merge)
        trained = tuple(training.job for training in self._pipelines[merge.vectors])
        after = (*trained, "probe") if learned or _needs_probe(merge) else trained
        return Job(
            f"merge/{name}", inputs, self.folder.merged(name), work, after, **self._resources("merging")
        )

    def _merge(self, name: str, merge: MergeSettings) -> None:
        from selfpos.data.probe import read_probe
        from selfpos.operations import merge as merge_models

        probe = read_probe(self.folder.probe) if _needs_probe(merge) else None
        merge_models(
            self.recipe.base, self._vectors(merge), merge.method, self.folder.merged(name), probe=probe,
            weights=merge.weights, params=merge.params, seed=self.recipe.seed,
        )  # fmt: skip

    def _position_and_merge(self, name: str, merge: MergeSettings) -> None:
        from selfpos.data.probe import read_probe
        from selfpos.operations import position_and_merge

        assert merge.search is not None
        position_and_merge(
            self.recipe.base, self._vectors(merge), read_probe(self.folder.probe), merge.search,
            self.folder.merged(name), seed=self.recipe.seed, record=self.folder.position(name), trajectory=self.folder.trajectory(name),
            coefficients=self.folder.coefficients(name), keep_interrupted=False,
        )  # fmt: skip

    def _vectors(self, merge: MergeSettings) -> list[Path]:
        return [training.out for training in self._pipelines[merge.vectors]]

    def _card_job(self, name: str, table: str) -> Job:
        """The card that the merge was written with knew neither scores nor seconds: it is made anew when they are there."""
        from selfpos.publishing.card import write_card

        merged = self.folder.merged(name)
        return Job(
            f"card/{name}",
            {},
            merged / "README.md",
            partial(write_card, merged),
            (f"merge/{name}", table),
            derived=True,
        )

    def _score_job(self, name: str, model: Path, after: tuple[str, ...]) -> Job:
        from selfpos.evaluation import task_identity

        inputs = {"base": self.base_hash, "tasks": [task_identity(task) for task in self.evaluation]}
        work, asked = partial(self._score, name, model), self._resources("evaluation")
        return Job(f"scores/{name}", inputs, self.folder.scores(name), work, after, continues=True, **asked)

    def _score(self, name: str, model: Path) -> None:
        from selfpos.evaluation import evaluate

        evaluate(
            model,
            self.evaluation,
            self.folder.scores(name),
            name=f"{self.recipe.name}/{name}",
            batch_size=self.recipe.evaluation.batch_size,
            cache=self.folder.cache if self.recipe.evaluation.cache else None,
        )


def _needs_probe(merge: MergeSettings) -> bool:
    from selfpos.merging import get_method

    return bool(get_method(merge.method).probe)


def write_geometry(base: Path, sources: list[Path], out: Path) -> None:
    """Write the Gram matrix of the task vectors of `sources` as JSON: {"names": N names, "gram": N×N inner products}."""
    from selfpos.storage.atomic import write_text
    from selfpos.storage.model_folder import open_model
    from selfpos.vectors import gram, open_vectors

    vectors = open_vectors(open_model(base), sources)
    write_text(
        out,
        json.dumps({"names": [vector.name for vector in vectors], "gram": gram(vectors).tolist()}, indent=1),
    )


def write_pipelines(folder: RunFolder, pipelines: Mapping[str, list[Path]], held: str | None) -> None:
    """Add up what the trainings of each pipeline took, from their manifests, as JSON.

    {"equal": what was held equal or null, "pipelines": {name: {"trainings", "draws", "steps", "tokens", "seconds", "peak_memory_bytes", and on
    a GPU "peak_gpu_memory_bytes"}}}: sums, and the largest peak. A training of two pipelines counts in both.
    """
    from selfpos.storage.atomic import write_text
    from selfpos.storage.manifest import read_manifest

    table = {}
    for name, outputs in pipelines.items():
        manifests = [read_manifest(out) or {} for out in outputs]
        sums = {key: sum(found[field] for found in manifests) for key, field in SUMMED.items()}
        peaks = {
            key: max(found[key] for found in manifests)
            for key in PEAKS
            if all(key in found for found in manifests)
        }
        table[name] = {"trainings": len(outputs), **sums, "seconds": round(sums["seconds"], 3), **peaks}
    write_text(folder.pipelines, json.dumps({"equal": held, "pipelines": table}, indent=1))


def write_table(folder: RunFolder, models: list[str]) -> None:
    """Gather the scores of `models` from their MTEB files into one JSON table: {"tasks": …, "scores": {model: {task: main score}}}."""
    from selfpos.evaluation import read_scores
    from selfpos.storage.atomic import write_text

    scores = {model: read_scores(folder.scores(model)) for model in models}
    kinds = {
        task: {"type": score.type, "metric": score.metric}
        for found in scores.values()
        for task, score in found.items()
    }
    table = {
        "tasks": kinds,
        "scores": {
            model: {task: score.main_score for task, score in found.items()}
            for model, found in scores.items()
        },
    }
    write_text(folder.table, json.dumps(table, indent=1))


def _write_report(folder: RunFolder) -> None:
    from selfpos.report import write_report

    write_report(folder)
