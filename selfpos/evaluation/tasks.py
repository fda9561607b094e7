"""MTEB tasks made from data that a function loads, and what is known of a task by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from selfpos.evaluation.mteb_internals import hub_category

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

Splits = Mapping[str, Any]
"""Split → its records with canonical columns; for retrieval a `Beir`."""
# Our name of the type -> abstract task, type in MTEB's metadata, category, main score.
KINDS = {
    "retrieval": ("AbsTaskRetrieval", "Retrieval", "t2t", "ndcg_at_10"),
    "reranking": ("AbsTaskRetrieval", "Reranking", "t2t", "map_at_1000"),
    "classification": ("AbsTaskClassification", "Classification", "t2c", "accuracy"),
    "clustering": ("AbsTaskClustering", "Clustering", "t2c", "v_measure"),
    "pair-classification": ("AbsTaskPairClassification", "PairClassification", "t2t", "max_ap"),
    "sts": ("AbsTaskSTS", "STS", "t2t", "cosine_spearman"),
}


@dataclass(frozen=True)
class TaskInfo:
    """A task; `dataset` and `revision` are its data on the Hub. None where MTEB does not know the task."""

    name: str
    type: str | None = None
    metric: str | None = None
    dataset: str | None = None
    revision: str | None = None
    category: str | None = None


def describe_task(name: str, known: tuple[str, str] | None = None) -> TaskInfo:
    """The task as MTEB knows it, else with `known`, its type and metric as noted when it was scored."""
    from selfpos.evaluation.local_data import OWN_TASKS

    if (of_mteb := _of_mteb(name)) is not None:
        return of_mteb
    if known is None and name in OWN_TASKS:
        _, kind, _, metric = KINDS[OWN_TASKS[name].kind]
        known = kind, metric
    return TaskInfo(name, *(value or None for value in known or ()))


@cache
def _of_mteb(name: str) -> TaskInfo | None:
    """The task as MTEB knows it. Kept, for MTEB looks long for names like one that it does not know."""
    import mteb

    try:
        metadata = mteb.get_task(name).metadata
    except (KeyError, ValueError):
        return None
    dataset, revision = metadata.dataset["path"], metadata.dataset.get("revision")
    kind, metric = str(metadata.type), str(metadata.main_score)
    return TaskInfo(name, kind, metric, dataset, revision, hub_category(metadata))


def kind_of(task: AbsTask) -> str:
    """Our name of the task's type, where its data may be in our layout; else empty."""
    from mteb import abstasks
    from mteb.abstasks.multilabel_classification import AbsTaskMultilabelClassification

    if isinstance(task, AbsTaskMultilabelClassification) or list(task.metadata.modalities) != ["text"]:
        return ""
    for kind, (base, task_type, *_) in KINDS.items():
        if str(task.metadata.type) == task_type and isinstance(task, getattr(abstasks, base)):
            return kind
    return ""


def new_task(
    kind: str,
    name: str,
    description: str,
    load: Callable[[], Mapping[str, Any]],
    *,
    revision: str,
    source: str,
    remark: str = "",
    **attributes: Any,
) -> AbsTask:
    """A new task of a type in `KINDS`, whose `dataset` `load` returns when it is first run.

    `remark` is to be said before it is scored, `attributes` are class attributes of the abstract task.
    """
    import mteb.abstasks
    from mteb.abstasks.task_metadata import TaskMetadata

    base, task_type, category, main_score = KINDS[kind]
    task_class = getattr(mteb.abstasks, base)
    metadata = TaskMetadata(
        name=name,
        description=description,
        dataset={"path": source, "revision": revision},
        type=task_type,
        category=category,
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        reference=None,
        prompt=task_class.abstask_prompt,  # the instruction for models that need one
    )
    return with_data(task_class, metadata, load, remark=remark, **attributes)


def with_data(
    task_class: type[AbsTask],
    metadata: Any,
    load: Callable[[], Mapping[str, Any]],
    *,
    transforms: bool = True,
    **attributes: Any,
) -> AbsTask:
    """A task of a subclass of `task_class` with data from `load`, unless `transforms` is off as mteb
    transforms it.
    """

    def load_data(self: AbsTask, num_proc: int | None = None, **_: Any) -> None:
        if not self.data_loaded:
            self.dataset = load()
            if transforms:
                self.dataset_transform(num_proc=num_proc)
            self.data_loaded = True

    seed = {"seed": attributes.pop("seed")} if "seed" in attributes else {}  # the constructor's, else mteb's
    members = {"metadata": metadata, "load_data": load_data, **attributes}
    made: AbsTask = type(task_class.__name__, (task_class,), members)(**seed)
    return made


def retrieval_data(
    documents: Mapping[str, Mapping[str, str]],
    queries: Mapping[str, str],
    relevant: Mapping[str, Mapping[str, int]],
    *,
    pools: Any = None,
) -> dict[str, Any]:
    """The dataset of one split of a retrieval task.

    `documents` maps ids to title and text, `queries` ids to texts, `relevant` queries to documents to grades,
    and `pools`, for reranking, queries to the documents to rank.
    """
    from datasets import Dataset

    corpus = [
        {"id": key, "title": document.get("title", ""), "text": document["text"]}
        for key, document in documents.items()
    ]
    query_rows = [{"id": key, "text": text} for key, text in queries.items() if key in relevant]
    return {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list(query_rows),
        "relevant_docs": {key: dict(grades) for key, grades in relevant.items()},
        "top_ranked": pools,
    }


def dataset_of(
    kind: str, splits: Splits, labels: Sequence[Any] | None = None, renamed: Mapping[str, str] | None = None
) -> Any:
    """Data of one subset as MTEB's abstract task has it, from split → records (retrieval: `read_beir`'s).

    `labels` are class labels in the order of their numbers, `renamed` columns that a task calls otherwise.
    """
    from datasets import Dataset, DatasetDict

    if kind == "retrieval":
        return {split: retrieval_data(*parts[:3]) for split, parts in splits.items()}
    if kind == "reranking":
        return {split: reranking_pools(records, split) for split, records in splits.items()}
    columns = {
        "sts": {"sentence1": "sentence1", "sentence2": "sentence2", "score": "score"},
        "pair-classification": {"sentence1": "sentence1", "sentence2": "sentence2", "labels": "label"},
        "clustering": {"sentences": "text", "labels": "label"},
        "classification": {"text": "text", "label": "label"},
    }[kind]
    numbers: dict[str, int] = {}
    if kind == "classification":
        label_values = {record["label"] for records in splits.values() for record in records}
        classes = labels or sorted(label_values, key=lambda label: (str(type(label)), label))
        names = dict.fromkeys(class_name(label) for label in classes)
        numbers = {name: number for number, name in enumerate(names)}
    made = {}
    for split, records in splits.items():
        table = {theirs: [record[ours] for record in records] for theirs, ours in columns.items()}
        if kind == "classification":
            table["label"] = [numbers[class_name(label)] for label in table["label"]]
        made[split] = Dataset.from_dict({(renamed or {}).get(name, name): table[name] for name in table})
    return DatasetDict(made)


def class_name(label: Any) -> str:
    """The label as text: one class is 1 in one file, and 1.0 or "1" in another."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def fault_of_records(kind: str, splits: Splits) -> str:
    """Why mteb would compute nothing, or nonsense, on the records; empty where it would not."""
    for split, records in splits.items():
        if fault := _fault_of_split(kind, split, records):
            return fault
    if kind != "classification":
        return ""
    labels = {split: {class_name(record["label"]) for record in splits[split]} for split in splits}
    for split in labels.keys() - {"train"}:
        if strange := sorted(labels[split] - labels["train"]):
            return (
                f"{len(strange)} labels of {split} are not in train ({', '.join(strange[:5])}), so that no "
                "classifier can learn them; add training texts, or remove those records"
            )
    return ""


def _fault_of_split(kind: str, split: str, records: Any) -> str:
    if kind == "reranking":
        return ""
    if kind == "retrieval":
        right = any(grade > 0 for grades in records.relevant.values() for grade in grades.values())
        return "" if right else f"no judgement of {split} is above 0, which marks what is right"
    column = "score" if kind == "sts" else "label"
    counts = Counter(class_name(record[column]) for record in records)
    if len(counts) < 2:
        return (
            f"all {len(records)} records of {split} have the {column} {next(iter(counts), '')}; a {kind} "
            f"task needs two {column}s or more"
        )
    if kind == "clustering" and len(counts) == len(records):
        return (
            f"each of the {len(records)} records of {split} has a label of its own; a clustering task needs "
            "labels that texts share"
        )
    return ""


def reranking_pools(rows: list[dict[str, Any]], split: str) -> dict[str, Any]:
    """Each question ranks its own candidates, as mteb makes them of such records: its ids decide ties."""
    documents: dict[str, dict[str, str]] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for number, row in enumerate(rows):
        key = f"{split}_query{number}"
        queries[key], relevant[key] = row["query"], {}
        for side, name, grade in (("positive", "apositive", 1), ("negative", "negative", 0)):
            texts = [row[side]] if isinstance(row[side], str) else row[side]
            for index, text in enumerate(texts):
                relevant[key][f"{name}_{key}_{index:05d}"] = grade
                documents[f"{name}_{key}_{index:05d}"] = {"text": text}
    pools = {key: list(grades) for key, grades in relevant.items()}
    return retrieval_data(documents, queries, relevant, pools=pools)
