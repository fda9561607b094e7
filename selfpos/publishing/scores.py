"""Scores for the card, read from what MTEB and `selfpos eval-mteb` wrote.

A folder of scores holds MTEB's result files, `<model>/<revision>/<task>.json` at any depth. Where `selfpos eval-mteb` wrote them there is a
`last.json` too, which tells the scores that count, and type and metric of tasks that MTEB itself does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from selfpos.publishing.shape import read_json

FOLDER = "eval"  # of scores inside a model folder: it is no part of the model's content hash
LAST = "last.json"
RESAMPLES = 2000


@dataclass(frozen=True)
class Score:
    """One model on one split and language subset of one task. `value` is MTEB's main score, between 0 and 1; `draws` are those of MTEB's repeated draws
    of training or clustering samples, where it is their mean; `file` is MTEB's.
    """

    task: str
    value: float
    split: str
    subset: str
    revision: str | None
    draws: tuple[float, ...] = ()
    file: Path | None = field(default=None, compare=False)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval: of a bootstrap over the task's examples where what the model got right of each was kept, else of the mean over `draws`."""
        return self._resampled() or self._over_draws()

    def _resampled(self) -> tuple[float, float] | None:
        """Percentiles over resampled examples, moved to have the score for their mean: examples drawn twice by themselves raise a V-measure."""
        import numpy as np

        from selfpos.scores.examples import examples_file, read_examples
        from selfpos.scores.measures import resamples

        if self.file is None or len(self.file.parents) < 4:
            return None
        for part in read_examples(examples_file(self.file), str(self.revision)):
            if (part.split, part.subset) == (self.split, self.subset):
                drawn = resamples([part], RESAMPLES, seed=0)
                low, high = np.quantile(drawn, [0.025, 0.975]) - drawn.mean() + self.value
                return float(low), float(high)
        return None

    def _over_draws(self) -> tuple[float, float] | None:
        """Student's t interval of the mean."""
        if len(self.draws) < 2:
            return None
        from scipy.stats import t

        half = float(t.ppf(0.975, len(self.draws) - 1)) * stdev(self.draws) / len(self.draws) ** 0.5
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Task:
    """What an evaluation task is. `dataset` and `revision` are those of its data on the Hub, None for a task that MTEB does not know; `category`
    is the Hub's name of such tasks.
    """

    name: str
    type: str | None = None
    metric: str | None = None
    dataset: str | None = None
    revision: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Scores:
    """The scores of all models below one folder: model → its scores, and what is known of the tasks. `files` are MTEB's result files by model;
    `identities` the name and revision under which MTEB filed it, the revision being the content hash of a model that we scored.
    """

    models: Mapping[str, tuple[Score, ...]]
    tasks: Mapping[str, Task]
    mteb: str | None
    files: Mapping[str, tuple[Path, ...]]

    @property
    def identities(self) -> dict[str, tuple[str, str]]:
        return {
            model: (files[0].parent.parent.name.replace("__", "/"), files[0].parent.name)
            for model, files in self.files.items()
        }

    def of(self, names: Sequence[str]) -> Scores | None:
        """Those of the models `names`; None where none of them was scored."""
        models = {name: scores for name, scores in self.models.items() if name in names}
        tasks = {score.task for scores in models.values() for score in scores}
        files = {model: self.files[model] for model in models}
        return (
            Scores(
                models, {name: task for name, task in self.tasks.items() if name in tasks}, self.mteb, files
            )
            if models
            else None
        )

    def from_hub(self, score: Score) -> bool:
        """Whether it was made on the data of the Hub that MTEB names for its task, rather than on files kept locally."""
        task = self.tasks[score.task]
        return task.dataset is not None and score.revision == task.revision

    def on_local_data(self, model: str) -> list[str]:
        """MTEB's tasks that `model` was scored on with files kept locally."""
        found = self.models.get(model, ())
        return sorted(
            {
                score.task
                for score in found
                if self.tasks[score.task].dataset is not None and not self.from_hub(score)
            }
        )

    def value(self, model: str, task: str) -> float | None:
        """Mean over the splits and subsets that `model` was scored on, None where it was not."""
        found = [score.value for score in self.models.get(model, ()) if score.task == task]
        return fmean(found) if found else None

    def interval(self, model: str, task: str) -> tuple[float, float] | None:
        """The interval of the task's only score; None where there is none, or more than one score to it."""
        found = [score for score in self.models.get(model, ()) if score.task == task]
        return found[0].interval if len(found) == 1 else None


def find_scores(folder: Path) -> Path | None:
    """Where the scores of the model in `folder` are: inside it, or in the run that it is part of."""
    if (folder / FOLDER).is_dir():
        return folder / FOLDER
    for run in folder.resolve().parents[:2]:
        if (run / "recipe.yaml").is_file() and (run / "scores").is_dir():
            return run / "scores"
    return None


def read_scores(root: Path) -> Scores | None:
    """Read what was scored below `root`; None where nothing was. Raises SelfposError where a file is not JSON."""
    listed, known = _last_files(root)
    covered = {file.parent.parent for file in listed}  # what lies beside, of the same models, counts no more
    found = [*listed, *(file for file in sorted(root.rglob("*.json")) if file.parent.parent not in covered)]
    records = [(file, read_json(file)) for file in dict.fromkeys(found)]
    records = [
        (file, record)
        for file, record in records
        if isinstance(record, dict) and isinstance(record.get("scores"), dict)
    ]
    records = [(file, record) for file, record in records if "task_name" in record]
    if not records:
        return None
    models: dict[str, list[Score]] = {}
    files: dict[str, list[Path]] = {}
    places = {file.parent for file, _ in records}
    names = [_short(place.parent.name) for place in places]
    for file, record in records:
        short = _short(file.parent.parent.name)
        model = short if names.count(short) == 1 else f"{short}@{file.parent.name[:8]}"
        metric = known.get(record["task_name"], {}).get("metric")
        models.setdefault(model, []).extend(_scores(record, metric, file))
        files.setdefault(model, []).append(file)
    versions = {str(record.get("mteb_version")) for _, record in records}
    tasks = {
        name: _describe(name, known.get(name, {}))
        for name in sorted({str(record["task_name"]) for _, record in records})
    }
    return Scores(
        {name: tuple(scores) for name, scores in models.items()},
        tasks,
        versions.pop() if len(versions) == 1 else None,
        {name: tuple(found) for name, found in files.items()},
    )


def _short(model: str) -> str:
    """The last part of a model's name, as MTEB writes it (`owner/name`) or files it (`owner__name`)."""
    return model.replace("__", "/").rpartition("/")[2]


def _last_files(root: Path) -> tuple[list[Path], dict[str, dict[str, Any]]]:
    """The files of every score that counts, and task → its type and metric, by the `last.json` files below `root`."""
    files: list[Path] = []
    known: dict[str, dict[str, Any]] = {}
    for last in sorted(root.rglob(LAST)):
        record = read_json(last)
        for task, entry in (record.get("tasks") or {}).items() if isinstance(record, dict) else ():
            files.append(last.parent / str(entry.get("file")))
            known[task] = entry
    return files, known


def _scores(record: Mapping[str, Any], metric: str | None, file: Path) -> Iterable[Score]:
    revision = record.get("dataset_revision")
    for split, subsets in record["scores"].items():
        for entry in subsets:
            value = entry.get("main_score")
            if isinstance(value, int | float):
                subset = str(entry.get("hf_subset", "default"))
                yield Score(
                    record["task_name"], float(value), split, subset, revision, _draws(entry, metric), file
                )


def _draws(entry: Mapping[str, Any], metric: str | None) -> tuple[float, ...]:
    """The main score of each of MTEB's repeated draws, if the main score is their mean."""
    given = [draw.get(metric) for draw in entry.get("scores_per_experiment") or () if isinstance(draw, dict)]
    given = given or [value for level in (entry.get("v_measures") or {}).values() for value in level]
    draws = tuple(float(value) for value in given if isinstance(value, int | float))
    return (
        draws
        if draws and len(draws) == len(given) and abs(fmean(draws) - entry["main_score"]) <= 1e-6
        else ()
    )


def _describe(name: str, known: Mapping[str, Any]) -> Task:
    """The task as MTEB knows it; one that MTEB does not know as `last.json` tells it."""
    import mteb

    try:
        metadata = mteb.get_task(name).metadata
    except (KeyError, ValueError):
        return Task(name, known.get("type"), known.get("metric"))
    data = metadata.dataset
    return Task(
        name,
        metadata.type,
        metadata.main_score,
        data["path"],
        data.get("revision"),
        metadata._hf_task_type()[0],
    )


def published(scores: Scores) -> dict[str, Path | bytes]:
    """The result files as they lie below the `eval` folder of a published model: path → file, and a `last.json` per model to read them by."""
    files: dict[str, Path | bytes] = {}
    for short, found in scores.files.items():
        model, revision = found[0].parent.parent.name, found[0].parent.name
        last: dict[str, Any] = {"model": model.replace("__", "/"), "revision": revision, "tasks": {}}
        for file in found:
            place = f"results/{model}/{revision}/{file.name}"
            files[f"{FOLDER}/{short}/{place}"] = file
            name = str(read_json(file)["task_name"])
            task, value = scores.tasks[name], scores.value(short, name)
            last["tasks"][name] = {
                "type": task.type,
                "metric": task.metric,
                "main_score": value,
                "file": place,
            }
        files[f"{FOLDER}/{short}/{LAST}"] = (json.dumps(last, indent=1) + "\n").encode()
    return files
