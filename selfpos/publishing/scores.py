"""The scores of all models below a folder, for the card and its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfpos.evaluation.mteb_internals import hub_result
from selfpos.evaluation.tasks import TaskInfo, describe_task
from selfpos.scores.files import LAST, Result, SubsetScore, TaskScore, last_json, last_scores, read_result

FOLDER = "eval"  # of scores inside a model folder: it is no part of the model's content hash
LEADERBOARD_FOLDER = ".eval_results"  # read by the Hub's leaderboards


@dataclass(frozen=True)
class Scores:
    """Model → its results; task → what is known of it; the version of mteb if all results are of one."""

    models: Mapping[str, tuple[Result, ...]]
    tasks: Mapping[str, TaskInfo]
    mteb: str | None

    def identity(self, model: str) -> tuple[str, str]:
        """The name and revision under which MTEB files the model; of a model that we scored, its content
        hash.
        """
        return self.models[model][0].model, self.models[model][0].revision

    def of(self, names: Sequence[str]) -> Scores | None:
        """Those of the models `names`; None where none of them was scored."""
        models = {name: results for name, results in self.models.items() if name in names}
        scored = {result.task for results in models.values() for result in results}
        tasks = {name: task for name, task in self.tasks.items() if name in scored}
        return Scores(models, tasks, self.mteb) if models else None

    def from_hub(self, result: Result) -> bool:
        """Whether the data was that of the Hub which MTEB names for the task, rather than local files."""
        task = self.tasks[result.task]
        return task.dataset is not None and result.data_revision == task.revision

    def on_local_data(self, model: str) -> list[str]:
        """MTEB's tasks that `model` was scored on with local files."""
        results = self.models.get(model, ())
        return sorted(
            {
                result.task
                for result in results
                if self.tasks[result.task].dataset is not None and not self.from_hub(result)
            }
        )

    def result(self, model: str, task: str) -> Result | None:
        """The result of `model` on `task`; None where it was not scored."""
        return next((result for result in self.models.get(model, ()) if result.task == task), None)

    def value(self, model: str, task: str) -> float | None:
        """Mean over the splits and subsets of the task; None where `model` was not scored."""
        result = self.result(model, task)
        return None if result is None else result.mean

    def interval(self, model: str, task: str) -> tuple[float, float] | None:
        """The interval of the task's only subset; None where there are several or none."""
        result = self.result(model, task)
        if result is None or len(result.scores) != 1:
            return None
        return result.interval(result.scores[0])

    def task_score(self, result: Result) -> TaskScore:
        """The result as one score."""
        task = self.tasks[result.task]
        return TaskScore(result.task, task.type or "", task.metric or "", result.mean, result.file)

    def subset_scores(self, model: str) -> list[tuple[Result, SubsetScore]]:
        """All scores of `model` by split and subset, with the results that hold them."""
        return [(result, score) for result in self.models.get(model, ()) for score in result.scores]


def find_scores(folder: Path) -> Path | None:
    """Where the scores of the model in `folder` are: inside it, or in its run."""
    if (folder / FOLDER).is_dir():
        return folder / FOLDER
    for run in folder.resolve().parents[:2]:
        if (run / "recipe.yaml").is_file() and (run / "scores").is_dir():
            return run / "scores"
    return None


def read_model_scores(root: Path) -> Scores | None:
    """The scores below `root`, in MTEB's folders at any depth; None where there are none.

    Where a `last.json` lists results, other results of the same model are outdated and do not count. Raises
    SelfposError where a result file is damaged.
    """
    listed = last_scores(root)
    known = {score.task: (score.type, score.metric) for score in listed}
    covered = {score.file.parent.parent for score in listed}
    files = [score.file for score in listed if score.file.is_file()]
    files += [file for file in sorted(root.rglob("*.json")) if file.parent.parent not in covered]
    results = []
    for file in dict.fromkeys(files):
        result = read_result(file, known.get(file.stem, (None, None))[1])
        if result is not None:
            results.append(result)
    if not results:
        return None
    names = [_short(folder.parent.name) for folder in {result.file.parent for result in results}]
    models: dict[str, list[Result]] = {}
    for result in results:
        name = _short(result.file.parent.parent.name)
        if names.count(name) > 1:
            name = f"{name}@{result.revision[:8]}"
        models.setdefault(name, []).append(result)
    tasks = {
        name: describe_task(name, known.get(name)) for name in sorted({result.task for result in results})
    }
    versions = {str(result.mteb_version) for result in results}
    version = versions.pop() if len(versions) == 1 else None
    return Scores({name: tuple(entries) for name, entries in models.items()}, tasks, version)


def _short(model: str) -> str:
    """The last part of a model's name, which MTEB writes `owner/name` or files as `owner__name`."""
    return model.replace("__", "/").rpartition("/")[2]


def published_results(scores: Scores) -> dict[str, Path | bytes]:
    """The result files by their paths in the `eval` folder of a published model, with a `last.json` per
    model.
    """
    files: dict[str, Path | bytes] = {}
    for short, results in scores.models.items():
        model, revision = results[0].file.parent.parent.name, results[0].revision
        paths = {result.task: Path("results", model, revision, result.file.name) for result in results}
        for result in results:
            files[f"{FOLDER}/{short}/{paths[result.task].as_posix()}"] = result.file
        by_task = {result.task: scores.task_score(result) for result in results}
        last = last_json(results[0].model, revision, by_task, paths)
        files[f"{FOLDER}/{short}/{LAST}"] = last.encode()
    return files


def leaderboard_files(scores: Scores, model: str) -> dict[str, bytes]:
    """Path → content of a file for each of MTEB's tasks that `model` was scored on with the Hub's data."""
    return {
        f"{LEADERBOARD_FOLDER}/{result.file.stem}.yaml": hub_result(result.file).encode()
        for result in scores.models[model]
        if scores.from_hub(result)
    }
