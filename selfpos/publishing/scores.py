"""The scores of a model and its rivals, for the card, its metadata, and the Hub's leaderboards."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from selfpos.comparison import Scored, compare
from selfpos.evaluation.mteb_internals import hub_result
from selfpos.evaluation.tasks import TaskInfo, describe_task
from selfpos.evaluation.verified import ALTERED
from selfpos.publishing.facts import Facts
from selfpos.scores.files import LAST, Result, TaskScore, known_tasks, last_json, last_scores, read_result
from selfpos.storage.hashing import REVISION_LENGTH

FOLDER = "eval"  # of scores inside a model folder: it is no part of the model's content hash
LEADERBOARD_FOLDER = ".eval_results"  # read by the Hub's leaderboards
DRAWS = 2000  # behind the interval of a difference to the base


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
        """MTEB's tasks that `model` was scored on with local files; noted where it is another test set."""
        local = [result for result in self.models[model] if not self.from_hub(result)]
        names = []
        for result in sorted(local, key=lambda result: result.task):
            other = " (another test set: its counts are not MTEB's)"
            if self.tasks[result.task].dataset is not None:
                names.append(result.task + (other if str(result.data_revision).startswith(ALTERED) else ""))
        return names

    def result(self, model: str, task: str) -> Result | None:
        """The result of `model` on `task`; None where it was not scored."""
        return next((result for result in self.models.get(model, ()) if result.task == task), None)

    def task_score(self, result: Result) -> TaskScore:
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

    Where a `last.json` names a revision of a model, results of its other revisions do not count.
    """
    kinds = known_tasks(root)
    listed = last_scores(root)
    current = {score.file.parent for score in listed}
    covered = {folder.parent for folder in current}
    files = [score.file for score in listed if score.file.is_file()]
    for file in sorted(root.rglob("*.json")):
        if file.parent in current or file.parent.parent not in covered:
            files.append(file)
    by_folder: dict[Path, list[Result]] = {}
    for file in dict.fromkeys(files):
        result = read_result(file, kinds.get(file.stem, (None, None))[1])
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
    tasks = {name: describe_task(name, kinds.get(name)) for name in sorted({r.task for r in everything})}
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


@dataclass(frozen=True)
class ScoredModels:
    """Names in the scores; `stale` are those whose scores belong to other weights than they have now."""

    this: str | None = None
    base: str | None = None
    parents: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    @property
    def family(self) -> list[str]:
        names = [self.this, self.base, *self.parents, *self.joints]
        return list(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class ScoreTable:
    """Models as columns, tasks and means over tasks as rows of a label and one cell per model."""

    models: list[str]
    rows: list[tuple[str, list[str]]]


def match_models(scores: Scores, facts: Facts, content: str) -> ScoredModels:
    """The model of `facts`, whose content hash is `content`, and its family in `scores`.

    Results by the right name but another hash belong to weights that no longer exist.
    """
    stale: dict[str, None] = {}

    def find(
        content: str | None, names: Collection[str], repo: str | None = None, commit: str | None = None
    ) -> str | None:
        named = []
        for model, (result, *_) in scores.models.items():
            if (content and result.revision == content[:REVISION_LENGTH]) or result.revision == commit:
                return model
            if model in names:
                named.append((model, result))
        for model, result in named:
            is_hash = re.fullmatch(rf"[0-9a-f]{{{REVISION_LENGTH}}}", result.revision)
            if not content or not is_hash or (repo and result.model == repo):
                return model
        stale.update(dict.fromkeys(model for model, _ in named))
        return None

    this, base = find(content, [facts.name]), None
    if facts.base:
        names = ["base", *(name.rpartition("/")[2] for name in (facts.base.name, facts.base.repo or ""))]
        base = find(facts.base.hash, names, facts.base.repo, facts.base.revision)
    parents = [
        find(parent.hash, [parent.name.rpartition("/")[2]], parent.repo, parent.revision)
        for parent in facts.parents
    ]
    joints = list(facts.run.recipe.joints) if facts.run else []
    return ScoredModels(
        this=this,
        base=base,
        parents=tuple(name for name in parents if name),
        joints=tuple(name for name in joints or ["joint"] if name in scores.models),
        stale=tuple(stale),
    )


def score_table(scores: Scores, models: ScoredModels) -> ScoreTable:
    """Tasks by type with the mean of each type of several tasks, then the mean over all tasks."""
    others = sorted(set(scores.models) - set(models.family) - set(models.stale))
    columns = [*models.family, *others]
    tasks = sorted(scores.tasks.values(), key=lambda task: (task.type or "~", task.name))
    rows = []
    for kind in dict.fromkeys(task.type for task in tasks):
        members = [task.name for task in tasks if task.type == kind]
        for name in members:
            unit = ", ".join(part for part in (kind, scores.tasks[name].metric) if part)
            label = f"{name} ({unit})" if unit else name
            rows.append((label, [_cell(scores, model, name) for model in columns]))
        if kind and len(members) > 1:
            rows.append((f"*{kind}, mean of {len(members)}*", _means(scores, columns, members)))
    if len(tasks) > 1:
        rows.append((f"**mean of {len(tasks)}**", _means(scores, columns, scores.tasks)))
    return ScoreTable(columns, rows)


def _cell(scores: Scores, model: str, task: str) -> str:
    """Score and interval in percent; no interval of a mean over several subsets."""
    result = scores.result(model, task)
    if result is None:
        return ""
    text = f"{100 * result.mean:.2f}"
    interval = result.interval(result.scores[0]) if len(result.scores) == 1 else None
    if interval:
        # Word joiners keep an interval on one line in a narrow column.
        text += f"<br><sub>{100 * interval[0]:.1f}\u2060–\u2060{100 * interval[1]:.1f}</sub>"
    return text


def _means(scores: Scores, models: Collection[str], tasks: Collection[str]) -> list[str]:
    """Means of the models that were scored on all of `tasks`: a mean over fewer could not be compared."""
    cells = []
    for model in models:
        results = [result for task in tasks if (result := scores.result(model, task))]
        mean = fmean(result.mean for result in results) if len(results) == len(tasks) else None
        cells.append("" if mean is None else f"{100 * mean:.2f}")
    return cells


def worse_tasks(scores: Scores, models: ScoredModels) -> list[str]:
    """A sentence for each task on which this model scores below its base, with an interval if known."""
    this, base = models.this, models.base
    if this is None or base is None or this == base:
        return []
    worse = {}
    for task in scores.tasks:
        result, other = scores.result(this, task), scores.result(base, task)
        if result and other and result.mean < other.mean:
            worse[task] = (scores.task_score(result), scores.task_score(other))
    if not worse:
        return []
    sides = []
    for side, name in enumerate((this, base)):
        sides.append(Scored(name, {"": {task: pair[side] for task, pair in worse.items()}}))
    differences = compare(sides, baseline=base, draws=DRAWS).rows[0].differences
    sentences = []
    for task, (score, reference) in worse.items():
        difference, note = differences[task], ""
        if difference.low is not None and difference.high is not None:
            noise = ", within the noise" if (difference.p or 0) >= difference.alpha else ""
            note = (
                f" (difference {100 * difference.value:+.2f}, "
                f"95 % interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}{noise})"
            )
        values = f"{100 * score.main_score:.2f} against {100 * reference.main_score:.2f}"
        sentences.append(f"On {task} it scores below its base: {values}{note}.")
    return sentences
