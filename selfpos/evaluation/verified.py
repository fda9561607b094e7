"""Local data of MTEB's tasks: whether it loads, and whether it is what MTEB has.

mteb ships counts of its test sets. Data that differs in them is another test set: its scores are marked by
their data's revision, and no leaderboard gets them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.data.files import check_content, kind_of
from selfpos.data.tables import READING
from selfpos.errors import SelfposError, on_one_line
from selfpos.evaluation.local_data import data_files
from selfpos.evaluation.mteb_internals import columns_of, set_splits, split_statistics
from selfpos.evaluation.tasks import kind_of as task_kind
from selfpos.storage.atomic import write_text
from selfpos.storage.locate import cache_folder

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

ALTERED = "local-altered-"
"""What the revision of such data begins with."""
LOOKING = 2
"""Of the rules by which data is looked at: a verdict of others is made again."""
COUNTS = {
    "rows": ("num_samples",),
    "characters": ("number_of_characters",),
    "characters of texts": ("text_statistics", "total_text_length"),
    "documents": ("num_documents",),
    "queries": ("num_queries",),
    "judgements": ("relevant_docs_statistics", "num_relevant_docs"),
    "labels": ("label_statistics", "unique_labels"),
    "classes": ("labels_statistics", "unique_labels"),
    "the mean score": ("label_statistics", "avg_score"),
}
"""What is compared: words → where mteb's statistics have it."""


def fault_of(task: AbsTask) -> str:
    """Why the data of `task` does not load; empty where it does."""
    return _verdict(task)["fault"]


def with_mark(task: AbsTask) -> AbsTask:
    """`task`, marked where its data is not what MTEB's statistics say."""
    differences = _verdict(task)["differences"]
    if not differences:
        return task
    revision = str(task.metadata.dataset["revision"]).replace("local-", ALTERED, 1)
    dataset = {**task.metadata.dataset, "revision": revision}
    members = {
        "metadata": task.metadata.model_copy(update={"dataset": dataset}),
        "remark": f"not MTEB's test set: {differences}; the score is of other data, and is marked as such",
    }
    marked: AbsTask = type(type(task).__name__, (type(task),), members)()
    set_splits(marked, task.eval_splits, task.hf_subsets)
    return marked


def _verdict(task: AbsTask) -> dict[str, str]:
    """`fault` and `differences` of the data of `task`; kept, for the data has to be loaded for it."""
    from mteb import __version__ as version

    revision = str(task.metadata.dataset["revision"])
    rules = f"{READING} {LOOKING}"
    parts = [task.metadata.name, revision, version, rules, *task.eval_splits]
    key = " ".join([*parts, *map(str, task.hf_subsets or ())]).replace("/", "_")
    file = cache_folder() / "mteb-data.json"
    verdicts: dict[str, dict[str, str]] = {}
    if file.is_file():
        try:
            verdicts = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            verdicts = {}  # it is made again
    if key not in verdicts:
        verdict = _look_at(task)
        if verdict["fault"]:
            return verdict  # which may pass
        verdicts[key] = verdict
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(verdicts, indent=1) + "\n")
    return verdicts[key]


def _look_at(task: AbsTask) -> dict[str, str]:
    fresh = type(task)()  # its data is not kept in memory
    set_splits(fresh, task.eval_splits, task.hf_subsets)
    try:
        for file in data_files(Path(str(task.metadata.dataset["path"]))):
            if kind_of(file):
                check_content(file)
        fresh.load_data()
        if fault := next(_faults(fresh), ""):
            return {"fault": fault, "differences": ""}
        differences = "; ".join(_differences(fresh))
    except SelfposError as error:
        return {"fault": str(error), "differences": ""}
    except Exception as error:
        return {"fault": _plainly(error.__cause__ or error), "differences": ""}
    return {"fault": "", "differences": differences}


def _plainly(error: BaseException) -> str:
    """What mteb and `datasets` raise on data of another form, for those who have the data."""
    text = on_one_line(error, 200)
    if isinstance(error, KeyError):
        return f"it has no {text}"  # a split, or a field
    if isinstance(error, StopIteration):
        return "one of its files is empty"
    if part := re.match(r"BuilderConfig '(.*?)' not found", text):
        return f"it has no part '{part[1]}', which is a file or folder of that name, or named in its README"
    if isinstance(error, TypeError):
        return f"a field has text, or nothing, where mteb takes numbers ({text})"
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _faults(task: AbsTask) -> Iterator[str]:
    """What is wrong with values of the loaded data that mteb would find only when it scores."""
    kind = task_kind(task)
    if kind not in ("sts", "pair-classification"):
        return
    names = {"score": "score", "labels": "labels"} | columns_of(task)
    column = names["score" if kind == "sts" else "labels"]
    for place, data in _tables(task):
        values = data[column][:]
        flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
        if odd := next((value for value in flat if not isinstance(value, int | float)), ""):
            yield f"{place}: '{column}' must hold numbers, found {odd!r}"


def _tables(task: AbsTask) -> Iterator[tuple[str, Any]]:
    """The loaded data of each split and subset that is scored, and where it is in words."""
    for split in task.eval_splits:
        for subset in task.hf_subsets or ["default"]:
            whole = task.dataset or {}
            yield _place(split, subset), whole.get(subset, whole)[split]


def _place(split: str, subset: str) -> str:
    return split if subset == "default" else f"{split}, {subset}"


def _differences(task: AbsTask) -> Iterator[str]:
    """What differs from mteb's statistics, by split and subset."""
    published = task.metadata.descriptive_stats or {}
    for split in task.eval_splits:
        for subset in task.hf_subsets or ["default"]:
            whole: Mapping[str, Any] = published.get(split) or {}
            expected = (whole.get("hf_subset_descriptive_stats") or {}).get(subset, whole)
            if not expected or (subset != "default" and expected is whole):
                continue
            counted = split_statistics(task, split, subset)
            for words, path in COUNTS.items():
                ours, theirs = _at(counted, path), _at(expected, path)
                if ours is not None and theirs is not None and abs(ours - theirs) > 1e-6:
                    yield f"{_place(split, subset)}: {words} {ours:,.10g} for {theirs:,.10g}"


def _at(statistics: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = statistics
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None
