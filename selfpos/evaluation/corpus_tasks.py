"""MTEB tasks from the embedded corpus: small enough for a CPU, hard enough to distinguish models.

Queries, pairs and classified texts come from the corpus's test split, which is never trained on; clustering
uses subpackages that are in no split.
"""

from __future__ import annotations

import hashlib
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from selfpos.data.corpus import Corpus
from selfpos.data.corpus_extraction import Entry
from selfpos.data.corpus_training import by_subpackage, links, name_in_words, pair_classification
from selfpos.data.docstrings import cut
from selfpos.evaluation.local_data import own_task
from selfpos.evaluation.tasks import dataset_of, retrieval_data

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

# Small, so that eleven models are scored in minutes on a CPU. The length is in characters: the
# opening of a docstring's body identifies it, and takes half the time of the whole.
QUERIES, DOCUMENTS, DOCUMENT_LENGTH = 250, 350, 200
LABELS, TEST_PER_LABEL, TRAIN_PER_LABEL = 40, 8, 8  # the last also in local_tasks.yaml
PAIRS = 300
PER_CLUSTER = 25


def corpus_tasks(corpus: Corpus) -> list[AbsTask]:
    """The tasks in LOADERS, in their order; data is made when they are run."""
    sizes = (QUERIES, DOCUMENTS, DOCUMENT_LENGTH, LABELS, TEST_PER_LABEL, TRAIN_PER_LABEL, PAIRS, PER_CLUSTER)
    revision = hashlib.sha256(f"{corpus.hash} {sizes}".encode()).hexdigest()[:16]
    return [own_task(name, partial(load, corpus), revision) for name, load in LOADERS.items()]


def _sample(entries: list[Entry], count: int) -> list[Entry]:
    """`count` entries by the hash of their names: adding or removing other entries changes nothing."""

    def position(entry: Entry) -> bytes:
        return hashlib.sha256(f"evaluation {entry.name}".encode()).digest()

    return sorted(entries, key=position)[:count]


def _retrieval(corpus: Corpus) -> dict[str, Any]:
    # One entry per distinct opening: reversed, so that the first of equal ones wins.
    openings = {cut(entry.body, DOCUMENT_LENGTH): entry for entry in reversed(corpus.part("test"))}
    chosen = _sample(list(openings.values()), DOCUMENTS)
    documents = {entry.name: {"text": cut(entry.body, DOCUMENT_LENGTH)} for entry in chosen}
    queries = {f"q:{entry.name}": entry.summary for entry in chosen[:QUERIES]}
    relevant = {f"q:{entry.name}": {entry.name: 1} for entry in chosen[:QUERIES]}
    return {"default": {"test": retrieval_data(documents, queries, relevant)}}


def _names(corpus: Corpus) -> dict[str, Any]:
    # One entry per distinct name that no training record has: reversed, so that the first of equal ones wins.
    trained = {name_in_words(entry.name) for entry in corpus.part("train")}
    names = ((name_in_words(entry.name), entry) for entry in reversed(corpus.part("test")))
    named = {name: entry for name, entry in names if name not in trained}
    chosen = _sample(list(named.values()), DOCUMENTS)
    documents = {entry.name: {"text": entry.summary} for entry in chosen}
    queries = {f"q:{entry.name}": name_in_words(entry.name) for entry in chosen[:QUERIES]}
    relevant = {f"q:{entry.name}": {entry.name: 1} for entry in chosen[:QUERIES]}
    return {"default": {"test": retrieval_data(documents, queries, relevant)}}


def _see_also(corpus: Corpus) -> dict[str, Any]:
    """Queries are functions with links; documents all that are linked, and others of the same split."""
    relevant: dict[str, dict[str, int]] = {}
    texts = {}
    for pair in links(corpus.part("test")):
        for first, second in (pair, pair[::-1]):
            relevant.setdefault(first.name, {})[second.name] = 1
            texts[first.name] = first.summary
    linked = {name for others in relevant.values() for name in others}
    entries = corpus.part("test")
    others = [entry for entry in entries if entry.name not in linked]
    chosen = [entry for entry in entries if entry.name in linked]
    chosen += _sample(others, max(0, DOCUMENTS - len(linked)))
    documents = {entry.name: {"text": cut(entry.body, DOCUMENT_LENGTH)} for entry in chosen}
    return {"default": {"test": retrieval_data(documents, texts, relevant)}}


def _classification(corpus: Corpus) -> dict[str, Any]:
    groups = {split: by_subpackage(corpus.part(split)) for split in ("train", "test")}
    largest = sorted(groups["train"], key=lambda label: (-len(groups["train"][label]), label))
    labels = [label for label in largest[:LABELS] if label in groups["test"]]
    splits = {}
    for split, size in (("train", TRAIN_PER_LABEL), ("test", TEST_PER_LABEL)):
        splits[split] = [
            {"text": entry.summary, "label": label}
            for label in sorted(labels)
            for entry in _sample(groups[split][label], size)
        ]
    return dataset_of("classification", splits)


def _pairs(corpus: Corpus) -> dict[str, Any]:
    records = pair_classification(corpus.part("test"), random.Random(0))
    balanced = []
    for label in (1, 0):
        balanced += [record for record in records if record["label"] == label][: PAIRS // 2]
    return dataset_of("pair-classification", {"test": balanced})


def _clustering(corpus: Corpus) -> dict[str, Any]:
    rows = [
        {"text": entry.summary, "label": entry.subpackage}
        for _, entries in sorted(by_subpackage(corpus.part("held-out")).items())
        for entry in _sample(entries, PER_CLUSTER)
    ]
    return dataset_of("clustering", {"test": rows})


LOADERS = {
    "PythonDocsRetrieval": _retrieval,
    "PythonDocsNames": _names,
    "PythonDocsSeeAlso": _see_also,
    "PythonDocsSubpackageClassification": _classification,
    "PythonDocsSeeAlsoPairs": _pairs,
    "PythonDocsHeldOutClustering": _clustering,
}
