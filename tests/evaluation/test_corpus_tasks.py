from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfpos.data.corpus import Corpus
from selfpos.evaluation import evaluate
from selfpos.evaluation.corpus_tasks import corpus_tasks


@pytest.fixture
def data(made_up_corpus: Corpus) -> dict[str, Any]:
    loaded = {}
    for task in corpus_tasks(made_up_corpus):
        task.load_data()
        loaded[task.metadata.name.removeprefix("PythonDocs")] = task.dataset
    return loaded


def test_mteb_scores_all(made_up_corpus: Corpus, tiny_base: Path, tmp_path: Path) -> None:
    scores = evaluate(tiny_base, corpus_tasks(made_up_corpus), tmp_path, name="tiny")
    assert {name: (score.type, score.metric) for name, score in scores.items()} == {
        "PythonDocsRetrieval": ("Retrieval", "ndcg_at_10"),
        "PythonDocsNames": ("Retrieval", "ndcg_at_10"),
        "PythonDocsSeeAlso": ("Retrieval", "ndcg_at_10"),
        "PythonDocsSubpackageClassification": ("Classification", "accuracy"),
        "PythonDocsSeeAlsoPairs": ("PairClassification", "max_ap"),
        "PythonDocsHeldOutClustering": ("Clustering", "v_measure"),
    }
    assert all(0 < score.main_score < 1 for score in scores.values())


@pytest.mark.slow
def test_no_name_is_mtebs(made_up_corpus: Corpus) -> None:
    import mteb

    from selfpos.evaluation.local_data import OWN_TASKS

    theirs = {task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)}
    assert not theirs & {*OWN_TASKS, *(task.metadata.name for task in corpus_tasks(made_up_corpus))}


def test_nothing_scored_was_trained_on(made_up_corpus: Corpus, data: dict[str, Any]) -> None:
    splits = {
        text: entry.split
        for entry in made_up_corpus.entries
        for text in (entry.summary, entry.body, entry.body[:200].rsplit(" ", 1)[0])
    }
    retrieval = data["Retrieval"]["default"]["test"]
    assert {splits[text] for text in [*retrieval["queries"]["text"], *retrieval["corpus"]["text"]]} == {
        "test"
    }
    for task, column in (("Names", "corpus"), ("SeeAlso", "corpus"), ("SeeAlso", "queries")):
        assert {splits[text] for text in data[task]["default"]["test"][column]["text"]} == {"test"}
    names = made_up_corpus.training("retrieval", "names")["anchor"]
    assert set(names).isdisjoint(data["Names"]["default"]["test"]["queries"]["text"])
    assert {splits[text] for text in data["SubpackageClassification"]["test"]["text"]} == {"test"}
    assert {splits[text] for text in data["SubpackageClassification"]["train"]["text"]} == {"train"}
    pairs = data["SeeAlsoPairs"]["test"]
    assert {splits[text] for text in [*pairs["sentence1"], *pairs["sentence2"]]} == {"test"}
    assert {splits[text] for text in data["HeldOutClustering"]["test"]["sentences"]} == {"held-out"}


def test_every_query_has_its_own_document_and_classes_are_even(data: dict[str, Any]) -> None:
    retrieval = data["Retrieval"]["default"]["test"]
    assert len(set(retrieval["corpus"]["text"])) == len(retrieval["corpus"])
    assert retrieval["relevant_docs"] == {
        query: {query.removeprefix("q:"): 1} for query in retrieval["queries"]["id"]
    }
    names = data["Names"]["default"]["test"]
    assert len(set(names["queries"]["text"])) == len(names["queries"])
    train = data["SubpackageClassification"]["train"]["label"][:]
    assert {train.count(label) for label in set(train)} == {8} and set(train) == set(
        data["SubpackageClassification"]["test"]["label"]
    )
    labels = data["SeeAlsoPairs"]["test"]["labels"][:]
    assert labels.count(1) == labels.count(0) > 10


def test_links_lead_both_ways_and_never_to_oneself(made_up_corpus: Corpus, data: dict[str, Any]) -> None:
    relevant = data["SeeAlso"]["default"]["test"]["relevant_docs"]
    assert all(query not in documents for query, documents in relevant.items())
    assert all(query in relevant[document] for query, documents in relevant.items() for document in documents)
    assert {entry.split for entry in made_up_corpus.entries if entry.name in relevant} == {"test"}


def test_the_revision_tells_corpora_apart(made_up_corpus: Corpus) -> None:
    other = Corpus(made_up_corpus.entries[:-1], made_up_corpus.versions)
    revisions = {
        task.metadata.revision for corpus in (made_up_corpus, other) for task in corpus_tasks(corpus)
    }
    assert len(revisions) == 2
