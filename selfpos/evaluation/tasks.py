"""MTEB tasks whose data is given by a function: subclasses of MTEB's own abstract tasks, scored by mteb itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
