"""The card's table of scores, and which of the scored models are this one and its rivals."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from statistics import fmean

from selfpos.comparison import Scored, compare
from selfpos.publishing.facts import Facts
from selfpos.publishing.scores import Scores
from selfpos.storage.hashing import REVISION_LENGTH

DRAWS = 2000  # behind the interval of a difference to the base


@dataclass(frozen=True)
class ScoredModels:
    """Names in the scores: this model, its base, parents and joint models.

    `stale` are names of these whose scores belong to other weights than they have now.
    """

    own: str | None = None
    base: str | None = None
    parents: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    @property
    def family(self) -> list[str]:
        """This model first, each name once."""
        names = [self.own, self.base, *self.parents, *self.joints]
        return list(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class ScoreTable:
    """Models as columns, tasks and means over tasks as rows of a label and one cell per model."""

    models: list[str]
    rows: list[tuple[str, list[str]]]


def match_models(scores: Scores, facts: Facts, content: str) -> ScoredModels:
    """Find the model of `facts`, whose content hash is `content`, and its family in `scores`.

    `selfpos eval-mteb` files results by content hash. Results by the right name but another hash belong to
    weights that no longer exist. MTEB's own results of a local model have only a name.
    """
    stale: dict[str, None] = {}

    def find(content: str | None, names: Collection[str], repo: str | None = None) -> str | None:
        named = []
        for model, (result, *_) in scores.models.items():
            if content and result.revision == content[:REVISION_LENGTH]:
                return model
            if model in names:
                named.append((model, result))
        for model, result in named:
            is_hash = re.fullmatch(rf"[0-9a-f]{{{REVISION_LENGTH}}}", result.revision)
            if not content or not is_hash or (repo and result.model == repo):
                return model
        stale.update(dict.fromkeys(model for model, _ in named))
        return None

    own, base = find(content, [facts.name]), None
    if facts.base:
        names = ["base", *(name.rpartition("/")[2] for name in (facts.base.name, facts.base.repo or ""))]
        base = find(facts.base.hash, names, facts.base.repo)
    parents = [find(parent.hash, [parent.name.rpartition("/")[2]], parent.repo) for parent in facts.parents]
    joints = list(facts.run.recipe.joints) if facts.run else []
    return ScoredModels(
        own=own,
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
    own, base = models.own, models.base
    if own is None or base is None or own == base:
        return []
    worse = {}
    for task in scores.tasks:
        result, other = scores.result(own, task), scores.result(base, task)
        if result and other and result.mean < other.mean:
            worse[task] = (scores.task_score(result), scores.task_score(other))
    if not worse:
        return []
    sides = [
        Scored(name, {"": {task: pair[side] for task, pair in worse.items()}})
        for side, name in enumerate((own, base))
    ]
    differences = compare(sides, baseline=base, draws=DRAWS).rows[0].differences
    sentences = []
    for task, (score, reference) in worse.items():
        difference, note = differences[task], ""
        if difference.low is not None and difference.high is not None:
            noise = ", within the noise" if difference.low <= 0 <= difference.high else ""
            note = (
                f" (difference {100 * difference.value:+.2f}, "
                f"95 % interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}{noise})"
            )
        values = f"{100 * score.main_score:.2f} against {100 * reference.main_score:.2f}"
        sentences.append(f"On {task} it scores below its base: {values}{note}.")
    return sentences
