"""MTEB tasks whose data is given by a function: subclasses of MTEB's own abstract tasks, scored by mteb itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

# Our word for the type -> abstract task, type in MTEB's metadata, category, main score.
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
    """An evaluation task. `dataset` and `revision` are those of its data on the Hub; `category` is the Hub's name for it.

    What is unknown is None: MTEB does not know the user's own tasks.
    """

    name: str
    type: str | None = None
    metric: str | None = None
    dataset: str | None = None
    revision: str | None = None
    category: str | None = None


def describe_task(name: str, known: tuple[str, str] | None = None) -> TaskInfo:
    """The task as MTEB knows it; others by `known`, their type and metric as noted when they were scored."""
    import mteb

    from selfpos.evaluation.local_data import OWN_TASKS

    try:
        metadata = mteb.get_task(name).metadata
    except (KeyError, ValueError):
        if known is None and name in OWN_TASKS:
            _, kind, _, metric = KINDS[OWN_TASKS[name].kind]
            known = kind, metric
        return TaskInfo(name, *(known or ()))
    data = metadata.dataset
    kind, metric, category = str(metadata.type), str(metadata.main_score), metadata._hf_task_type()[0]
    return TaskInfo(name, kind, metric, data["path"], data.get("revision"), category)


def new_task(
    kind: str,
    name: str,
    description: str,
    load: Callable[[], Mapping[str, Any]],
    *,
    revision: str,
    source: str,
    splits: tuple[str, ...] = ("test",),
    **attributes: Any,
) -> AbsTask:
    """A task of our own, of a type in `KINDS`. `load` returns what the abstract task keeps in `dataset`; it is called when the task is first run.

    `revision` identifies the data (a content hash), `source` says where it is from; `attributes` are class attributes of the abstract task.
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
        eval_splits=list(splits),
        eval_langs=["eng-Latn"],
        main_score=main_score,
        reference=None,
        prompt=task_class.abstask_prompt,  # what models that want an instruction are told
    )
    return with_data(task_class, metadata, load, **attributes)


def with_data(
    task_class: type[AbsTask], metadata: Any, load: Callable[[], Mapping[str, Any]], **attributes: Any
) -> AbsTask:
    """An instance of a subclass of `task_class` that takes its data from `load` instead of the Hub. The task's own transformation still runs."""

    def load_data(self: AbsTask, num_proc: int | None = None, **_: Any) -> None:
        if not self.data_loaded:
            self.dataset = load()
            self.dataset_transform(num_proc=num_proc)
            self.data_loaded = True

    return type(
        task_class.__name__, (task_class,), {"metadata": metadata, "load_data": load_data, **attributes}
    )()


def retrieval_data(
    documents: Mapping[str, Mapping[str, str]],
    queries: Mapping[str, str],
    relevant: Mapping[str, Mapping[str, int]],
    *,
    pools: Any = None,
) -> dict[str, Any]:
    """What a retrieval task keeps for one split: `documents` id -> title and text; `queries` id -> text; `relevant` query -> document -> grade;
    `pools` query -> documents to rank, for reranking."""
    from datasets import Dataset

    return {
        "corpus": Dataset.from_list(
            [
                {"id": key, "title": document.get("title", ""), "text": document["text"]}
                for key, document in documents.items()
            ]
        ),
        "queries": Dataset.from_list(
            [{"id": key, "text": text} for key, text in queries.items() if key in relevant]
        ),
        "relevant_docs": {key: dict(grades) for key, grades in relevant.items()},
        "top_ranked": pools,
    }
