"""Scoring one model with mteb: finished tasks are kept, and a failing task does not stop the others."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import log, progress, quiet_libraries
from selfpos.errors import OperationError, SelfposError, on_one_line
from selfpos.evaluation.verified import ALTERED
from selfpos.scores.examples import examples_file, write_examples
from selfpos.scores.files import TaskScore, task_score, write_last
from selfpos.storage.atomic import remove_leftovers
from selfpos.storage.inside import refuse_links_out
from selfpos.storage.model_class import EMBEDDER, class_of
from selfpos.storage.model_folder import read_modules, refuse_pickles

if TYPE_CHECKING:
    from mteb import ResultCache
    from mteb.abstasks import AbsTask
    from mteb.models import ModelMeta
    from mteb.results import TaskResult
    from sentence_transformers import SentenceTransformer


WITHOUT_NETWORK = (
    "run the same command again where there is a network, or fetch the data there with `selfpos fetch-data`, "
    "and give that folder"
)


class TasksFailedError(OperationError):
    """Some tasks failed: `failures` maps tasks to reasons, `scores` holds those of the other tasks."""

    def __init__(self, message: str, failures: dict[str, str], scores: dict[str, TaskScore]) -> None:
        super().__init__(message)
        self.failures, self.scores = failures, scores


def evaluate(
    model: str | Path | SentenceTransformer,
    tasks: Sequence[AbsTask],
    out: str | Path,
    *,
    name: str | None = None,
    batch_size: int = 64,
    cache: Path | None = None,
    announce: Callable[[list[tuple[str, str]]], object] | None = None,
) -> dict[str, TaskScore]:
    """Score a model on tasks with mteb.

    A task is not run again when its results for these weights and this data exist; of a task that was
    stopped, only the missing parts are run.

    Args:
        model: The sentence-transformers folder, or a model in memory, which needs a `name`.
        tasks: The tasks, from `select_tasks`.
        out: The folder for results. MTEB's files go to `results/<model>/<revision>/`, the results by example
            to `examples`; the revision is the model's content hash.
        name: The name under which the results are filed; that of the folder when absent.
        batch_size: Texts in a batch; short texts may be more.
        cache: A folder in which embeddings and tokens are kept: a stopped task continues, and models with the
            same tokenizer share tokens. It may be removed at any time.
        announce: Called with what decides the scores of the user's own tasks, and, before the first task is
            run, with prompts, length limit and the like, as label and text.

    Returns:
        Task name → score, in the order of `tasks`; NaN where mteb computes no number.

    Raises:
        SelfposError: When `model` does not load or is in memory without a `name`, `out` is a file, there are
            no tasks, or two have one name.
        TasksFailedError: After the last task, when any failed.
    """
    from selfpos.evaluation.encoder import identity
    from selfpos.evaluation.wrapped import drop_results_of_another_class

    if not isinstance(model, str | Path):
        if name is None:
            raise SelfposError("a model in memory needs a name, under which its results are filed")
        with TemporaryDirectory() as folder:
            model.save(folder)
            return evaluate(
                folder, tasks, out, name=name, batch_size=batch_size, cache=cache, announce=announce
            )
    model, out = Path(model), Path(out)
    name = name or model.resolve().name
    check_tasks(model, tasks, out)
    remarks = [(task.metadata.name, remark) for task in tasks if (remark := getattr(task, "remark", ""))]
    altered = {task.metadata.name for task in tasks if revision_of(task).startswith(ALTERED)}
    for title, remark in remarks:
        (log.warning if title in altered else log.info)("task %s: %s", title, remark)
    if announce is not None and (shown := [row for row in remarks if row[0] not in altered]):
        announce(shown)
    meta = identity(model, name)
    drop_results_of_another_class(model, out, meta)
    scores: dict[str, TaskScore] = {}
    failures: dict[str, str] = {}
    with (
        closing(_Scorer(model, meta, out, batch_size, cache, announce)) as scorer,
        quiet_libraries(hide_warnings=True),
        progress(f"scoring {name}", len(tasks), unit="tasks") as bar,
    ):
        for task in tasks:
            title = task.metadata.name
            try:
                scores[title] = scorer.score(task)
                if not isfinite(scores[title].main_score):
                    log.warning(
                        "task %s gives %s no score (NaN), as where all gold values or all similarities "
                        "are alike; it counts as missing",
                        *(title, name),
                    )
                bar.advance(1, score=f"{100 * scores[title].main_score:.2f}", task=title)
            except Exception as error:
                if isinstance(error, SelfposError) and not scorer.is_loaded:
                    raise  # the model itself is at fault, so that no task can be scored
                failures[title] = reason_of(error)
                log.error("task %s failed on %s: %s", title, name, failures[title])
                # The traceback is for the log of a run, not for the screen.
                log.info("where task %s failed", title, exc_info=True)
                bar.advance(1, score="failed", task=title)
    write_last(out, str(meta.name), str(meta.revision), scores)
    if failures:
        raise TasksFailedError(failures_message(failures, scores, name, out), failures, scores)
    return scores


def reason_of(error: Exception) -> str:
    """Why a task failed, on one line."""
    reason = " ".join(
        (str(error) if isinstance(error, SelfposError) else f"{type(error).__name__}: {error}").split()
    )
    return reason[:400] + (f"; {WITHOUT_NETWORK}" if isinstance(error, ConnectionError) else "")


def check_tasks(model: Path, tasks: Sequence[AbsTask], out: Path) -> None:
    """Raise SelfposError for what `evaluate` refuses without loading the model."""
    from selfpos.evaluation.wrapped import check_suited

    read_modules(model, plain=class_of(model) != EMBEDDER)
    refuse_links_out(model)
    refuse_pickles(model)
    if not tasks:
        raise SelfposError("there are no tasks to score the model on")
    check_suited(model, tasks)
    names = [task.metadata.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise SelfposError(f"two tasks are called {name}; their results would go to one file")
    if out.exists() and not out.is_dir():
        raise SelfposError(f"{out} is a file; expected a folder for the result files")
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise SelfposError(
            f"{there} is a file, so that there can be no folder {out}; choose another with --out"
        )
    if not os.access(there, os.W_OK):
        raise OperationError(f"cannot write in {there}: permission denied; choose another folder with --out")


def failures_message(
    failures: Mapping[str, str], scores: Mapping[str, TaskScore], name: str, out: Path
) -> str:
    """Which tasks failed and why, in one sentence."""
    reasons = "; ".join(f"{task} ({reason})" for task, reason in failures.items())
    rest = f"the scores of the other {len(scores)} are in {out}" if scores else "there are no scores"
    return f"{len(failures)} of {len(failures) + len(scores)} tasks failed on {name}: {reasons}; {rest}"


def task_identity(task: AbsTask) -> dict[str, Any]:
    """What determines a task's scores besides the model, as JSON."""
    parts = {"splits": list(task.eval_splits), "subsets": list(task.hf_subsets or [])}
    return {"task": task.metadata.name, "revision": revision_of(task), **parts}


def revision_of(task: AbsTask) -> str:
    """The revision of the task's data: of the Hub, or a content hash for local data."""
    return str(task.metadata.dataset.get("revision", ""))


@dataclass
class _Scorer:
    """One model and the folder of its results. The model is loaded when the first task has to be run."""

    folder: Path
    meta: Any
    out: Path
    batch_size: int
    cache: Path | None
    announce: Callable[..., object] | None

    @cached_property
    def encoder(self) -> Any:
        from selfpos.evaluation.wrapped import load_scored

        encoder, rows = load_scored(self.folder, self.meta, self.cache)
        log.info("scored with %s", "; ".join(f"{label}: {text}" for label, text in rows))
        if self.announce is not None:
            self.announce(rows)
        return encoder

    @property
    def is_loaded(self) -> bool:
        return "encoder" in vars(self)

    def close(self) -> None:
        if self.is_loaded and hasattr(self.encoder, "embedder"):
            self.encoder.embedder.close()

    def score(self, task: AbsTask) -> TaskScore:
        """The score of `task`, from its result file or by running it."""
        import mteb
        from mteb.results import TaskResult

        from selfpos.evaluation.recording import recording
        from selfpos.evaluation.staged import StagedResults
        from selfpos.evaluation.wrapped import check_candidates

        file = mteb.ResultCache(self.out).get_task_result_path(task.metadata.name, self.meta)
        for written in (file, examples_file(file)):
            remove_leftovers(written.parent)
        stored = _usable_result(task, file)
        if stored is not None and not stored.get_missing_evaluations(task):
            return task_score(task, stored, file)
        encoder = self.encoder
        check_candidates(encoder, task)
        with TemporaryDirectory() as folder, recording(task) as examples:

            def keep_examples() -> None:
                if examples:
                    write_examples(examples_file(file), examples, revision_of(task))

            encode_kwargs = _encode_kwargs(self.batch_size)
            cache = StagedResults(Path(folder), self.meta, file, keep_examples, encode_kwargs)
            strategy = "always" if stored is None else "only-missing"
            run_task(encoder, task, cache, batch_size=self.batch_size, strategy=strategy)
        # The file has fewer digits than `made`: read from it, the score is the same now and later.
        return task_score(task, TaskResult.from_disk(file), file)


def run_task(
    encoder: Any, task: AbsTask, cache: ResultCache, *, batch_size: int, strategy: Any = "always"
) -> None:
    """Run one task by mteb, whose results go to `cache`.

    Raises:
        OperationError: mteb gave no result.
    """
    import mteb

    from selfpos.evaluation.recording import columns_as_lists

    # A task keeps the generators of its samples: reset, they give every model the same samples.
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
    with columns_as_lists(task):
        made = mteb.evaluate(
            encoder,
            task,
            cache=cache,
            overwrite_strategy=strategy,
            encode_kwargs=_encode_kwargs(batch_size),
            show_progress_bar=False,
            co2_tracker=False,
        )
    if not made.task_results:
        reasons = "; ".join(str(failed.exception) for failed in made.exceptions or [])
        raise OperationError(f"mteb gave no result ({reasons})")


def _encode_kwargs(batch_size: int) -> Any:
    return {"batch_size": batch_size, "show_progress_bar": False}


def stored_result(task: AbsTask, out: Path, meta: ModelMeta) -> TaskResult | None:
    """The result of `task` in `out`, whole or in part, with which `evaluate` begins. Nothing is removed."""
    import mteb

    if not out.is_dir():  # which mteb would make
        return None
    file = mteb.ResultCache(out).get_task_result_path(task.metadata.name, meta)
    return _usable_result(task, file, remove=False)


def _usable_result(task: AbsTask, file: Path, *, remove: bool = True) -> TaskResult | None:
    """The result in `file` if it is readable, of the current data and of this major version of mteb.

    A damaged file is removed, since mteb reads it before it writes.
    """
    from mteb import __version__ as current
    from mteb.results import TaskResult

    if not file.is_file():
        return None
    fault = ""
    try:
        result = TaskResult.from_disk(file)
        for parts in result.scores.values():
            if len({part["hf_subset"] for part in parts}) < len(parts):
                fault = "it has two results for one subset"
    except Exception as error:
        fault = f"it cannot be read: {on_one_line(error, 200)}"
    if fault:
        log.warning("the result file %s is computed again (%s)", file, fault)
        if remove:
            file.unlink()
        return None
    if result.dataset_revision != revision_of(task):
        return None
    version = str(result.mteb_version)
    if version.partition(".")[0] != current.partition(".")[0]:
        log.warning(
            "the result file %s is of mteb %s, whose scores may differ; it is computed again", file, version
        )
        return None
    return result
