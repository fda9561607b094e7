from __future__ import annotations

import pytest

from selfpos.data.corpus import Corpus
from selfpos.data.corpus_training import MIN_PER_LABEL, RECORDS, name_in_words
from selfpos.errors import SelfposError
from selfpos.tasks import get_task


@pytest.mark.parametrize("task", sorted(RECORDS))
def test_every_type_gets_its_columns_from_entries_of_the_split_alone(corpus: Corpus, task: str) -> None:
    records = corpus.training(task)
    assert get_task(task).canonical(records).column_names == records.column_names
    assert corpus.training(task).to_list() == records.to_list()
    texts = {entry.summary for entry in corpus.part("train")} | {entry.body for entry in corpus.part("train")}
    for record in records:
        for column, value in record.items():
            if column not in ("label", "score"):
                assert texts.issuperset([value] if isinstance(value, str) else value)


def test_pairs_are_linked_or_of_one_subpackage(corpus: Corpus) -> None:
    by_summary = {entry.summary: entry for entry in corpus.part("train")}
    labels = []
    for record in corpus.training("pair-classification"):
        first, second = by_summary[record["sentence1"]], by_summary[record["sentence2"]]
        linked = second.name in first.see_also or first.name in second.see_also
        assert linked == bool(record["label"])
        assert linked or (first.subpackage == second.subpackage and first is not second)
        labels.append(record["label"])
    assert 0.45 < sum(labels) / len(labels) <= 0.55


def test_grades_are_what_they_say(corpus: Corpus) -> None:
    by_summary = {entry.summary: entry for entry in corpus.part("train")}
    by_body = {entry.body: entry for entry in corpus.part("train")}
    counts = dict.fromkeys((0.0, 1.0, 2.0, 3.0), 0)
    for record in corpus.training("sts"):
        first, second = by_summary[record["sentence1"]], by_body[record["sentence2"]]
        counts[record["score"]] += 1
        linked = second.name in first.see_also or first.name in second.see_also
        assert (first is second) == (record["score"] == 3)
        assert linked == (record["score"] == 2)
        assert record["score"] != 1 or first.subpackage == second.subpackage
        assert record["score"] != 0 or first.package != second.package
    assert min(counts.values()) > 0.9 * max(counts.values())


def test_labels_have_enough_texts_and_negatives_are_not_the_positive(corpus: Corpus) -> None:
    labels = corpus.training("classification")["label"][:]
    assert min(labels.count(label) for label in set(labels)) >= MIN_PER_LABEL
    assert all(record["positive"][0] not in record["negative"] for record in corpus.training("reranking"))


def test_views_are_other_records_of_a_task(corpus: Corpus) -> None:
    linked = {entry.body: entry for entry in corpus.part("train")}
    by_summary = {entry.summary: entry for entry in corpus.part("train")}
    for record in corpus.training("retrieval", "see-also"):
        first, second = by_summary[record["anchor"]], linked[record["positive"]]
        assert second.name in first.see_also or first.name in second.see_also
    names = corpus.training("retrieval", "names")
    for record in names:
        assert record["anchor"] == name_in_words(by_summary[record["positive"]].name)
    assert name_in_words("numpy.lib.TestCase.read_csvFile") == "read csv File"
    with pytest.raises(SelfposError, match="named 'name'; did you mean 'names'"):
        corpus.training("retrieval", "name")


def test_unknown_task_and_split(corpus: Corpus) -> None:
    with pytest.raises(
        SelfposError,
        match="no task type that the embedded corpus can supply named 'retreival'; did you mean 'retrieval'",
    ):
        corpus.training("retreival")
    with pytest.raises(SelfposError, match="splits are train, validation and test"):
        corpus.training("sts", split="dev")
