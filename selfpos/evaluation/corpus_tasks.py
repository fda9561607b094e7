"""MTEB tasks from the embedded corpus: small enough for a CPU, hard enough to distinguish models.

Queries, pairs and classified texts come from the corpus's test split, which is never trained on; clustering
uses subpackages that are in no split.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

from selfpos.data.corpus import Corpus
from selfpos.data.corpus_extraction import Entry
from selfpos.data.corpus_training import by_subpackage, links, name_in_words, pair_classification
from selfpos.data.docstrings import cut
from selfpos.evaluation.tasks import dataset_of, new_task

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

# Small, so that eleven models are scored in minutes on a CPU. The length is in characters: the
# opening of a docstring's body identifies it, and takes half the time of the whole.
QUERIES, DOCUMENTS, DOCUMENT_LENGTH = 250, 350, 200
LABELS, TEST_PER_LABEL, TRAIN_PER_LABEL = 40, 8, 8
PAIRS = 300
PER_CLUSTER = 25
NAMES = (
    "PythonDocsRetrieval",
    "PythonDocsNames",
    "PythonDocsSeeAlso",
    "PythonDocsSubpackageClassification",
    "PythonDocsSeeAlsoPairs",
    "PythonDocsHeldOutClustering",
)


def corpus_tasks(corpus: Corpus) -> list[AbsTask]:
    """The tasks called NAMES, in their order; data is made when they are run."""
    sizes = (QUERIES, DOCUMENTS, DOCUMENT_LENGTH, LABELS, TEST_PER_LABEL, TRAIN_PER_LABEL, PAIRS, PER_CLUSTER)
    revision = hashlib.sha256(f"{corpus.hash} {sizes}".encode()).hexdigest()[:16]
    common: dict[str, Any] = {"revision": revision, "source": "selfpos/python-docs"}
    retrieval, names, see_also, classification, pairs, clustering = NAMES
    return [
        new_task(
            "retrieval",
            retrieval,
            "Which docstring continues this summary line? Documentation of Python and its scientific "
            "packages, without the functions' names.",
            lambda: {"default": dataset_of("retrieval", {"test": _retrieval(corpus)})},
            **common,
        ),
        new_task(
            "retrieval",
            names,
            "Which summary line is that of the function with this name?",
            lambda: {"default": dataset_of("retrieval", {"test": _names(corpus)})},
            **common,
        ),
        new_task(
            "retrieval",
            see_also,
            "Which docstrings belong to functions that the function with this summary line names in its See "
            "Also section, or that name it there?",
            lambda: {"default": dataset_of("retrieval", {"test": _see_also(corpus)})},
            ignore_identical_ids=True,  # a function's own docstring is no answer
            **common,
        ),
        new_task(
            "classification",
            classification,
            "Which subpackage is a function from, by its summary line?",
            lambda: _classification(corpus),
            samples_per_label=TRAIN_PER_LABEL,
            n_experiments=1,  # there are no more training texts to draw from
            **common,
        ),
        new_task(
            "pair-classification",
            pairs,
            "Does the documentation of one function refer to the other in its See Also section? By summary "
            "lines; negatives are from the same subpackage.",
            lambda: _pairs(corpus),
            **common,
        ),
        new_task(
            "clustering",
            clustering,
            "Summary lines of functions of subpackages that are never trained on, clustered by subpackage.",
            lambda: _clustering(corpus),
            max_fraction_of_documents_to_embed=None,
            max_documents_per_cluster=250,  # drawn with replacement from as many, ten times
            **common,
        ),
    ]


def _sample(entries: list[Entry], count: int) -> list[Entry]:
    """`count` entries by the hash of their names: adding or removing other entries changes nothing."""

    def position(entry: Entry) -> bytes:
        return hashlib.sha256(f"evaluation {entry.name}".encode()).digest()

    return sorted(entries, key=position)[:count]


def _retrieval(corpus: Corpus) -> tuple[Any, Any, Any]:
    # One entry per distinct opening: reversed, so that the first of equal ones wins.
    openings = {cut(entry.body, DOCUMENT_LENGTH): entry for entry in reversed(corpus.part("test"))}
    chosen = _sample(list(openings.values()), DOCUMENTS)
    documents = {entry.name: {"text": cut(entry.body, DOCUMENT_LENGTH)} for entry in chosen}
    queries = {f"q:{entry.name}": entry.summary for entry in chosen[:QUERIES]}
    relevant = {f"q:{entry.name}": {entry.name: 1} for entry in chosen[:QUERIES]}
    return documents, queries, relevant


def _names(corpus: Corpus) -> tuple[Any, Any, Any]:
    # One entry per distinct name that no training record has: reversed, so that the first of equal ones wins.
    trained = {name_in_words(entry.name) for entry in corpus.part("train")}
    names = ((name_in_words(entry.name), entry) for entry in reversed(corpus.part("test")))
    named = {name: entry for name, entry in names if name not in trained}
    chosen = _sample(list(named.values()), DOCUMENTS)
    documents = {entry.name: {"text": entry.summary} for entry in chosen}
    queries = {f"q:{entry.name}": name_in_words(entry.name) for entry in chosen[:QUERIES]}
    relevant = {f"q:{entry.name}": {entry.name: 1} for entry in chosen[:QUERIES]}
    return documents, queries, relevant


def _see_also(corpus: Corpus) -> tuple[Any, Any, Any]:
    """Queries are functions with links; documents all that are linked, and others of the same split."""
    relevant: dict[str, dict[str, int]] = {}
    texts = {}
    for pair in links(corpus.part("test")):
        for first, second in (pair, pair[::-1]):
            relevant.setdefault(first.name, {})[second.name] = 1
            texts[first.name] = first.summary
    linked = {name for others in relevant.values() for name in others}
    entries = corpus.part("test")
    others = _sample(
        [entry for entry in entries if entry.name not in linked], max(0, DOCUMENTS - len(linked))
    )
    documents = {
        entry.name: {"text": cut(entry.body, DOCUMENT_LENGTH)}
        for entry in [*(entry for entry in entries if entry.name in linked), *others]
    }
    return documents, texts, relevant


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
    kept = []
    for label in (1, 0):
        kept += [record for record in records if record["label"] == label][: PAIRS // 2]
    return dataset_of("pair-classification", {"test": kept})


def _clustering(corpus: Corpus) -> dict[str, Any]:
    rows = [
        {"text": entry.summary, "label": entry.subpackage}
        for _, entries in sorted(by_subpackage(corpus.part("held-out")).items())
        for entry in _sample(entries, PER_CLUSTER)
    ]
    return dataset_of("clustering", {"test": rows})
