"""Scoring one model: mteb runs the tasks; here each model gets an identity, finished tasks are kept, and a failing task does not stop the others."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import log, progress, quiet_libraries
from selfpos.errors import OperationError, SelfposError
from selfpos.evaluation.recording import recording
from selfpos.scores.examples import examples_file, write_examples
from selfpos.scores.files import TaskScore, task_score, write_last

if TYPE_CHECKING:
    from mteb import ResultCache
    from mteb.abstasks import AbsTask
    from mteb.models import ModelMeta


class TasksFailedError(OperationError):
    """Some tasks failed: `failures` holds task -> reason, `scores` those of the tasks that did not."""

    def __init__(self, message: str, failures: dict[str, str], scores: dict[str, TaskScore]) -> None:
        super().__init__(message)
        self.failures, self.scores = failures, scores


class _UnusableModelError(Exception):
    """The model itself is at fault, so that no task can be scored."""


def evaluate(
    model: Path,
    tasks: Sequence[AbsTask],
    out: Path,
    *,
    name: str,
    batch_size: int = 64,
    cache: Path | None = None,
    announce: Callable[[list[tuple[str, str]]], object] | None = None,
) -> dict[str, TaskScore]:
    """Score the sentence-transformers folder `model` on `tasks` with mteb; returns task name -> score, in the order of `tasks`.

    Result files go to `out`/results/<model>/<revision>/ as mteb lays them out, what was right of each example to `out`/examples beside it; the
    revision is the model's content hash. A task is not run again when its results for these weights and this data are there, and of one that was
    stopped only the missing parts are. `name` is how the model is called.
    With `cache`, embeddings and tokens are kept in that folder: a task that was stopped goes on where it was, and models of one tokenizer share
    its work; the folder may be removed at any time. `announce` is told prompts, length limit and the like (rows of label and text) before the
    first task that is run.
    Raises SelfposError when `model` is no sentence-transformers folder or does not load, `out` is a file, there are no tasks or two of one name;
    TasksFailedError after the last task when any failed.
    """
    check_tasks(model, tasks, out)
    from mteb import ResultCache

    from selfpos.evaluation.encoder import identity

    meta = identity(model, name)
    scorer = _Scorer(model, meta, ResultCache(out), batch_size, cache, announce)
    scores: dict[str, TaskScore] = {}
    failures: dict[str, str] = {}
    with (
        closing(scorer),
        quiet_libraries(hide_warnings=True),
        progress(f"scoring {name}", len(tasks), unit="tasks") as bar,
    ):
        for task in tasks:
            title = task.metadata.name
            try:
                scores[title] = scorer.score(task)
                bar.advance(1, task=title, score=scores[title].main_score)
            except _UnusableModelError as error:
                raise SelfposError(str(error)) from None
            except Exception as error:
                told = str(error) if isinstance(error, SelfposError) else f"{type(error).__name__}: {error}"
                failures[title] = " ".join(told.split())[:400]
                log.error("task %s failed on %s: %s", title, name, failures[title])
                log.info(
                    "where task %s failed", title, exc_info=True
                )  # for the log of a run, not for the screen
                bar.advance(1, task=title, score="failed")
    write_last(out, str(meta.name), str(meta.revision), scores)
    if failures:
        raise TasksFailedError(failures_told(failures, scores, name, out), failures, scores)
    return scores


def check_tasks(model: Path, tasks: Sequence[AbsTask], out: Path) -> None:
    """Raise SelfposError, before anything is computed, on what `evaluate` refuses without loading the model."""
    from selfpos.storage.model_folder import read_modules

    read_modules(model)
    if not tasks:
        raise SelfposError("there are no tasks to score the model on")
    names = [task.metadata.name for task in tasks]
    if len(set(names)) < len(names):
        raise SelfposError(
            f"two tasks are called {next(n for n in names if names.count(n) > 1)}; their results would go to one file"
        )
    if out.exists() and not out.is_dir():
        raise SelfposError(f"{out} is a file; expected a folder for the result files")


def failures_told(failures: dict[str, str], scores: dict[str, TaskScore], name: str, out: Path) -> str:
    """Which tasks failed and why, in one sentence."""
    reasons = "; ".join(f"{task} ({reason})" for task, reason in failures.items())
    rest = f"the scores of the other {len(scores)} are in {out}" if scores else "there are no scores"
    return f"{len(failures)} of {len(failures) + len(scores)} tasks failed on {name}: {reasons}; {rest}"


def task_identity(task: AbsTask) -> dict[str, Any]:
    """What decides a task's scores besides the model: its name, data revision, splits and subsets. JSON-serialisable."""
    return {
        "task": task.metadata.name,
        "revision": revision_of(task),
        "splits": list(task.eval_splits),
        "subsets": list(task.hf_subsets or []),
    }


def revision_of(task: AbsTask) -> str:
    """The revision of the task's data: of the Hub, or a content hash for data kept locally."""
    return str(task.metadata.dataset.get("revision", ""))


class _Scorer:
    """One model and the folder of its results. The model is loaded when the first task has to be run."""

    def __init__(
        self,
        folder: Path,
        meta: ModelMeta,
        results: ResultCache,
        batch_size: int,
        cache: Path | None,
        announce: Callable[..., object] | None,
    ) -> None:
        self._folder, self._meta, self._results, self._batch_size = folder, meta, results, batch_size
        self._cache, self._announce = cache, announce
        self._encoder: Any = None

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.embedder.close()

    def score(self, task: AbsTask) -> TaskScore:
        import mteb
        import numpy as np
        from mteb.results import TaskResult

        from selfpos.evaluation.columns import columns_as_lists

        file = self._results.get_task_result_path(task.metadata.name, self._meta)
        found = self._kept(task, file)
        if found is not None and not found.get_missing_evaluations(task):
            return task_score(task, found, file)
        if self._encoder is None:
            self._load()
        # A task draws its samples from generators that it keeps: started anew, they give every model the same samples.
        task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
        with columns_as_lists(task), recording(task) as examples:
            results = mteb.evaluate(
                self._encoder,
                task,
                cache=self._results,
                overwrite_strategy="always" if found is None else "only-missing",
                encode_kwargs={"batch_size": self._batch_size, "show_progress_bar": False},
                show_progress_bar=False,
                co2_tracker=False,
            )
        if not results.task_results:
            raise OperationError(
                f"mteb gave no result ({'; '.join(str(failed.exception) for failed in results.exceptions or [])})"
            )
        if examples:
            write_examples(examples_file(file), examples, revision_of(task))
        return task_score(
            task, TaskResult.from_disk(file), file
        )  # the file has fewer digits: the score is the same whenever it is read

    def _load(self) -> None:
        from selfpos.evaluation.encoder import describe_encoder, load_encoder

        try:
            self._encoder = load_encoder(self._folder, self._meta, self._cache)
        except SelfposError as error:
            raise _UnusableModelError(str(error)) from None
        rows = describe_encoder(self._encoder)
        log.info("scored with %s", "; ".join(f"{label}: {text}" for label, text in rows))
        if self._announce is not None:
            self._announce(rows)

    def _kept(self, task: AbsTask, file: Path) -> Any:
        """The results of `task` in `file` when they can be used: readable, and of the data that the task has now."""
        from mteb.results import TaskResult

        if not file.is_file():
            return None
        try:
            found = TaskResult.from_disk(file)
        except Exception as error:
            log.warning(
                "the result file %s cannot be read (%s) and is made anew",
                file,
                " ".join(str(error).split())[:200],
            )
            file.unlink()  # mteb reads it before it writes
            return None
        if found.dataset_revision != revision_of(task):
            return None
        if any(len({part["hf_subset"] for part in parts}) < len(parts) for parts in found.scores.values()):
            log.warning("the result file %s has two results for one subset and is made anew", file)
            file.unlink()
            return None
        if not _same_line(str(found.mteb_version)):
            log.warning(
                "the result file %s is of mteb %s, which may score otherwise than this one; it is made anew",
                file,
                found.mteb_version,
            )
            return None
        return found


def _same_line(version: str) -> bool:
    """Whether a result of mteb `version` counts as one of the mteb here: the first part of the version is the same."""
    from mteb import __version__ as here

    return version.partition(".")[0] == here.partition(".")[0]
