from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from selfpos.errors import SelfposError
from selfpos.tasks import TASKS, get_task

NLI = Dataset.from_dict(
    {
        "premise": ["p", "p", "p", "q", "q", "r", "s"],
        "hypothesis": ["e1", "e2", "c1", "e3", "n1", "c2", "x"],
        "label": ["entailment", "entailment", "contradiction", "entailment", "neutral", "contradiction", "-"],
    }
)


def rows(dataset: Dataset) -> list[tuple]:
    return [tuple(record.values()) for record in dataset]


def test_every_type_is_registered_under_its_name() -> None:
    from mteb.abstasks.task_metadata import TaskType

    assert set(TASKS) == {
        "sts",
        "retrieval",
        "reranking",
        "classification",
        "clustering",
        "pair-classification",
        "bitext",
        "summarization",
        "instruction-retrieval",
    }
    assert all(kind.name == name and kind.summary for name, kind in TASKS.items())
    assert {kind.mteb_type for kind in TASKS.values()} <= set(get_args(TaskType))


def test_unknown_type_is_met_with_the_nearest() -> None:
    with pytest.raises(SelfposError, match="no task type named 'retreival'; did you mean 'retrieval'"):
        get_task("retreival")


@pytest.mark.parametrize(
    ("name", "given", "columns", "expected"),
    [
        (
            "sts",
            {"sentence1": ["a"], "sentence2": ["b"], "score": [1.0]},
            None,
            ["sentence1", "sentence2", "score"],
        ),
        (
            "sts",
            {"label": [1.0], "text_b": ["b"], "text_a": ["a"], "id": [3]},
            None,
            ["sentence1", "sentence2", "score"],
        ),
        (
            "retrieval",
            {"query": ["q"], "pos": [["p"]], "neg": [["n"]]},
            None,
            ["anchor", "positive", "negative"],
        ),
        ("retrieval", {"question": ["q"], "answer": ["p"]}, None, ["anchor", "positive"]),
        ("retrieval", {"l": ["q"], "r": ["p"]}, {"anchor": "l", "positive": "r"}, ["anchor", "positive"]),
        (
            "reranking",
            {"anchor": ["q"], "positive": ["p"], "negative": ["n"]},
            None,
            ["query", "positive", "negative"],
        ),
        ("classification", {"sentence": ["t"], "intent": ["x"]}, None, ["text", "label"]),
        ("clustering", {"title": ["t"], "topic": [4]}, None, ["text", "label"]),
        (
            "pair-classification",
            {"question1": ["a"], "question2": ["b"], "is_duplicate": [1]},
            None,
            ["sentence1", "sentence2", "label"],
        ),
        (
            "pair-classification",
            {"sent1": [["a", "b"]], "sent2": [["c", "d"]], "labels": [[1, 0]]},
            None,
            ["sentence1", "sentence2", "label"],
        ),
        ("classification", {"text": ["t"], "label": [1], "label_text": ["x"]}, None, ["text", "label"]),
        ("classification", {"tweet": ["t"], "class": [1], "count": [3]}, None, ["text", "label"]),
        ("classification", {"text": ["t"], "coarse_label": [1], "fine_label": [3]}, None, ["text", "label"]),
        ("classification", {"review_body": ["t"], "stars": [1]}, None, ["text", "label"]),
        ("clustering", {"sentences": [["t", "u"]], "labels": [["x", "y"]]}, None, ["text", "label"]),
        (
            "retrieval",
            {"context": ["c"], "title": ["t"], "question": ["q"], "id": ["1"]},
            None,
            ["anchor", "positive"],
        ),
        (
            "bitext",
            {"sentence2": ["b"], "sentence1": ["a"], "lang": ["de-en"]},
            None,
            ["sentence1", "sentence2"],
        ),
        ("bitext", {"src": ["a"], "tgt": ["b"]}, None, ["sentence1", "sentence2"]),
        ("bitext", {"id": ["1"], "translation": [{"de": "a", "fr": "b"}]}, None, ["sentence1", "sentence2"]),
        ("summarization", {"article": ["a"], "highlights": ["b"], "id": ["1"]}, None, ["text", "summary"]),
        ("summarization", {"dialogue": ["a"], "summary": ["b"]}, None, ["text", "summary"]),
        ("summarization", {"text": ["a"], "simplified": ["b"]}, None, ["text", "summary"]),
        (
            "instruction-retrieval",
            {"query": ["q"], "instruction": ["i"], "pos": [["p"]]},
            None,
            ["query", "instruction", "positive"],
        ),
        ("instruction-retrieval", {"query": ["q"], "answer": ["p"]}, None, ["query", "positive"]),
    ],
)
def test_usual_columns_are_understood(
    name: str, given: dict, columns: dict | None, expected: list[str]
) -> None:
    found = get_task(name).canonical(Dataset.from_dict(given), columns)
    assert found.column_names == expected
    assert get_task(name).canonical(found).column_names == expected


def test_columns_may_be_swapped() -> None:
    data = Dataset.from_dict({"anchor": ["a"], "positive": ["b"]})
    assert rows(get_task("retrieval").canonical(data, {"anchor": "positive", "positive": "anchor"})) == [
        ("b", "a")
    ]


@pytest.mark.parametrize(
    ("name", "data", "columns", "message"),
    [
        (
            "sts",
            {"sentence1": ["a"], "text": ["b"]},
            None,
            "lacks sentence2 and score: found columns sentence1, text; accepted names are",
        ),
        ("sts", {"sentence1": ["a"]}, {"scores": "x"}, "has no column 'scores'; did you mean 'score'"),
        (
            "sts",
            {"sentence1": ["a"], "rating": [1]},
            {"score": "ratng"},
            "no column 'ratng' to take as 'score'; did you mean 'rating'",
        ),
        ("sts", {"sentence1": [], "sentence2": [], "score": []}, None, "has no records"),
        (
            "sts",
            {"sentence1": ["a", None], "sentence2": ["b", "c"], "score": [1, 2]},
            None,
            "'sentence1' has no value on 1 of 2 records",
        ),
        ("retrieval", {"query": ["a"], "positive": [7]}, None, "'positive' must hold text or lists of text"),
        ("classification", {"text": [1], "label": ["a"]}, None, "'text' must hold text to serve"),
        (
            "clustering",
            {"text": [["a", "b"]], "label": [["x"]]},
            None,
            "record 1 holds lists of different length: 2 text, 1 label",
        ),
        (
            "bitext",
            {"translation": [{"de": "a", "en": "b", "fr": "c"}]},
            None,
            "texts in two languages, found de, en, fr",
        ),
        ("instruction-retrieval", {"query": ["q"], "instruction": ["i"]}, None, "lacks positive"),
        (
            "sts",
            {"sentence1": ["a", "b"], "sentence2": ["b", "c"], "score": [1.0, float("nan")]},
            None,
            "not finite",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_by_name(
    name: str, data: dict, columns: dict | None, message: str
) -> None:
    with pytest.raises(SelfposError) as error:
        get_task(name).canonical(Dataset.from_dict(data), columns)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("sts", {"sentence1": ["a", "b"], "sentence2": ["b", "c"], "score": [3, 3]}, "all 2 scores are 3"),
        ("sts", {"sentence1": ["a", "b"], "sentence2": ["b", "c"], "score": ["x", "y"]}, "must hold numbers"),
        (
            "sts",
            {"sentence1": ["a", "b"], "sentence2": ["b", "c"], "score": [1.0, float("inf")]},
            "not finite",
        ),
        (
            "pair-classification",
            {"sentence1": ["a", "b"], "sentence2": ["b", "c"], "label": [1, 1]},
            "needs both 0 and 1",
        ),
        (
            "pair-classification",
            {"sentence1": ["a", "b"], "sentence2": ["b", "c"], "label": [1, 2]},
            "which are 1 and 0 (or true and false",
        ),
        (
            "classification",
            {"text": ["a", "b", "c"], "label": ["x", "x", "y"]},
            "at least 2 labels with 2 texts each, found 1",
        ),
        ("reranking", {"query": ["q"], "positive": [["p"]], "negative": [[]]}, "none of the 1 records"),
    ],
)
def test_data_without_anything_to_learn_is_refused(name: str, data: dict, message: str) -> None:
    if name == "reranking":
        data = data | {"negative": [[], ["n"]], "query": ["q", "r"], "positive": [["p"], []]}
        message = "none of the 2 records"
    with pytest.raises(SelfposError) as error:
        get_task(name).prepare(Dataset.from_dict(data), seed=0)
    assert message in str(error.value)


def test_scores_are_brought_to_the_unit_interval() -> None:
    data = {"sentence1": list("abc"), "sentence2": list("xyz")}
    kind = get_task("sts")
    assert kind.prepare(Dataset.from_dict(data | {"score": [0, 2, 5]}), 0)["score"][:] == [0, 0.4, 1]
    assert kind.prepare(Dataset.from_dict(data | {"score": [1, 2, 5]}), 0)["score"][:] == [0, 0.25, 1]
    assert kind.prepare(Dataset.from_dict(data | {"score": [-1, 0, 1]}), 0)["score"][:] == [0, 0.5, 1]
    within = [0.2, 0.5, 0.5]
    assert kind.prepare(Dataset.from_dict(data | {"score": within}), 0)["score"][:] == within


def test_inference_set_gives_triples_pairs_or_grades() -> None:
    # p: e1, e2 | c1;  q has no contradiction, r no entailment; nobody agreed on s
    assert rows(get_task("retrieval").prepare(NLI, 0)) == [("p", "e1", "c1"), ("p", "e2", "c1")]
    pairs = rows(get_task("pair-classification").prepare(NLI, 0))
    assert pairs == [("p", "e1", 1), ("p", "e2", 1), ("p", "c1", 0), ("q", "e3", 1), ("r", "c2", 0)]
    assert dict(Counter(get_task("sts").prepare(NLI, 0)["score"][:])) == {1.0: 3, 0.5: 1, 0.0: 2}


def test_inference_labels_as_numbers_follow_their_names() -> None:
    features = Features(
        {
            "premise": Value("string"),
            "hypothesis": Value("string"),
            "label": ClassLabel(names=["contradiction", "entailment"]),
        }
    )
    named = Dataset.from_dict(
        {"premise": ["p", "p"], "hypothesis": ["no", "yes"], "label": [0, 1]}, features=features
    )
    assert rows(get_task("retrieval").prepare(named, 0)) == [("p", "yes", "no")]
    plain = Dataset.from_dict(
        {"premise": ["p", "p", "p"], "hypothesis": ["yes", "no", "?"], "label": [0, 2, -1]}
    )
    assert rows(get_task("retrieval").prepare(plain, 0)) == [("p", "yes", "no")]


def test_reranking_uses_every_positive_and_every_negative() -> None:
    data = Dataset.from_dict(
        {
            "query": ["q", "r", "s"],
            "positive": [["p1", "p2", "p3"], ["p4"], ["p5"]],
            "negative": [["n1"], ["n2", "n3"], []],
        }
    )
    kind = get_task("reranking")
    found = rows(kind.prepare(data, seed=3))
    assert {triple for triple in found if triple[0] == "q"} == {("q", p, "n1") for p in ("p1", "p2", "p3")}
    assert {triple for triple in found if triple[0] == "r"} == {("r", "p4", "n2"), ("r", "p4", "n3")}
    assert len(found) == 5
    assert rows(kind.prepare(data, seed=3)) == found
    assert sorted(rows(kind.prepare(kind.prepare(data, seed=3), seed=3))) == sorted(found)


def test_candidates_one_a_record_are_gathered_by_question() -> None:
    kind = get_task("reranking")
    judged = {
        "question": ["q", "q", "r", "q", "r"],
        "document_title": ["t"] * 5,
        "answer": ["no", "yes", "never", "nor", "neither"],
        "label": [0, 1, 0, 0, 0],
    }
    assert kind.canonical(Dataset.from_dict(judged)).to_list() == [
        {"query": "q", "positive": ["yes"], "negative": ["no", "nor"]}
    ]
    with pytest.raises(
        SelfposError, match=r"labels of pairs, which are 1 and 0 .*, found 2; write them as 1 and 0"
    ):
        kind.canonical(Dataset.from_dict(judged | {"label": [0, 1, 2, 0, 0]}))
    qnli = Dataset.from_dict(judged).cast_column("label", ClassLabel(names=["entailment", "not_entailment"]))
    turned = [{"query": "q", "positive": ["no", "nor"], "negative": ["yes"]}]  # there 0 is the right answer
    assert kind.canonical(qnli).to_list() == turned
    assert rows(get_task("retrieval").canonical(qnli)) == [
        ("q", "no"),
        ("r", "never"),
        ("q", "nor"),
        ("r", "neither"),
    ]
    assert rows(get_task("retrieval").canonical(Dataset.from_dict(judged))) == [("q", "yes")]
    pairs = get_task("pair-classification").canonical(qnli.rename_column("answer", "sentence"))
    assert pairs["label"][:] == [1, 0, 1, 1, 1]


def test_retrieval_draws_one_of_listed_negatives_and_keeps_columns_of_them() -> None:
    kind = get_task("retrieval")
    listed = Dataset.from_dict(
        {"query": ["q", "r"], "pos": [["p1", "p2"], ["p3"]], "neg": [["n1", "n2"], ["n3"]]}
    )
    found = rows(kind.prepare(listed, 0))
    assert [triple[:2] for triple in found] == [("q", "p1"), ("q", "p2"), ("r", "p3")]
    assert {triple[2] for triple in found[:2]} <= {"n1", "n2"}
    columns = Dataset.from_dict(
        {"anchor": ["q"], "positive": ["p"], "negative_1": ["a"], "negative_2": ["b"], "negative_10": ["c"]}
    )
    kept = kind.prepare(columns, 0)
    assert kept.column_names == ["anchor", "positive", "negative", "negative_2", "negative_3"]
    assert rows(kind.prepare(kept, 0)) == [("q", "p", "a", "b", "c")]
    assert kind.texts_of(kept.column_names) == kept.column_names


def test_lists_of_texts_become_records_of_their_own() -> None:
    nested = Dataset.from_dict(
        {"sentences": [["a", "b"], ["c", "d"]], "labels": [["x", "y"], ["x", "y"]], "id": [1, 2]}
    )
    assert rows(get_task("clustering").canonical(nested)) == [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]
    assert rows(get_task("clustering").canonical(nested, {"text": "sentences"})) == rows(
        get_task("clustering").canonical(nested)
    )


def test_translations_come_in_the_order_of_their_languages() -> None:
    data = Dataset.from_dict({"translation": [{"de": "Haus", "fr": "maison"}, {"de": "Hund", "fr": "chien"}]})
    assert rows(get_task("bitext").prepare(data, 0)) == [("Haus", "maison"), ("Hund", "chien")]


def test_an_instruction_follows_its_question_as_mteb_joins_them() -> None:
    from mteb._create_dataloaders import _combine_queries_with_instruction_text

    kind = get_task("instruction-retrieval")
    data = Dataset.from_dict(
        {
            "query": ["q", "q", "r"],
            "instruction": ["only x", "", "only y"],
            "positive": [["p1"], ["p2"], ["p3", "p4"]],
            "neg": [["n"]] * 3,
        }
    )
    found = kind.prepare(data, 0)
    assert rows(found) == [
        ("q only x", "p1", "n"),
        ("q", "p2", "n"),
        ("r only y", "p3", "n"),
        ("r only y", "p4", "n"),
    ]
    assert rows(kind.prepare(found, 0)) == rows(found) and kind.texts_of(found.column_names) == [
        "anchor",
        "positive",
        "negative",
    ]
    theirs = _combine_queries_with_instruction_text(
        Dataset.from_dict({"text": ["q"], "instruction": ["only x"]})
    )
    assert theirs["text"][0] == found["anchor"][0]
