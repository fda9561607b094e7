"""Listening to an mteb task while it scores a model: what it predicted for each example, in the form of `examples.Examples`.

mteb hands a task's predictions to `_save_task_predictions`, and a retrieval task's scores by query to `task_specific_scores`; both are listened to on
the task object at hand and nowhere else. A part is kept only if it comes to the very score that mteb reports.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import log
from selfpos.scores.examples import Examples
from selfpos.scores.measures import score_of

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

AGREEMENT = 1e-4  # mteb rounds retrieval scores to five digits
LISTENED = ("_evaluate_subset", "_save_task_predictions", "task_specific_scores")


@contextmanager
def recording(task: AbsTask) -> Iterator[list[Examples]]:
    """While the block runs, what `task` finds out about examples is added to the list that is yielded, a part for each split and subset.

    Task types that tell nothing of their examples, or nothing that their score follows from, leave no part. Scores are never changed by it.
    """
    parts: list[Examples] = []
    heard: dict[str, Any] = {}
    evaluate = task._evaluate_subset

    def evaluate_and_listen(model: Any, data: Any, *, hf_split: str, hf_subset: str, **options: Any) -> Any:
        heard.clear()
        heard["random"] = copy.deepcopy(getattr(task, "rng_state", None))
        options["prediction_folder"] = Path()  # asks for predictions; nothing is written there
        scores = evaluate(model, data, hf_split=hf_split, hf_subset=hf_subset, **options)
        try:
            part = _part(task, data, heard, hf_split, hf_subset)
            wanted = float(scores[task.metadata.main_score])
            if part is not None and abs(score_of(part) - wanted) > AGREEMENT:
                raise ValueError(f"they come to {score_of(part):.5f}, the score is {wanted:.5f}")
        except Exception as error:
            part = None
            log.info(
                "the examples of %s (%s, %s) are not kept: %s", task.metadata.name, hf_split, hf_subset, error
            )
        if part is not None:
            parts.append(part)
        return scores

    def hear_predictions(predictions: Any, *_: Any, **__: Any) -> None:
        heard["predictions"] = predictions

    def hear_queries(scores: Mapping[str, Any], *rest: Any, **options: Any) -> Any:
        heard["queries"], heard["runs"] = (
            scores,
            rest[:2],
        )  # what is relevant to each query, and the scores of what was found for it
        return type(task).task_specific_scores(task, scores, *rest, **options)  # type: ignore[attr-defined]

    hooks = dict(zip(LISTENED, (evaluate_and_listen, hear_predictions, hear_queries), strict=True))
    hooks = {name: hook for name, hook in hooks.items() if hasattr(task, name)}
    for name, hook in hooks.items():
        setattr(task, name, hook)
    try:
        yield parts
    finally:
        for name in hooks:
            delattr(task, name)


def _part(task: AbsTask, data: Any, heard: Mapping[str, Any], split: str, subset: str) -> Examples | None:
    from mteb import abstasks
    from mteb.abstasks.multilabel_classification import AbsTaskMultilabelClassification
    from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining
    from mteb.abstasks.text.summarization import AbsTaskSummarization

    makers = {
        AbsTaskMultilabelClassification: _labelled,  # before classification, of which it is one
        AbsTaskBitextMining: _translated,
        AbsTaskSummarization: _summarised,
        abstasks.AbsTaskRetrieval: _queries,
        abstasks.AbsTaskSTS: _similarities,
        abstasks.AbsTaskPairClassification: _pairs,
        abstasks.AbsTaskClassification: _classified,
        abstasks.AbsTaskClustering: _clustered,
    }
    make = next((maker for kind, maker in makers.items() if isinstance(task, kind)), None)
    found = make(task, data[split] if make in (_classified, _labelled) else data, heard) if make else None
    if found is None:
        return None
    kind, count, identity, arrays = found
    return Examples(split, subset, kind, count, hashlib.sha256(identity).hexdigest()[:16], arrays)


Found = tuple[str, int, bytes, dict[str, np.ndarray]]  # kind, count, what the examples are known by, arrays


def _queries(task: Any, data: Any, heard: Mapping[str, Any]) -> Found | None:
    """Each query's own value of the main score, as pytrec_eval gives it."""
    if task.metadata.main_score == "p-MRR":
        return _followed(*heard["runs"])
    name, _, depth = task.metadata.main_score.rpartition("_at_")
    names = {
        "ndcg": "ndcg_cut",
        "map": "map_cut",
        "recall": "recall",
        "precision": "P",
        "hit_rate": "success",
    }
    if name not in names or not heard.get("queries"):
        return None
    scores = heard["queries"]
    ids = sorted(scores)
    values = np.array([scores[query][f"{names[name]}_{depth}"] for query in ids], np.float32)
    return "mean", len(ids), "\n".join(ids).encode(), {"values": values}


def _followed(
    relevant: Mapping[str, Mapping[str, int]], found: Mapping[str, Mapping[str, float]]
) -> Found | None:
    """Each question's p-MRR: how far the documents that another instruction makes irrelevant move, from its run with the first instruction ("-og") to
    that with the other ("-changed") (Weller et al. 2024, arXiv 2403.15246, section 4)."""
    values = {}
    for asked in (query.removesuffix("-og") for query in found if query.endswith("-og")):
        before, after = (relevant.get(f"{asked}-{which}", {}) for which in ("og", "changed"))
        runs = [found.get(f"{asked}-{which}", {}) for which in ("og", "changed")]
        moves = []
        for document in (document for document, grade in before.items() if after.get(document, 0) != grade):
            old, new = (_rank(run, document) for run in runs)
            moves.append(new / old - 1 if old >= new else 1 - old / new)
        if moves:
            values[asked] = float(np.mean(moves))
    ids = sorted(values)
    return (
        ("mean", len(ids), "\n".join(ids).encode(), {"values": np.array([values[one] for one in ids])})
        if ids
        else None
    )


def _rank(run: Mapping[str, float], document: str) -> int:
    """Place of `document` by score, equal scores by name, the last first, as mteb has it; after all where it was not found."""
    if document not in run:
        return len(run) + 1
    own = (run[document], document)
    return 1 + sum((score, name) > own for name, score in run.items())


def _similarities(task: Any, data: Any, heard: Mapping[str, Any]) -> Found | None:
    side, _, kind = task.metadata.main_score.rpartition("_")
    names = {
        "cosine": "cosine_scores",
        "euclidean": "euclidean_distances",
        "manhattan": "manhattan_distances",
        "": "similarity_scores",
    }
    scores = heard["predictions"].get(names.get(side, ""))
    if scores is None or kind not in ("spearman", "pearson"):
        return None
    gold = np.array(data["score"], np.float64)
    # the order must survive storing: similarities differ in the seventh digit, so they are kept as they are
    return kind, len(gold), gold.tobytes(), {"scores": np.array(scores, np.float64), "gold": gold}


def _pairs(task: Any, data: Any, heard: Mapping[str, Any]) -> Found | None:
    """Scores by the similarity whose average precision is the greatest, since `max_ap` is the greatest of them."""
    rows = data[0] if len(data) == 1 else data
    gold = np.array(rows[task.label_column_name], np.int8)
    signs = {
        "cosine_scores": 1,
        "similarity_scores": 1,
        "dot_scores": 1,
        "euclidean_distances": -1,
        "manhattan_distances": -1,
    }
    asked = task.metadata.main_score.removesuffix("_ap")
    if asked != "max":
        signs = {name: sign for name, sign in signs.items() if name.startswith(f"{asked}_")}
    given = {name: sign * np.array(heard["predictions"][name], np.float64) for name, sign in signs.items()}
    parts = [
        Examples("", "", "average-precision", len(gold), "", {"scores": scores, "gold": gold})
        for scores in given.values()
    ]
    return (
        ("average-precision", len(gold), gold.tobytes(), dict(max(parts, key=score_of).arrays))
        if parts
        else None
    )


def _classified(task: Any, data: Any, heard: Mapping[str, Any]) -> Found | None:
    """Share of the experiments (other draws of training texts) in which each text was classified rightly; for F1, what each experiment predicted."""
    gold, predicted = np.array(data[task.label_column_name]), np.array(heard["predictions"])
    identity = str(gold.tolist()).encode()
    if task.metadata.main_score == "f1":
        numbers = (
            np.unique(np.append(predicted, gold), return_inverse=True)[1]
            .astype(np.int32)
            .reshape(-1, len(gold))
        )
        return "macro-f1", len(gold), identity, {"predicted": numbers[:-1], "gold": numbers[-1]}
    if task.metadata.main_score != "accuracy":
        return None
    return "mean", len(gold), identity, {"values": (predicted == gold).mean(0, dtype=np.float32)}


def _labelled(task: Any, data: Any, heard: Mapping[str, Any]) -> Found | None:
    """Of each text, the share of the experiments in which it got exactly its labels, or its mean label ranking average precision; of splits that mteb
    does not cut."""
    if task.metadata.main_score not in ("accuracy", "lrap") or (
        task.max_eval_samples is not None and len(data) > task.max_eval_samples
    ):
        return None
    from sklearn.preprocessing import MultiLabelBinarizer

    gold = MultiLabelBinarizer().fit_transform(data[task.label_column_name])
    predicted = np.array(heard["predictions"])
    values = (
        (predicted == gold).all(2)
        if task.metadata.main_score == "accuracy"
        else _ranking_precision(predicted, gold)
    )
    return "mean", len(gold), gold.tobytes(), {"values": values.mean(0, dtype=np.float32)}


def _ranking_precision(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Label ranking average precision (e, n) where labels are ranked by being predicted (e, n, labels) or not, as scikit-learn counts ties: the right
    labels that were predicted rank below all predicted ones, the others below all labels."""
    labels = gold.shape[1]
    right, hits, given = gold.sum(1), (predicted & gold).sum(2), predicted.sum(2)
    found = hits**2 / np.maximum(given, 1) + (right - hits) * right / labels
    return np.where((right == 0) | (right == labels), 1.0, found / np.maximum(right, 1))


def _translated(task: Any, data: Any, heard: Mapping[str, Any]) -> Found | None:
    """Of each sentence whether its translation was found, or its own F1, which falls with every other that was taken for it: the mean of these is
    mteb's F1, weighted by sentence."""
    if task.metadata.main_score not in ("f1", "accuracy") or len(heard["predictions"]) != 1:
        return None
    (neighbours,) = heard["predictions"].values()
    found = np.array([neighbour["corpus_id"] for neighbour in neighbours])
    wanted = np.arange(len(found)) if "gold" not in data else np.array([pair[1] for pair in data["gold"]])
    right = found == wanted
    values = right.astype(np.float64)
    if task.metadata.main_score == "f1":
        times = np.bincount(found, minlength=int(max(found.max(), wanted.max())) + 1)
        values = np.where(np.bincount(wanted[right], minlength=len(times)), 2 / (1 + times), 0.0)[wanted]
    columns = [data[name] for name in task._DEFAULT_PAIR[0]]
    return "mean", len(found), str(columns).encode(), {"values": values}


def _summarised(task: Any, data: Any, heard: Mapping[str, Any]) -> Found | None:
    """Each document's correlation between what people and the model think of its summaries."""
    from scipy.stats import pearsonr, spearmanr

    side, _, kind = task.metadata.main_score.rpartition("_")
    scores = heard["predictions"].get(
        {"cosine": "cosine_scores", "dot": "dot_scores", "": "similarity_scores"}.get(side, "")
    )
    if scores is None or kind not in ("spearman", "pearson"):
        return None
    people = heard["predictions"]["human_scores"]
    measure = spearmanr if kind == "spearman" else pearsonr
    values = [float(measure(told, said).statistic) for told, said in zip(people, scores, strict=True)]
    return "mean", len(values), str(people).encode(), {"values": np.array(values)}


def _clustered(task: Any, data: Any, heard: Mapping[str, Any]) -> Found | None:
    """The draws of documents are made again as mteb made them, from the generator as it stood before."""
    if task.metadata.main_score != "v_measure":
        return None
    rng, total = heard["random"], len(data)
    wanted = task.max_document_to_embed
    if task.max_fraction_of_documents_to_embed is not None:
        wanted = int(task.max_fraction_of_documents_to_embed * total)
    chosen = list(range(total)) if wanted is None else rng.sample(range(total), k=min(total, wanted))
    given = [label if isinstance(label, list) else [label] for label in data[task.label_column_name]]
    index, labels, clusters = [], [], []
    for depth, assigned in enumerate(heard["predictions"].values()):
        pool = [
            document for document in chosen if len(given[document]) > depth and given[document][depth] != -1
        ]
        numbers = {
            label: number
            for number, label in enumerate(sorted({given[document][depth] for document in pool}, key=str))
        }
        for clustering in assigned:
            drawn = [pool[place] for place in rng.choices(range(len(pool)), k=len(clustering))]
            index.append(drawn)
            labels.append([numbers[given[document][depth]] for document in drawn])
            clusters.append(clustering)
    places = {document: place for place, document in enumerate(sorted(chosen))}
    arrays = {"index": np.array([[places[document] for document in drawn] for drawn in index], np.int32)}
    arrays |= {"labels": np.array(labels, np.int32), "clusters": np.array(clusters, np.int32)}
    return "v-measure", len(places), arrays["index"].tobytes() + arrays["labels"].tobytes(), arrays
