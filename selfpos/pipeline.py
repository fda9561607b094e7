"""A recipe becomes a graph of jobs: specialists and joint rival → task vectors → merges → scores → table and report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import log, log_to
from selfpos.errors import SelfposError, unknown
from selfpos.jobs import Job, execute, locked, refuse_foreign
from selfpos.recipe import LEARNED, MergeSettings, Recipe, TaskSource
from selfpos.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.data.sources import LoadedSource
    from selfpos.guard import Guard
    from selfpos.tasks import TaskType


@dataclass(frozen=True)
class TaskData:
    """One task's records, split into those it is trained on and those of the probe set."""

    type: TaskType
    training: Dataset
    probe: Dataset
    hash: str
    description: str
    source: TaskSource
    loaded: LoadedSource
    validation: Dataset | None = None

    def decides(self) -> dict[str, Any]:
        """What of the source decides a training beside its records: prompts, mined negatives, the records validated on."""
        from selfpos.data.sources import hash_records

        found = self.source.model_dump(mode="json", include={"prompts", "mine"})
        return found | ({} if self.validation is None else {"validation": hash_records(self.validation)})


def run_recipe(recipe: Recipe, out: Path, *, data_root: Path | None = None) -> RunFolder:
    """Carry out `recipe` in the folder `out` and return that folder.

    Finished jobs of an earlier start are kept. With `data_root`, tasks that name a `local` data set read it from there.
    Raises SelfposError on any mistake in the recipe, before anything is trained or written.
    """
    import yaml

    from selfpos.guard import open_guard
    from selfpos.storage.atomic import write_text
    from selfpos.storage.hashing import content_hash
    from selfpos.storage.locate import locate_model
    from selfpos.storage.model_folder import open_model

    _check_methods(recipe)
    base = locate_model(recipe.base)
    open_model(base)  # refuses what is no model
    data = load_tasks(recipe, data_root)
    _check_probe(recipe, data)
    evaluation = evaluation_tasks(recipe, data_root)
    guard = open_guard(recipe.overlap, evaluation)
    if guard is not None:  # a second time, for nothing has been read of mteb until the data was known to be right
        data = load_tasks(recipe, data_root, guard)
        _check_probe(recipe, data)
    folder = RunFolder(out)
    graph = _Graph(recipe, folder, base, content_hash(base), data, evaluation)
    with locked(folder), log_to(folder.log):
        jobs = graph.jobs()
        refuse_foreign(jobs, folder)
        write_text(folder.recipe, yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False))
        if guard is not None:
            guard.write(folder.overlap)
        execute(jobs, folder)
    return folder


def load_tasks(recipe: Recipe, data_root: Path | None, guard: Guard | None = None) -> dict[str, TaskData]:
    """Read every task's data, have `guard` look at it, and hold its part of the probe set out of it."""
    from selfpos.data.probe import hold_out
    from selfpos.data.sources import load_task
    from selfpos.tasks import get_task
    from selfpos.tasks.prompts import column_prompts

    loaded = {}
    for name, source in recipe.tasks.items():
        kind = get_task(source.type)
        column_prompts(kind, source.prompts, kind.text_columns)  # refuses such as the type has no place for
        found = load_task(source, seed=recipe.seed, data_root=data_root)
        if guard is not None:
            found = guard.look(name, kind, found)
        training, probe = hold_out(found.dataset, recipe.probe.per_task, recipe.seed)
        asked = recipe.training.validation
        validation = load_task(source, seed=recipe.seed, data_root=data_root, split=asked.split).dataset if asked and asked.split else None
        loaded[name] = TaskData(kind, training, probe, found.hash, found.description, source, found, validation)
    return loaded


def _check_methods(recipe: Recipe) -> None:
    """Refuse what no merge could be made with, before anything is trained."""
    from selfpos.merging import METHODS, get_method
    from selfpos.merging.rules import make_settings

    for name, merge in recipe.merges.items():
        if merge.method in LEARNED:
            continue
        if merge.method not in METHODS:
            raise unknown("merging method", merge.method, [*METHODS, *LEARNED])
        method = get_method(merge.method)
        try:
            method.check_count(len(recipe.tasks))
            make_settings(method, len(recipe.tasks), merge.weights, merge.params)
        except SelfposError as error:
            raise SelfposError(f"recipe {recipe.name}, merge {name}: {error}") from None
    taken = {"base", "joint"} & {*recipe.tasks, *recipe.merges} | {*recipe.tasks} & {*recipe.merges}
    if taken:
        raise SelfposError(f"recipe {recipe.name}: the name '{sorted(taken)[0]}' stands for two models; rename the task or the merge")


def _check_probe(recipe: Recipe, data: dict[str, TaskData]) -> None:
    """Refuse a probe set or ratios that no search, and no method that looks at data, could work with, before anything is trained."""
    from selfpos.data.probe import ProbeTask
    from selfpos.merging import METHODS
    from selfpos.positioning import cma_es
    from selfpos.positioning.balance import check_ratios
    from selfpos.positioning.objective import check_draws, split_probe
    from selfpos.statistics import check_probe

    probe = {name: ProbeTask(name, task.type, task.probe, task.source.prompts) for name, task in data.items()}
    for name, merge in recipe.merges.items():
        try:
            if settings := merge.search:
                check_ratios(settings.ratios, probe)
                parts = split_probe(probe, settings.validation, recipe.seed, settings.temperature)
                for part in filter(None, parts):  # without validation the second is empty
                    check_draws(part, settings.batch_size, single=settings.batches == "single")
                if settings.search == "cma-es":
                    cma_es.library()
            else:
                check_probe(METHODS[merge.method].probe, probe, recipe.seed)
        except SelfposError as error:
            raise SelfposError(f"recipe {recipe.name}, merge {name}: {error}") from None


def evaluation_tasks(recipe: Recipe, data_root: Path | None) -> list[Any]:
    """The MTEB tasks that every model of the run is scored on."""
    from selfpos.evaluation import select_tasks

    given = recipe.evaluation.data_dir
    data_dir = Path(given) if given else data_root
    names = [*recipe.evaluation.tasks, *(recipe.evaluation.local if data_dir is not None else [])]
    return select_tasks(names, benchmark=recipe.evaluation.benchmark, data_dir=data_dir)


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
        specialists = [self._specialist_job(task) for task in self.data]
        trained = list(specialists)
        if self.recipe.joint is not None:
            trained.append(self._joint_job())
        needed = tuple(job.name for job in specialists)
        probe = self._probe_job()
        merges = [self._merge_job(name, merge, needed) for name, merge in self.recipe.merges.items()]
        models = {"base": (self.base, ())} | {job.name.split("/")[-1]: (job.output, (job.name,)) for job in [*trained, *merges]}
        scores = [self._score_job(name, model, after) for name, (model, after) in models.items()]
        table = Job(
            "table", {}, self.folder.table, partial(write_table, self.folder, list(models)), tuple(job.name for job in scores), derived=True
        )
        report = Job("report", {}, self.folder.report, partial(_write_report, self.folder), (table.name, "vectors"), derived=True)
        cards = [self._card_job(name, table.name) for name in self.recipe.merges]
        return [*trained, probe, self._geometry_job(needed), *merges, *scores, table, *cards, report]

    def _training_inputs(self, tasks: list[str]) -> dict[str, Any]:
        return {
            "base": self.base_hash,
            "data": {task: self.data[task].hash for task in tasks},
            "types": {task: self.data[task].type.name for task in tasks},
            "sources": {task: self.data[task].decides() for task in tasks},
            "training": self.recipe.training.that_decide(),
            "probe": self.recipe.probe.per_task,
            "seed": self.recipe.seed,
        }

    def _specialist_job(self, task: str) -> Job:
        out = self.folder.specialist(task)
        return Job(f"specialist/{task}", self._training_inputs([task]), out, partial(self._train, [task], out, task))

    def _joint_job(self) -> Job:
        joint = self.recipe.joint
        assert joint is not None
        inputs = self._training_inputs(list(self.data)) | {"joint": joint.model_dump(mode="json")}
        steps = joint.steps or (self.recipe.training.steps or 0) * len(self.data) or None
        work = partial(self._train, list(self.data), self.folder.joint, "joint", steps=steps, mixture=joint.mixture)
        return Job("joint", inputs, self.folder.joint, work)

    def _train(self, tasks: list[str], out: Path, name: str, steps: int | None = None, mixture: str = "proportional") -> None:
        from selfpos.training import train

        settings = self.recipe.training if steps is None else self.recipe.training.model_copy(update={"steps": steps})
        chosen = {task: self.data[task] for task in tasks}
        validation = {task: found.validation for task, found in chosen.items() if found.validation is not None}
        train(
            self.base, {task: (found.type, self._records(found)) for task, found in chosen.items()}, out, settings, seed=self.recipe.seed,
            mixture=mixture, name=name, validation=validation, prompts={task: found.source.prompts for task, found in chosen.items()},
            provenance={"data": {task: self._report(task) for task in chosen}},
        )  # fmt: skip

    def _records(self, data: TaskData) -> Dataset:
        """The records that one task is trained on, with hard negatives where they are asked for."""
        from selfpos.training.negatives import mine

        if data.source.mine is None:
            return data.training
        kind = data.type.under(self.recipe.training)
        return mine(data.training, kind, data.source.mine, self.base, data.source.prompts, self.recipe.seed)

    def _report(self, task: str) -> dict[str, Any]:
        """What one task's data is like; logged as well."""
        from selfpos.data.report import describe_data, report_lines

        report = describe_data(self.data[task].loaded, self.data[task].type, self.base)
        log.info("data of %s: %s", task, "; ".join([self.data[task].description, *report_lines(report)]))
        return report

    def _probe_job(self) -> Job:
        inputs = {
            "data": {task: data.hash for task, data in self.data.items()},
            "per_task": self.recipe.probe.per_task,
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

    def _geometry_job(self, specialists: tuple[str, ...]) -> Job:
        return Job(
            "vectors", {}, self.folder.geometry, partial(write_geometry, self.base, self._specialists(), self.folder.geometry), specialists
        )

    def _merge_job(self, name: str, merge: MergeSettings, specialists: tuple[str, ...]) -> Job:
        inputs = {"merge": merge.model_dump(mode="json"), "seed": self.recipe.seed}
        learned = merge.search is not None
        work: Callable[[], None] = partial(self._position_and_merge if learned else self._merge, name, merge)
        probed = learned or _needs_probe(merge)
        return Job(f"merge/{name}", inputs, self.folder.merged(name), work, (*specialists, "probe") if probed else specialists)

    def _merge(self, name: str, merge: MergeSettings) -> None:
        from selfpos.data.probe import read_probe
        from selfpos.operations import merge as merge_models

        probe = read_probe(self.folder.probe) if _needs_probe(merge) else None
        merge_models(
            self.recipe.base, self._specialists(), merge.method, self.folder.merged(name), probe=probe,
            weights=merge.weights, params=merge.params, seed=self.recipe.seed,
        )  # fmt: skip

    def _position_and_merge(self, name: str, merge: MergeSettings) -> None:
        from selfpos.data.probe import read_probe
        from selfpos.operations import position_and_merge

        assert merge.search is not None
        position_and_merge(
            self.recipe.base, self._specialists(), read_probe(self.folder.probe), merge.search,
            self.folder.merged(name), seed=self.recipe.seed, record=self.folder.position(name), trajectory=self.folder.trajectory(name),
            coefficients=self.folder.coefficients(name), keep_interrupted=False,
        )  # fmt: skip

    def _specialists(self) -> list[Path]:
        return [self.folder.specialist(task) for task in self.data]

    def _card_job(self, name: str, table: str) -> Job:
        """The card that the merge was written with knew neither scores nor seconds: it is made anew when they are there."""
        from selfpos.publishing.card import write_card

        merged = self.folder.merged(name)
        return Job(f"card/{name}", {}, merged / "README.md", partial(write_card, merged), (f"merge/{name}", table), derived=True)

    def _score_job(self, name: str, model: Path, after: tuple[str, ...]) -> Job:
        from selfpos.evaluation import task_identity

        inputs = {"base": self.base_hash, "tasks": [task_identity(task) for task in self.evaluation]}
        return Job(f"scores/{name}", inputs, self.folder.scores(name), partial(self._score, name, model), after, continues=True)

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
    write_text(out, json.dumps({"names": [vector.name for vector in vectors], "gram": gram(vectors).tolist()}, indent=1))


def write_table(folder: RunFolder, models: list[str]) -> None:
    """Gather the scores of `models` from their MTEB files into one JSON table: {"tasks": …, "scores": {model: {task: main score}}}."""
    from selfpos.evaluation import read_scores
    from selfpos.storage.atomic import write_text

    scores = {model: read_scores(folder.scores(model)) for model in models}
    kinds = {task: {"type": score.type, "metric": score.metric} for found in scores.values() for task, score in found.items()}
    table = {
        "tasks": kinds,
        "scores": {model: {task: score.main_score for task, score in found.items()} for model, found in scores.items()},
    }
    write_text(folder.table, json.dumps(table, indent=1))


def _write_report(folder: RunFolder) -> None:
    from selfpos.report import write_report

    write_report(folder)
