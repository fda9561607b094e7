"""What a model predicted for each example of an mteb task, kept while mteb scores it.

The results of a split and subset are kept only if the score that mteb reports follows from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import log
from selfpos.evaluation.mteb_internals import Evaluated, observed, sentence_columns
from selfpos.scores.examples import Examples
from selfpos.scores.measures import score_of

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

AGREEMENT = 1e-4  # mteb rounds retrieval scores to five digits

# Similarity in a main score's name -> mteb's name of the predictions.
PREDICTIONS = {
    "cosine": "cosine_scores",
    "": "similarity_scores",
    "dot": "dot_scores",
    "euclidean": "euclidean_distances",
    "manhattan": "manhattan_distances",
}
# kind, number of examples, bytes that identify them, arrays; as in `Examples`
Recorded = tuple[str, int, bytes, dict[str, np.ndarray]]


@contextmanager
def recording(task: AbsTask) -> Iterator[list[Examples]]:
    """While the block runs, add the results of each split and subset that `task` evaluates to the yielded
    list.

    Task types that do not expose their examples, or whose score does not follow from them, add nothing. The
    scores never change.
    """
    kept: list[Examples] = []

    def done(evaluated: Evaluated, scores: Mapping[str, Any]) -> None:
        try:
            examples = _examples(task, evaluated)
            if examples is None:
                return
            score, reported = score_of(examples), float(scores[task.metadata.main_score])
            if abs(score - reported) > AGREEMENT:
                raise ValueError(f"their score is {score:.5f}, mteb reports {reported:.5f}")
        except Exception as error:
            title = f"{task.metadata.name} ({evaluated.split}, {evaluated.subset})"
            log.info("the examples of %s are not kept: %s", title, error)
        else:
            kept.append(examples)

    with observed(task, done):
        yield kept


def _examples(task: AbsTask, evaluated: Evaluated) -> Examples | None:
    recorder = _recorder(task)
    recorded = recorder(task, evaluated) if recorder else None
    if recorded is None:
        return None
    kind, count, identity, arrays = recorded
    key = hashlib.sha256(identity).hexdigest()[:16]
    return Examples(evaluated.split, evaluated.subset, kind, count, key, arrays)


def _recorder(task: AbsTask) -> Callable[[Any, Evaluated], Recorded | None] | None:
    from mteb import abstasks
    from mteb.abstasks.multilabel_classification import AbsTaskMultilabelClassification
    from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining
    from mteb.abstasks.text.summarization import AbsTaskSummarization

    recorders = {
        AbsTaskMultilabelClassification: multilabel_classification,  # a subclass of classification: first
        AbsTaskBitextMining: bitext_mining,
        AbsTaskSummarization: summarization,
        abstasks.AbsTaskRetrieval: retrieval,
        abstasks.AbsTaskSTS: sts,
        abstasks.AbsTaskPairClassification: pair_classification,
        abstasks.AbsTaskClassification: classification,
        abstasks.AbsTaskClustering: clustering,
    }
    return next((recorder for kind, recorder in recorders.items() if isinstance(task, kind)), None)


def retrieval(task: Any, evaluated: Evaluated) -> Recorded | None:
    """Each query's value of the main score, as pytrec_eval computes it."""
    if task.metadata.main_score == "p-MRR":
        return instruction_following(evaluated.relevant or {}, evaluated.ranked or {})
    name, _, depth = task.metadata.main_score.rpartition("_at_")
    trec_names = {
        "ndcg": "ndcg_cut",
        "map": "map_cut",
        "recall": "recall",
        "precision": "P",
        "hit_rate": "success",
    }
    if name not in trec_names or not evaluated.query_scores:
        return None
    column = f"{trec_names[name]}_{depth}"
    return _means({query: row[column] for query, row in evaluated.query_scores.items()}, np.float32)


def _means(values: Mapping[str, float], dtype: type = np.float64) -> Recorded | None:
    ids = sorted(values)
    if not ids:
        return None
    array: np.ndarray = np.array([values[key] for key in ids], dtype)
    return "mean", len(ids), "\n".join(ids).encode(), {"values": array}


def instruction_following(
    relevant: Mapping[str, Mapping[str, int]], ranked: Mapping[str, Mapping[str, float]]
) -> Recorded | None:
    """Each question's p-MRR (Weller et al. 2024, arXiv 2403.15246, section 4).

    It says how far documents move that the changed instruction makes irrelevant, from the ranking with the
    original instruction ("-og") to that with the changed one ("-changed").
    """
    values = {}
    for question in (query.removesuffix("-og") for query in ranked if query.endswith("-og")):
        before, after = (relevant.get(f"{question}-{which}", {}) for which in ("og", "changed"))
        rankings = [ranked.get(f"{question}-{which}", {}) for which in ("og", "changed")]
        moves = []
        for document, grade in before.items():
            if after.get(document, 0) != grade:
                old, new = (_rank(ranking, document) for ranking in rankings)
                moves.append(new / old - 1 if old >= new else 1 - old / new)
        if moves:
            values[question] = float(np.mean(moves))
    return _means(values)


def _rank(ranking: Mapping[str, float], document: str) -> int:
    """Rank of `document` by score; ties in descending order of names, as in mteb; after all others if not
    ranked.
    """
    if document not in ranking:
        return len(ranking) + 1
    entry = (ranking[document], document)
    return 1 + sum((score, name) > entry for name, score in ranking.items())


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
            arrays: dict[str, np.ndarray] = {
                "scores": sign * np.array(evaluated.predictions[name], np.float64),
                "gold": gold,
            }
            candidates.append(Examples("", "", "average-precision", len(gold), "", arrays))
    if not candidates:
        return None
    return "average-precision", len(gold), gold.tobytes(), dict(max(candidates, key=score_of).arrays)


def classification(task: Any, evaluated: Evaluated) -> Recorded | None:
    """The share of experiments (draws of training texts) that classified each text correctly.

    For F1 what each experiment predicted.
    """
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


def multilabel_classification(task: Any, evaluated: Evaluated) -> Recorded | None:
    """The share of experiments in which each text got exactly its labels, or its mean label ranking
    precision.

    None for splits that mteb truncates.
    """
    data = evaluated.data[evaluated.split]
    truncated = task.max_eval_samples is not None and len(data) > task.max_eval_samples
    if task.metadata.main_score not in ("accuracy", "lrap") or truncated:
        return None
    from sklearn.preprocessing import MultiLabelBinarizer

    gold = MultiLabelBinarizer().fit_transform(data[task.label_column_name])
    predicted = np.array(evaluated.predictions)
    if task.metadata.main_score == "accuracy":
        values = (predicted == gold).all(2)
    else:
        values = ranking_precision(predicted, gold)
    return "mean", len(gold), gold.tobytes(), {"values": values.mean(0, dtype=np.float32)}


def ranking_precision(predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Label ranking average precision (e, n) of labels that are predicted (e, n, labels) or not.

    Ties count as in scikit-learn: correct labels that were predicted rank below all predicted ones, the
    others below all labels.
    """
    labels = gold.shape[1]
    correct, hits, given = gold.sum(1), (predicted & gold).sum(2), predicted.sum(2)
    total = hits**2 / np.maximum(given, 1) + (correct - hits) * correct / labels
    return np.where((correct == 0) | (correct == labels), 1.0, total / np.maximum(correct, 1))


def bitext_mining(task: Any, evaluated: Evaluated) -> Recorded | None:
    """Whether each sentence's translation was matched, or its F1, which falls with every other sentence
    matched to it.

    The mean of these is mteb's F1, weighted by sentence.
    """
    if task.metadata.main_score not in ("f1", "accuracy") or len(evaluated.predictions) != 1:
        return None
    data = evaluated.data
    (neighbours,) = evaluated.predictions.values()
    matched = np.array([neighbour["corpus_id"] for neighbour in neighbours])
    gold = np.array([pair[1] for pair in data["gold"]]) if "gold" in data else np.arange(len(matched))
    correct = matched == gold
    values = correct.astype(np.float64)
    if task.metadata.main_score == "f1":
        times = np.bincount(matched, minlength=int(max(matched.max(), gold.max())) + 1)
        values = np.where(np.bincount(gold[correct], minlength=len(times)), 2 / (1 + times), 0.0)[gold]
    columns = [data[name] for name in sentence_columns(task)]
    return "mean", len(matched), str(columns).encode(), {"values": values}


def summarization(task: Any, evaluated: Evaluated) -> Recorded | None:
    """Each document's correlation between the judgements of people and of the model on its summaries."""
    from scipy.stats import pearsonr, spearmanr

    side, _, kind = task.metadata.main_score.rpartition("_")
    scores = evaluated.predictions.get(PREDICTIONS.get(side, ""))
    if scores is None or kind not in ("spearman", "pearson"):
        return None
    people = evaluated.predictions["human_scores"]
    correlation = spearmanr if kind == "spearman" else pearsonr
    values = [float(correlation(human, model).statistic) for human, model in zip(people, scores, strict=True)]
    return "mean", len(values), str(people).encode(), {"values": np.array(values)}


def clustering(task: Any, evaluated: Evaluated) -> Recorded | None:
    """Clusterings of drawn documents; the draws are repeated with the generator as it was before mteb's."""
    if task.metadata.main_score != "v_measure":
        return None
    rng, total = evaluated.random, len(evaluated.data)
    size = task.max_document_to_embed
    if task.max_fraction_of_documents_to_embed is not None:
        size = int(task.max_fraction_of_documents_to_embed * total)
    chosen = list(range(total)) if size is None else rng.sample(range(total), k=min(total, size))
    given = [
        label if isinstance(label, list) else [label] for label in evaluated.data[task.label_column_name]
    ]
    index, labels, clusters = [], [], []
    for depth, clusterings in enumerate(evaluated.predictions.values()):
        pool = [
            document for document in chosen if len(given[document]) > depth and given[document][depth] != -1
        ]
        names = sorted({given[document][depth] for document in pool}, key=str)
        numbers = {label: number for number, label in enumerate(names)}
        for clustering in clusterings:
            drawn = [pool[position] for position in rng.choices(range(len(pool)), k=len(clustering))]
            index.append(drawn)
            labels.append([numbers[given[document][depth]] for document in drawn])
            clusters.append(clustering)
    positions = {document: position for position, document in enumerate(sorted(chosen))}
    arrays = {
        "index": np.array([[positions[document] for document in drawn] for drawn in index], np.int32),
        "labels": np.array(labels, np.int32),
        "clusters": np.array(clusters, np.int32),
    }
    return "v-measure", len(positions), arrays["index"].tobytes() + arrays["labels"].tobytes(), arrays
