"""What a model predicted for each example of an mteb task, kept while mteb scores it; and faster columns.

The results of a split and subset are kept only if the score that mteb reports follows from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from datasets.table import InMemoryTable
from mteb import abstasks
from mteb.abstasks import AbsTask
from mteb.abstasks.multilabel_classification import AbsTaskMultilabelClassification

from selfpos.console import log
from selfpos.evaluation.mteb_internals import Evaluated, observed
from selfpos.scores.examples import Examples, score_of

AGREEMENT = 1e-4  # mteb rounds retrieval scores to five digits

# Similarity in a main score's name -> mteb's name of the predictions.
PREDICTIONS = {
    "cosine": "cosine_scores",
    "": "similarity_scores",
    "dot": "dot_scores",
    "euclidean": "euclidean_distances",
    "manhattan": "manhattan_distances",
}
# mteb's name of a retrieval measure -> pytrec_eval's.
TREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
# kind, number of examples, bytes that identify them, arrays; as in `Examples`
Recorded = tuple[str, int, bytes, dict[str, np.ndarray]]


@contextmanager
def recording(task: AbsTask) -> Iterator[list[Examples]]:
    """While the block runs, add the results of each split and subset of `task` to the yielded list.

    Task types without intervals, and scores that do not follow from their examples, add nothing.
    """
    collected: list[Examples] = []

    def done(evaluated: Evaluated, scores: Mapping[str, Any]) -> None:
        try:
            recorded = _record(task, evaluated)
            if recorded is None:
                return
            kind, count, identity, arrays = recorded
            key = hashlib.sha256(identity).hexdigest()[:16]
            examples = Examples(evaluated.split, evaluated.subset, kind, count, key, arrays)
            score, reported = score_of(examples), float(scores[task.metadata.main_score])
            if abs(score - reported) > AGREEMENT:
                raise ValueError(f"their score is {score:.5f}, mteb reports {reported:.5f}")
        except Exception as error:
            title = f"{task.metadata.name} ({evaluated.split}, {evaluated.subset})"
            log.info("the examples of %s are not kept: %s", title, error)
        else:
            collected.append(examples)

    with observed(task, done):
        yield collected


def _record(task: Any, evaluated: Evaluated) -> Recorded | None:
    if isinstance(task, AbsTaskMultilabelClassification):  # a subclass of classification
        return None
    recorders = {
        abstasks.AbsTaskRetrieval: retrieval,
        abstasks.AbsTaskSTS: sts,
        abstasks.AbsTaskPairClassification: pair_classification,
        abstasks.AbsTaskClassification: classification,
        abstasks.AbsTaskClustering: clustering,
    }
    recorder = next((recorder for kind, recorder in recorders.items() if isinstance(task, kind)), None)
    return recorder(task, evaluated) if recorder else None


def retrieval(task: Any, evaluated: Evaluated) -> Recorded | None:
    """Each query's value of the main score, as pytrec_eval computes it."""
    name, _, depth = task.metadata.main_score.rpartition("_at_")
    if name not in TREC or not evaluated.query_scores:
        return None
    queries = sorted(evaluated.query_scores)
    column = f"{TREC[name]}_{depth}"
    values = np.array([evaluated.query_scores[query][column] for query in queries], np.float32)
    return "mean", len(queries), "\n".join(queries).encode(), {"values": values}


def sts(task: Any, evaluated: Evaluated) -> Recorded | None:
    side, _, kind = task.metadata.main_score.rpartition("_")
    scores = evaluated.predictions.get(PREDICTIONS.get(side, ""))
    if scores is None or kind not in ("spearman", "pearson"):
        return None
    gold = np.array(evaluated.data["score"], np.float64)
    # Similarities differ in the seventh digit and their order must survive storing: float64.
    return kind, len(gold), gold.tobytes(), {"scores": np.array(scores, np.float64), "gold": gold}


def pair_classification(task: Any, evaluated: Evaluated) -> Recorded | None:
    """Scores by the similarity with the greatest average precision, as in mteb's `max_ap`."""
    data = evaluated.data
    gold = np.array((data[0] if len(data) == 1 else data)[task.label_column_name], np.int8)
    side = task.metadata.main_score.removesuffix("_ap")
    candidates = []
    for name in PREDICTIONS.values():
        sign = -1 if name.endswith("_distances") else 1
        if side == "max" or name.startswith(f"{side}_"):
            scores: np.ndarray = sign * np.array(evaluated.predictions[name], np.float64)
            arrays = {"scores": scores, "gold": gold}
            candidates.append(Examples("", "", "average-precision", len(gold), "", arrays))
    if not candidates:
        return None
    return "average-precision", len(gold), gold.tobytes(), dict(max(candidates, key=score_of).arrays)


def classification(task: Any, evaluated: Evaluated) -> Recorded | None:
    """The share of experiments that classified each text correctly; for F1 what each experiment predicted."""
    gold = np.array(evaluated.data[evaluated.split][task.label_column_name])
    predicted = np.array(evaluated.predictions)
    identity = str(gold.tolist()).encode()
    if task.metadata.main_score == "f1":
        _, labels = np.unique(np.append(predicted, gold), return_inverse=True)
        numbers = labels.astype(np.int32).reshape(-1, len(gold))
        return "macro-f1", len(gold), identity, {"predicted": numbers[:-1], "gold": numbers[-1]}
    if task.metadata.main_score != "accuracy":
        return None
    return "mean", len(gold), identity, {"values": (predicted == gold).mean(0, dtype=np.float32)}


def clustering(task: Any, evaluated: Evaluated) -> Recorded | None:
    """Clusterings of drawn documents; the draws are repeated with the generator as it was before mteb's."""
    if task.metadata.main_score != "v_measure":
        return None
    rng, total = evaluated.random, len(evaluated.data)
    size = task.max_document_to_embed
    if task.max_fraction_of_documents_to_embed is not None:
        size = int(task.max_fraction_of_documents_to_embed * total)
    chosen = list(range(total)) if size is None else rng.sample(range(total), k=min(total, size))
    labels_of = evaluated.data[task.label_column_name]
    label_lists = [label if isinstance(label, list) else [label] for label in labels_of]
    index, labels, clusters = [], [], []
    for depth, clusterings in enumerate(evaluated.predictions.values()):
        pool = [row for row in chosen if len(label_lists[row]) > depth and label_lists[row][depth] != -1]
        names = sorted({label_lists[document][depth] for document in pool}, key=str)
        numbers = {label: number for number, label in enumerate(names)}
        for clustering in clusterings:
            drawn = [pool[position] for position in rng.choices(range(len(pool)), k=len(clustering))]
            index.append(drawn)
            labels.append([numbers[label_lists[document][depth]] for document in drawn])
            clusters.append(clustering)
    positions = {document: position for position, document in enumerate(sorted(chosen))}
    arrays = {
        "index": np.array([[positions[document] for document in drawn] for drawn in index], np.int32),
        "labels": np.array(labels, np.int32),
        "clusters": np.array(clusters, np.int32),
    }
    return "v-measure", len(positions), arrays["index"].tobytes() + arrays["labels"].tobytes(), arrays


@contextmanager
def columns_as_lists(task: AbsTask) -> Iterator[None]:
    """While the block runs, `task` loads lists as columns; not retrieval, whose corpora are large.

    A `datasets.Column` decodes its rows again each time it is read, and mteb reads the labels of a
    classification task about three hundred times: such a task would take 1.4 times the CPU time with
    all-MiniLM-L6-v2, and 4 to 16 times with cached embeddings.
    """
    if isinstance(task, abstasks.AbsTaskRetrieval) or list(task.metadata.modalities) != ["text"]:
        yield
        return

    def load_data(*arguments: Any, **options: Any) -> None:
        type(task).load_data(task, *arguments, **options)
        task.dataset = listed(task.dataset)

    task.load_data = load_data  # type: ignore[method-assign]
    try:
        yield
    finally:
        del task.load_data


def listed(data: Any) -> Any:
    """`data`, a data set or a dictionary of data sets at any depth, with lists as columns."""
    if isinstance(data, Dataset):
        table = data.with_format("arrow")[:]
        return ListedDataset(InMemoryTable(table), info=data.info, split=data.split)
    if isinstance(data, dict):
        kind = DatasetDict if isinstance(data, DatasetDict) else dict
        return kind({name: listed(part) for name, part in data.items()})
    return data


class _Columns(dict[str, list[Any]]):
    """Columns read so far. Copies of a data set are made to change its columns, so a copy starts empty."""

    def __deepcopy__(self, memo: object) -> _Columns:
        return _Columns()


class ListedDataset(Dataset):
    """A data set whose columns are lists, read on first use."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._columns = _Columns()

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._columns:
            self._columns[key] = list(super().__getitem__(key)[:])
        return self._columns[key]

    def select(self, *arguments: Any, **options: Any) -> Dataset:
        made: Dataset = listed(super().select(*arguments, **options))
        return made
