"""A recipe becomes a graph of jobs: trainings → task vectors → merges → scores → table, cards and report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfpos.console import log, log_to
from selfpos.data.tasks import TaskData, read_tasks, split_tasks
from selfpos.errors import SelfposError
from selfpos.jobs.job import Executor, Job, execute, locked, refuse_foreign, refuse_other, unfinished
from selfpos.pipeline.checks import (
    check_installed,
    check_merges,
    check_probe,
    check_prompts,
    check_retained,
    check_trainings,
    checked_base,
    needs_probe,
    retain_settings,
    task_types,
)
from selfpos.pipeline.forecast import RunPlan
from selfpos.pipeline.tables import write_geometry, write_pipelines, write_table
from selfpos.pipeline.trainings import SEPARATE, Training, plan_trainings
from selfpos.recipe import MergeSettings, MixtureSettings, Recipe, ResourceSettings, TrainingSettings
from selfpos.recipe.merging import RETAIN
from selfpos.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.data.probe import ProbeTask
    from selfpos.overlap.contamination import ContaminationCheck


def run_recipe(
    recipe: Recipe, out: str | Path, *, data_root: str | Path | None = None, executor: Executor = execute
) -> RunFolder:
    """Carry out `recipe` in the folder `out`. Jobs that an earlier start finished are kept.

    Args:
        recipe: what is trained, merged and scored.
        out: the folder of the run.
        data_root: folder in which tasks look for the data that their field `local` names.
        executor: does the unfinished jobs, in this process or on a cluster.

    Returns:
        The run's folder.

    Raises:
        SelfposError: the recipe has a mistake; nothing has been trained or written then.
    """
    from selfpos.storage.atomic import write_text

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SelfposError(
            "a run does one job after the other in one process: start `selfpos run` by itself, or on a "
            "cluster with --ray; torchrun and accelerate can start `selfpos finetune` and `selfpos merge "
            "--method self-positioning`"
        )
    folder = RunFolder(Path(out))
    graph, check = _prepared(recipe, folder, None if data_root is None else Path(data_root))
    jobs = graph.jobs()
    with locked(folder), log_to(folder.log):
        refuse_foreign(jobs, folder)
        write_text(folder.recipe, recipe.as_yaml())
        if check is not None:
            check.write(folder.overlap)
            folder.overlap_section.parent.mkdir(exist_ok=True)
            write_text(folder.overlap_section, check.section())
        executor(jobs, folder)
    return folder


def plan_run(recipe: Recipe, out: Path, *, data_root: Path | None = None) -> RunPlan:
    """What `run_recipe` would do, after all its checks; writes nothing."""
    folder = RunFolder(out)
    graph, _ = _prepared(recipe, folder, data_root)
    return graph.plan()


def _prepared(
    recipe: Recipe, folder: RunFolder, data_root: Path | None
) -> tuple[_Graph, ContaminationCheck | None]:
    """The graph of the run and its contamination check, once all that can be refused before has been."""
    from selfpos.evaluation.select import recipe_tasks
    from selfpos.evaluation.wrapped import check_suited
    from selfpos.overlap.contamination import open_check
    from selfpos.storage.hashing import content_hash
    from selfpos.storage.locate import locate_model

    check_installed(recipe)
    base = locate_model(recipe.base)
    check_merges(recipe, checked_base(recipe, base))
    tasks = read_tasks(recipe, data_root, task_types(recipe, base))
    data = split_tasks(recipe, tasks)
    check_prompts(recipe, base, data)
    check_trainings(recipe, data)
    check_probe(recipe, data)
    check_retained(recipe, base, data, data_root)
    evaluation = recipe_tasks(recipe.evaluation, data_root)
    check_suited(base, evaluation)
    check = None
    if recipe.overlap is not None:
        check = open_check(recipe.overlap, evaluation)
        data = split_tasks(recipe, tasks, check.inspect)
        check_probe(recipe, data)
    return _Graph(recipe, folder, base, content_hash(base), data, evaluation, data_root), check


@dataclass(frozen=True)
class _Graph:
    """The jobs of one recipe."""

    recipe: Recipe
    folder: RunFolder
    base: Path
    base_hash: str
    data: dict[str, TaskData]
    evaluation: list[Any]
    data_root: Path | None

    def jobs(self) -> list[Job]:
        """All jobs, each after those that it needs."""
        from selfpos.report import report_of_run

        trainings = self._trainings
        merges = [self._merge_job(name, merge) for name, merge in self.recipe.merges.items()]
        models: dict[str, tuple[Path, tuple[str, ...]]] = {"base": (self.base, ())}
        models |= {training.name: (training.out, (training.job,)) for training in trainings.values()}
        models |= {
            name: (job.output, (job.name,)) for name, job in zip(self.recipe.merges, merges, strict=True)
        }
        scores = [self._score_job(name, model, after) for name, (model, after) in models.items()]
        scored = tuple(job.name for job in scores)
        table = self._derived(
            "table", self.folder.table, partial(write_table, self.folder, list(models)), scored
        )
        folders = {name: [training.out for training in trained] for name, trained in self._pipelines.items()}
        equal = self.recipe.budget.equal if self.recipe.budget else None
        work = partial(write_pipelines, self.folder, folders, equal)
        pipelines = self._derived("pipelines", self.folder.pipelines, work, tuple(trainings))
        cards = [self._card_job(name) for name in self.recipe.merges]
        last = ("table", "vectors", "pipelines")
        report = self._derived("report", self.folder.report, partial(report_of_run, self.folder), last)
        trained_jobs = [self._training_job(training) for training in trainings.values()]
        before_merges = [*trained_jobs, self._probe_job(), self._geometry_job()]
        return [*before_merges, *merges, *scores, pipelines, table, *cards, report]

    def plan(self) -> RunPlan:
        """The jobs, and what they are done with. Raises SelfposError where the folder is not the run's."""
        refuse_other(self.folder)
        jobs = self.jobs()
        left = {job.name for job in unfinished(jobs, self.folder)}
        return RunPlan(
            recipe=self.recipe,
            base=self.base,
            out=self.folder.path,
            data=self.data,
            trainings=list(self._trainings.values()),
            models=[job.name.removeprefix("scores/") for job in jobs if job.name.startswith("scores/")],
            tasks=self.evaluation,
            jobs=[job.name for job in jobs],
            finished=frozenset(job.name for job in jobs if job.name not in left),
        )

    @staticmethod
    def _derived(name: str, output: Path, work: Callable[[], object], after: tuple[str, ...]) -> Job:
        return Job(name, {}, output, work, after, derived=True)

    @cached_property
    def _pipelines(self) -> dict[str, list[Training]]:
        sizes = {task: len(data.training) for task, data in self.data.items()}
        return plan_trainings(self.recipe, self.folder, sizes)

    @property
    def _trainings(self) -> dict[str, Training]:
        """Each training by its job, also one that is of two pipelines."""
        return {training.job: training for trained in self._pipelines.values() for training in trained}

    @property
    def _held_out(self) -> int | dict[str, int]:
        """How many records of each task the probe holds out: one number where all tasks have as many."""
        probe = self.recipe.probe
        if probe.split is not None:
            return 0
        return probe.counts(self.recipe.tasks) if probe.ratio else probe.per_task

    def _training_job(self, training: Training) -> Job:
        data = {task: self.data[task] for task in training.tasks}
        inputs: dict[str, Any] = {
            "base": self.base_hash,
            "data": {task: task_data.hash for task, task_data in data.items()},
            "types": {task: task_data.type.name for task, task_data in data.items()},
            "sources": {task: task_data.deciding() for task, task_data in data.items()},
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
        work = partial(self._train, training)
        return Job(training.job, inputs, training.out, work, after, **self._resources("training"))

    def _resources(self, kind: Literal["training", "merging", "evaluation"]) -> dict[str, Any]:
        return self.recipe.resources.get(kind, ResourceSettings()).model_dump()

    def _settings(self, training: Training) -> TrainingSettings:
        return self.recipe.training.model_copy(update={"steps": training.steps})

    def _seed(self, training: Training) -> int:
        return (self.recipe.seed + training.variant) % 2**32

    def _train(self, training: Training) -> None:
        from selfpos.training import train
        from selfpos.training.samplers import random_part

        seed = self._seed(training)
        data = {task: self.data[task] for task in training.tasks}
        records = {}
        for task, task_data in data.items():
            part = random_part(self._records(task_data, training.on_probe), training.share, seed)
            records[task] = (task_data.type, part)
        train(
            self.base,
            records,
            training.out,
            self._settings(training),
            seed=seed,
            mixture=training.mixture,
            start=training.start.out if training.start else None,
            name=training.name,
            validation={
                task: task_data.validation
                for task, task_data in data.items()
                if task_data.validation is not None
            },
            prompts={task: task_data.source.prompts for task, task_data in data.items()},
            provenance={"data": {task: self._report(task) for task in data}},
        )

    def _records(self, data: TaskData, on_probe: bool) -> Dataset:
        """The records that one task is trained on, with hard negatives where the recipe mines them."""
        from datasets import concatenate_datasets

        from selfpos.training.negatives import mine

        records = concatenate_datasets([data.training, data.probe]) if on_probe else data.training
        if data.source.mine is None:
            return records
        task_type = data.type.under(self.recipe.training)
        return mine(records, task_type, data.source.mine, self.base, data.source.prompts, self.recipe.seed)

    def _report(self, task: str) -> dict[str, Any]:
        """Statistics of one task's data; logged as well."""
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
        folders = [training.out for training in specialists]
        work = partial(write_geometry, self.base, folders, self.folder.geometry)
        return Job("vectors", {}, self.folder.geometry, work, tuple(training.job for training in specialists))

    def _merge_job(self, name: str, merge: MergeSettings) -> Job:
        inputs = {"merge": merge.model_dump(mode="json"), "seed": self.recipe.seed}
        after = tuple(training.job for training in self._pipelines[merge.vectors])
        if needs_probe(merge):
            after = (*after, "probe")
        make = self._retain if merge.method == RETAIN else self._merge
        work = partial(make if merge.search is None else self._position_and_merge, name, merge)
        return Job(
            f"merge/{name}", inputs, self.folder.merged(name), work, after, **self._resources("merging")
        )

    def _merge(self, name: str, merge: MergeSettings) -> None:
        from selfpos.operations import merge as merge_models

        merge_models(
            self.recipe.base,
            self._vectors(merge),
            merge.method,
            self.folder.merged(name),
            probe=self._probe() if needs_probe(merge) else None,
            weights=merge.weights,
            params=merge.params,
            seed=self.recipe.seed,
        )

    def _position_and_merge(self, name: str, merge: MergeSettings) -> None:
        from selfpos.searched_merge import position_and_merge

        assert merge.search is not None
        position_and_merge(
            self.recipe.base,
            self._vectors(merge),
            self._probe(),
            merge.search,
            self.folder.merged(name),
            seed=self.recipe.seed,
            record=self.folder.position(name),
            trajectory=self.folder.trajectory(name),
            coefficients=self.folder.coefficients(name),
            keep_interrupted=False,
        )

    def _retain(self, name: str, merge: MergeSettings) -> None:
        from selfpos.retaining import retain

        settings = retain_settings(self.recipe, merge, self.data_root)
        domain = settings.domain or [str(self.folder.probe)]
        settings = settings.model_copy(update={"domain": domain})
        retain(self.recipe.base, self._vectors(merge), self.folder.merged(name), settings, say=log.info)

    def _probe(self) -> dict[str, ProbeTask]:
        from selfpos.data.probe import read_probe

        return read_probe(self.folder.probe)

    def _vectors(self, merge: MergeSettings) -> list[Path]:
        return [training.out for training in self._pipelines[merge.vectors]]

    def _card_job(self, name: str) -> Job:
        """The card of a merge is written with it, and again when its scores are known."""
        from selfpos.publishing.card import write_card

        merged = self.folder.merged(name)
        after = (f"merge/{name}", "table")
        return self._derived(f"card/{name}", merged / "README.md", partial(write_card, merged), after)

    def _score_job(self, name: str, model: Path, after: tuple[str, ...]) -> Job:
        from selfpos.evaluation import task_identity

        inputs = {"base": self.base_hash, "tasks": [task_identity(task) for task in self.evaluation]}
        work, resources = partial(self._score, name, model), self._resources("evaluation")
        return Job(
            f"scores/{name}", inputs, self.folder.scores(name), work, after, continues=True, **resources
        )

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
