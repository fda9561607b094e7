"""The tests of the study: each task's measure on records that no model was trained on, in percent."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data import TEST_TITLES, titles

Embed = Callable[[Sequence[str]], np.ndarray]  # texts → unit vectors (n, d)
RECORDS = 1000  # of each test, drawn by the seed, so that intervals over seeds count the records' chance too
QUESTIONS = 240  # of the reranking test, with ten candidates each
SHOTS = 8  # texts of a class that a classification head learns from
UNSEEN = ("sts16", "emotion", "quora")


def _sample(records: list[Any], count: int, seed: str) -> list[Any]:
    return records if len(records) <= count else random.Random(seed).sample(records, count)


def _read(data: Path, name: str) -> list[dict[str, Any]]:
    from selfpos.data.files import read_records

    path = data / name
    return read_records(path if path.exists() else path.with_name(path.name + ".gz"))


def _cosines(embed: Embed, rows: list[dict[str, Any]]) -> np.ndarray:
    left, right = (embed([row[column] for row in rows]) for column in ("sentence1", "sentence2"))
    return (left * right).sum(1)


def _spearman(embed: Embed, rows: list[dict[str, Any]]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(_cosines(embed, rows), [row["score"] for row in rows]).statistic)


def _average_precision(embed: Embed, rows: list[dict[str, Any]]) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score([int(row["label"]) for row in rows], _cosines(embed, rows)))


def _few_shot(embed: Embed, train: list[dict], test: list[dict], seed: int, draws: int) -> float:
    """Accuracy of a logistic regression on SHOTS texts a class, the mean over `draws` draws of them."""
    from sklearn.linear_model import LogisticRegression

    texts_of: dict[Any, list[str]] = {}
    for row in train:
        texts_of.setdefault(row["label"], []).append(row["text"])
    tested, labels = embed([row["text"] for row in test]), [row["label"] for row in test]
    accuracies = []
    for draw in range(draws):
        rng = random.Random(f"shots {seed} {draw}")
        shots = [(text, label) for label, texts in texts_of.items() for text in rng.sample(texts, SHOTS)]
        head = LogisticRegression(max_iter=100)
        head.fit(embed([text for text, _ in shots]), [label for _, label in shots])
        accuracies.append(head.score(tested, labels))
    return float(np.mean(accuracies))


def _ndcg(embed: Embed, queries: list[str], documents: list[str], relevant: list[set[int]]) -> float:
    """nDCG@10 with binary relevance."""
    similarities = embed(queries) @ embed(documents).T
    gains = []
    for row, wanted in zip(similarities, relevant, strict=True):
        order = np.argsort(-row, kind="stable")[:10]
        gain = sum(1 / np.log2(2 + rank) for rank, document in enumerate(order) if document in wanted)
        gains.append(gain / sum(1 / np.log2(2 + rank) for rank in range(min(10, len(wanted)))))
    return float(np.mean(gains))


def sts(embed: Embed, data: Path, seed: int) -> float:
    return _spearman(embed, _sample(_read(data, "stsbenchmark/test.jsonl"), RECORDS, f"sts {seed}"))


def classification(embed: Embed, data: Path, seed: int) -> float:
    test = _sample(_read(data, "banking77/test.jsonl"), RECORDS, f"classification {seed}")
    return _few_shot(embed, _read(data, "banking77/train.jsonl"), test, seed, draws=3)


def clustering(embed: Embed, data: Path, seed: int) -> float:
    """V-measure of k-means, the mean over three starts."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    rows = _read(data, "stackoverflow_short/test.jsonl")
    order = titles(len(rows))
    trained = {rows[row]["text"] for row in order[:-TEST_TITLES]}
    rows = [rows[row] for row in order[-TEST_TITLES:] if rows[row]["text"] not in trained]
    rows = _sample(rows, RECORDS, f"clustering {seed}")
    labels, embeddings = [row["label"] for row in rows], embed([row["text"] for row in rows])
    values = []
    for start in range(3):
        clusters = KMeans(len(set(labels)), n_init=4, random_state=start).fit_predict(embeddings)
        values.append(v_measure_score(labels, clusters))
    return float(np.mean(values))


def pair_classification(embed: Embed, data: Path, seed: int) -> float:
    return _average_precision(embed, _sample(_read(data, "mrpc/test.jsonl"), RECORDS, f"mrpc {seed}"))


def reranking(embed: Embed, data: Path, seed: int) -> float:
    """MAP over the questions that have a wrong candidate."""
    from sklearn.metrics import average_precision_score

    rows = [row for row in _read(data, "wikiqa/test.jsonl") if row["negative"]]
    rows = _sample(rows, QUESTIONS, f"reranking {seed}")
    precisions = []
    for row in rows:
        candidates = [*row["positive"], *row["negative"]]
        cosines = embed(candidates) @ embed([row["query"]])[0]
        labels = [1] * len(row["positive"]) + [0] * len(row["negative"])
        precisions.append(average_precision_score(labels, cosines))
    return float(np.mean(precisions))


def retrieval(embed: Embed, data: Path, seed: int) -> float:
    rows = _read(data, "medquad/train.jsonl")
    order = random.Random("medquad").sample(range(len(rows)), 6000)
    trained = {text for row in order[:-1000] for text in (rows[row]["query"], rows[row]["positive"])}
    rows = [
        rows[row] for row in order[-1000:] if trained.isdisjoint((rows[row]["query"], rows[row]["positive"]))
    ]
    rows = _sample(rows, 500, f"medquad {seed}")
    documents = list(dict.fromkeys(row["positive"] for row in rows))
    wanted = {text: index for index, text in enumerate(documents)}
    relevant = [{wanted[row["positive"]]} for row in rows]
    return _ndcg(embed, [row["query"] for row in rows], documents, relevant)


def summarization(embed: Embed, data: Path, seed: int) -> float:
    """nDCG@10 of abstract → conclusion: no graded summaries are at hand."""
    rows = _read(data, "pubmedqa_l/train.jsonl")[700:]
    relevant = [{index} for index in range(len(rows))]
    return _ndcg(embed, [row["positive"] for row in rows], [row["answer"] for row in rows], relevant)


def instruction_retrieval(embed: Embed, data: Path, seed: int) -> float:
    from selfpos.data.beir import beir_files, read_beir
    from selfpos.tasks.forms import passage_text

    folder = data / "feedbackqa"
    dataset = read_beir(folder, beir_files(folder, "test"))
    judged = {
        name: [document for document, grade in grades.items() if grade > 0]
        for name, grades in dataset.relevant.items()
    }
    names = _sample(sorted(judged), 400, f"feedbackqa {seed}")
    wanted = sorted({document for name in names for document in judged[name]})
    index = {document: number for number, document in enumerate(wanted)}
    relevant = [{index[document] for document in judged[name]} for name in names]
    texts = [passage_text(dataset.documents[name]) for name in wanted]
    return _ndcg(embed, [dataset.queries[name] for name in names], texts, relevant)


def sts16(embed: Embed, data: Path, seed: int) -> float:
    """STS16 without the pairs that STSBenchmark trains on."""
    trained = {
        frozenset((row["sentence1"], row["sentence2"])) for row in _read(data, "stsbenchmark/train.jsonl")
    }
    rows = [
        row
        for row in _read(data, "sts16/test.jsonl")
        if frozenset((row["sentence1"], row["sentence2"])) not in trained
    ]
    return _spearman(embed, _sample(rows, RECORDS, f"sts16 {seed}"))


def emotion(embed: Embed, data: Path, seed: int) -> float:
    test = _sample(_read(data, "emotion/test.jsonl"), RECORDS, f"emotion {seed}")
    return _few_shot(embed, _read(data, "emotion/train.jsonl"), test, seed, draws=3)


def quora(embed: Embed, data: Path, seed: int) -> float:
    return _average_precision(embed, _sample(_read(data, "quora_pairs/test.jsonl"), RECORDS, f"quora {seed}"))


MEASURES: dict[str, Callable[[Embed, Path, int], float]] = {
    "sts": sts,
    "classification": classification,
    "clustering": clustering,
    "pair-classification": pair_classification,
    "reranking": reranking,
    "retrieval": retrieval,
    "summarization": summarization,
    "instruction-retrieval": instruction_retrieval,
    "sts16": sts16,
    "emotion": emotion,
    "quora": quora,
}


def score(
    model: Any, tasks: Sequence[str], data: Path, seed: int, *, unseen: bool = True
) -> dict[str, float]:
    """Test scores in percent of a SentenceTransformer: of `tasks`, and of those that nobody trained on."""
    from settings import MAX_LENGTH

    model.max_seq_length = MAX_LENGTH
    known: dict[str, np.ndarray] = {}

    def embed(texts: Sequence[str]) -> np.ndarray:
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            units = model.encode(new, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
            known.update(zip(new, units, strict=True))
        return np.stack([known[text] for text in texts])

    return {task: 100 * MEASURES[task](embed, data, seed) for task in (*tasks, *(UNSEEN if unseen else ()))}
