"""What a run refuses before anything is trained: its base, its merges and its probe set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.console import log, quiet_libraries
from selfpos.errors import SelfposError, unknown
from selfpos.extras import need_extra
from selfpos.recipe import LEARNED, MergeSettings, Recipe, RetainSettings
from selfpos.recipe.merging import RETAIN
from selfpos.storage.file_kinds import PROMPTS_CONFIG

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.data.tasks import TaskData
    from selfpos.tasks import TaskType


def check_installed(recipe: Recipe) -> None:
    """Raise SelfposError where a tracker or a search of the recipe needs a package that is not installed."""
    from selfpos.training.outside import check_trackers

    check_trackers(recipe.training.report_to)
    if any(merge.search is not None and merge.search.search == "cma-es" for merge in recipe.merges.values()):
        need_extra("search", "search cma-es")


def checked_base(recipe: Recipe, base: Path) -> list[str]:
    """The tensors of the base, of which the recipe's merges and searches refuse nothing."""
    from selfpos.merging.plan import check_base
    from selfpos.operations import check_searches
    from selfpos.storage.model_class import RERANKER, check_embeds, class_of
    from selfpos.training.models import check_trainable

    check_embeds(base, RERANKER)
    check_trainable(base, recipe.training.max_length, class_of(base))
    opened = check_base(base, allow_code=not recipe.merges)
    if any(needs_probe(merge) for merge in recipe.merges.values()):
        with quiet_libraries():
            check_searches(base)
    return [key for key, entry in opened.tensors.items() if entry.mergeable]


def task_types(recipe: Recipe, base: Path) -> dict[str, TaskType]:
    """The type by which models of the base's class learn each task.

    Raises SelfposError for a task, training or merge that is not for them.
    """
    from selfpos.storage.model_class import RERANKER, class_of
    from selfpos.tasks import get_task
    from selfpos.tasks.types.classes import for_class
    from selfpos.training.models import refuse_for

    types = {name: get_task(source.type) for name, source in recipe.tasks.items()}
    if class_of(base) != RERANKER:
        return types
    for name, source in recipe.tasks.items():
        try:
            types[name] = for_class(types[name], RERANKER)
            refuse_for(RERANKER, source, recipe.training)
        except SelfposError as error:
            raise SelfposError(f"recipe {recipe.name}, task {name}: {error}") from None
    for name, merge in recipe.merges.items():
        if merge.search is None and merge.method == RETAIN:
            raise SelfposError(
                f"recipe {recipe.name}, merge {name}: {merge.method} takes models that embed texts, and "
                f"{base} is a {RERANKER}; merge such by self-positioning, or by any other method of "
                "`selfpos methods`"
            )
    return types


def check_merges(recipe: Recipe, keys: list[str]) -> None:
    """Refuse merges of the tensors `keys` that cannot be made, before anything is trained."""
    from selfpos.merging import METHODS, get_method
    from selfpos.merging.settings import make_settings

    counts = {"separate": len(recipe.tasks), "iterative": len(recipe.stages), "bagging": len(recipe.bags)}
    for name, merge in recipe.merges.items():
        if merge.method in (*LEARNED, RETAIN):
            continue
        if merge.method not in METHODS:
            raise unknown("merging method", merge.method, [*METHODS, *LEARNED, RETAIN])
        method = get_method(merge.method)
        try:
            method.check_count(counts[merge.vectors])
            make_settings(method, counts[merge.vectors], merge.weights, merge.params, keys)
        except SelfposError as error:
            raise SelfposError(f"recipe {recipe.name}, merge {name}: {error}") from None
    names = ["base", *recipe.tasks, *recipe.joints, *recipe.stages, *recipe.bags, *recipe.merges]
    twice = {name for name in names if names.count(name) > 1}
    twice |= {"joint"} & {*recipe.tasks, *recipe.merges}
    if twice:
        raise SelfposError(
            f"recipe {recipe.name}: two models are named '{min(twice)}'; rename the task, the joint model or "
            "the merge"
        )


def check_trainings(recipe: Recipe, data: dict[str, TaskData]) -> None:
    """Refuse tasks whose records cannot be trained or validated on, before the first of them is trained."""
    from selfpos.training.train import check_data

    for name, task in data.items():
        try:
            with quiet_libraries():
                check_data(
                    task.type,
                    task.training,
                    recipe.training,
                    validation=task.validation,
                    prompts=task.source.prompts,
                    seed=recipe.seed,
                )
        except SelfposError as error:
            raise SelfposError(f"recipe {recipe.name}, task {name}: {error}") from None


def check_prompts(recipe: Recipe, base: Path, data: dict[str, TaskData]) -> None:
    """Refuse tasks whose prompts replace some of the base's or of one another, since a merge would refuse
    their specialists.
    """
    from selfpos.storage.model_folder import open_model
    from selfpos.tasks.task import SIDES, kept_prompts
    from selfpos.vectors.check import prompts_of

    known = prompts_of(open_model(base))
    first: dict[str, tuple[str, str]] = {}
    alone = any(merge.vectors != "bagging" for merge in recipe.merges.values())
    for task in recipe.tasks if recipe.merges else ():
        kept = kept_prompts({task: (data[task].type, data[task].source.prompts)})
        for name, text in kept.items():
            if known.get(name, text) != text:
                raise SelfposError(
                    f"recipe {recipe.name}: the prompt '{name}' of task {task} is {text!r}, the base's "
                    f"is {known[name]!r}, and a merge keeps the base's: give the task that prompt, or take a "
                    f"copy of the base with yours in its {PROMPTS_CONFIG}"
                )
            other, words = first.setdefault(name, (task, text))
            if alone and words != text and name not in SIDES:
                raise SelfposError(
                    f"recipe {recipe.name}: tasks {other} and {task} have different prompts, {words!r} and "
                    f"{text!r}, which both go under '{name}', and a merge keeps one: give both the same "
                    "prompt, or write the prompts into the texts of the data"
                )


def check_probe(recipe: Recipe, data: dict[str, TaskData]) -> None:
    """Refuse a probe set that a merge cannot work with, before anything is trained."""
    from selfpos.merging import METHODS
    from selfpos.positioning.position import check
    from selfpos.statistics import check_probe

    probe = _probe(data)
    for name, merge in recipe.merges.items():
        try:
            if merge.search is not None:
                check(probe, merge.search, seed=recipe.seed)
            elif merge.method != RETAIN:
                check_probe(METHODS[merge.method].probe, probe, recipe.seed)
        except SelfposError as error:
            raise SelfposError(f"recipe {recipe.name}, merge {name}: {error}") from None


def check_retained(recipe: Recipe, base: Path, data: dict[str, TaskData], data_root: Path | None) -> None:
    """Refuse data that a point to retain cannot be judged by, before anything is trained."""
    from selfpos.retention.sources import read_sides
    from selfpos.storage.model_folder import open_model

    for name, merge in recipe.merges.items():
        if merge.method == RETAIN:
            settings = retain_settings(recipe, merge, data_root)
            try:
                read_sides(open_model(base), settings, partial(_probe, data), log.debug)
            except SelfposError as error:
                raise SelfposError(f"recipe {recipe.name}, merge {name}: {error}") from None


def retain_settings(recipe: Recipe, merge: MergeSettings, data_root: Path | None) -> RetainSettings:
    """The settings of a merge that retains: the run's seed and data, where it does not say others."""
    settings = merge.retain or RetainSettings()
    seed = recipe.seed if settings.seed is None else settings.seed
    return settings.model_copy(update={"seed": seed, "data_dir": settings.data_dir or data_root})


def _probe(data: dict[str, TaskData]) -> dict[str, ProbeTask]:
    from selfpos.data.probe import ProbeTask

    return {name: ProbeTask(name, task.type, task.probe, task.source.prompts) for name, task in data.items()}


def needs_probe(merge: MergeSettings) -> bool:
    """Whether the merge looks at probe records, as a search or for statistics."""
    from selfpos.merging import get_method

    return merge.search is not None or merge.method == RETAIN or bool(get_method(merge.method).probe)
