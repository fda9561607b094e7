"""The scores of all models below a folder, for the card and its metadata."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from selfpos.evaluation.mteb_internals import hub_result
from selfpos.evaluation.tasks import TaskInfo, describe_task
from selfpos.scores.files import LAST, Result, TaskScore, last_json, last_scores, read_result

FOLDER = "eval"  # of scores inside a model folder: it is no part of the model's content hash
LEADERBOARD_FOLDER = ".eval_results"  # read by the Hub's leaderboards


@dataclass(frozen=True)
class Scores:
    """Model → its results; task → what is known of it; the version of mteb if all results are of one."""

    models: Mapping[str, tuple[Result, ...]]
    tasks: Mapping[str, TaskInfo]
    mteb: str | None

    def of(self, names: Collection[str]) -> Scores | None:
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
        local = (result.task for result in self.models[model] if not self.from_hub(result))
        return sorted(task for task in local if self.tasks[task].dataset is not None)

    def result(self, model: str, task: str) -> Result | None:
        """The result of `model` on `task`; None where it was not scored."""
        return next((result for result in self.models.get(model, ()) if result.task == task), None)

    def task_score(self, result: Result) -> TaskScore:
        """The result as one score."""
        task = self.tasks[result.task]
        return TaskScore(result.task, task.type or "", task.metric or "", result.mean, result.file)


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
    by_folder: dict[Path, list[Result]] = {}
    for file in dict.fromkeys(files):
        result = read_result(file, known.get(file.stem, (None, None))[1])
        if result is not None:
            by_folder.setdefault(file.parent, []).append(result)
    if not by_folder:
        return None
    # MTEB files a model below its name, `owner__name`, and its revision.
    names = [folder.parent.name.rpartition("__")[2] for folder in by_folder]
    models: dict[str, list[Result]] = {}
    for name, (folder, results) in zip(names, by_folder.items(), strict=True):
        full_name = f"{name}@{folder.name[:8]}" if names.count(name) > 1 else name
        models.setdefault(full_name, []).extend(results)
    everything = [result for results in by_folder.values() for result in results]
    tasks = {name: describe_task(name, known.get(name)) for name in sorted({r.task for r in everything})}
    versions = {str(result.mteb_version) for result in everything}
    version = versions.pop() if len(versions) == 1 else None
    return Scores({name: tuple(results) for name, results in models.items()}, tasks, version)


def published_results(scores: Scores) -> dict[str, Path | bytes]:
    """The result files by their paths in a published model, with a `last.json` per model."""
    files: dict[str, Path | bytes] = {}
    for name, results in scores.models.items():
        model, revision = results[0].file.parent.parent.name, results[0].revision
        paths = {result.task: Path("results", model, revision, result.file.name) for result in results}
        for result in results:
            files[f"{FOLDER}/{name}/{paths[result.task].as_posix()}"] = result.file
        by_task = {result.task: scores.task_score(result) for result in results}
        files[f"{FOLDER}/{name}/{LAST}"] = last_json(results[0].model, revision, by_task, paths).encode()
    return files


def leaderboard_files(scores: Scores, model: str) -> dict[str, bytes]:
    """Path → content of a file for each of MTEB's tasks that `model` was scored on with the Hub's data."""
    return {
        f"{LEADERBOARD_FOLDER}/{result.file.stem}.yaml": hub_result(result.file).encode()
        for result in scores.models[model]
        if scores.from_hub(result)
    }
