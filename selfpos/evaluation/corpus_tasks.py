"""MTEB tasks from the embedded corpus, named `PythonDocs…` so that nobody takes them for MTEB's: small enough for a CPU, hard enough to tell models apart.

Queries, pairs and classified texts are of the corpus's test split, of which nothing is trained on; clustering is scored on subpackages that are in no split.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

from selfpos.data.corpus import Corpus
from selfpos.data.corpus_extraction import Entry
from selfpos.data.corpus_training import by_subpackage, pair_classification
from selfpos.data.docstrings import cut
from selfpos.evaluation.tasks import new_task, retrieval_data

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

# Sizes that a small model encodes in about ten seconds on two cores, all four tasks together.
QUERIES, DOCUMENTS, DOCUMENT_LENGTH = (
    250,
    350,
    200,
)  # length in characters: the opening of a body tells it from others, at half the time
LABELS, TEST_PER_LABEL, TRAIN_PER_LABEL = 40, 8, 8
PAIRS = 300
PER_CLUSTER = 25
NAMES = (
    "PythonDocsRetrieval",
    "PythonDocsSubpackageClassification",
    "PythonDocsSeeAlsoPairs",
    "PythonDocsHeldOutClustering",
)


def corpus_tasks(corpus: Corpus) -> list[AbsTask]:
    """The four tasks: retrieval, classification, pair classification and clustering. Their data is made when they are first run."""
    sizes = (QUERIES, DOCUMENTS, DOCUMENT_LENGTH, LABELS, TEST_PER_LABEL, TRAIN_PER_LABEL, PAIRS, PER_CLUSTER)
    revision = hashlib.sha256(f"{corpus.hash} {sizes}".encode()).hexdigest()[:16]
    common: dict[str, Any] = {"revision": revision, "source": "selfpos/python-docs"}
    return [
        new_task(
            "retrieval",
            "PythonDocsRetrieval",
            "Which docstring goes on after this summary line? Documentation of Python and its scientific packages, without the functions' names.",
            lambda: {"default": {"test": _retrieval(corpus)}},
            **common,
        ),
        new_task(
            "classification",
            "PythonDocsSubpackageClassification",
            "Which subpackage is a function from, by its summary line?",
            lambda: _classification(corpus),
            samples_per_label=TRAIN_PER_LABEL,
            n_experiments=1,  # there are no more to draw from
            **common,
        ),
        new_task(
            "pair-classification",
            "PythonDocsSeeAlsoPairs",
            "Does the documentation of one function refer to the other in its See Also section? By summary lines; negatives are of the same subpackage.",
            lambda: {"test": _pairs(corpus)},
            **common,
        ),
        new_task(
            "clustering",
            "PythonDocsHeldOutClustering",
            "Summary lines of functions of subpackages that nobody trained on, to be clustered by subpackage.",
            lambda: {"test": _clustering(corpus)},
            max_fraction_of_documents_to_embed=None,
            max_documents_per_cluster=250,  # drawn with replacement from as many, ten times
            **common,
        ),
    ]


def _sample(entries: list[Entry], count: int) -> list[Entry]:
    """`count` entries by the hash of their names: the same ones however the others change."""
    return sorted(entries, key=lambda entry: hashlib.sha256(f"evaluation {entry.name}".encode()).digest())[
        :count
    ]


def _retrieval(corpus: Corpus) -> dict[str, Any]:
    openings = {
        cut(entry.body, DOCUMENT_LENGTH): entry for entry in reversed(corpus.part("test"))
    }  # one entry per distinct opening
    chosen = _sample(list(openings.values()), DOCUMENTS)
    documents = {entry.name: {"text": cut(entry.body, DOCUMENT_LENGTH)} for entry in chosen}
    queries = {f"q:{entry.name}": entry.summary for entry in chosen[:QUERIES]}
    return retrieval_data(
        documents, queries, {f"q:{entry.name}": {entry.name: 1} for entry in chosen[:QUERIES]}
    )


def _classification(corpus: Corpus) -> dict[str, Any]:
    from datasets import Dataset

    groups = {split: by_subpackage(corpus.part(split)) for split in ("train", "test")}
    largest = sorted(groups["train"], key=lambda label: (-len(groups["train"][label]), label))
    labels = sorted(label for label in largest[:LABELS] if label in groups["test"])
    data = {}
    for split, size in (("train", TRAIN_PER_LABEL), ("test", TEST_PER_LABEL)):
        rows = [
            (entry.summary, number)
            for number, label in enumerate(labels)
            for entry in _sample(groups[split][label], size)
        ]
        data[split] = Dataset.from_dict(
            {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        )
    return data


def _pairs(corpus: Corpus) -> Any:
    from datasets import Dataset

    records = pair_classification(corpus.part("test"), random.Random(0))
    kept = [
        record for wanted in (1, 0) for record in [r for r in records if r["label"] == wanted][: PAIRS // 2]
    ]
    return Dataset.from_list(kept).rename_column("label", "labels")


def _clustering(corpus: Corpus) -> Any:
    from datasets import Dataset

    groups = by_subpackage(corpus.part("held-out"))
    chosen = [entry for label in sorted(groups) for entry in _sample(groups[label], PER_CLUSTER)]
    return Dataset.from_dict(
        {"sentences": [entry.summary for entry in chosen], "labels": [entry.subpackage for entry in chosen]}
    )
