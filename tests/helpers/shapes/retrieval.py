"""Questions and answers."""

from __future__ import annotations

import gzip
import json

from tests.helpers.shapes.shape import QA, READ, Shape, lines, pairs, parquet, table

RETRIEVAL = [
    Shape(
        "BGE",
        "retrieval",
        {
            "a.jsonl": lines(
                {"query": "q", "pos": ["p"], "neg": ["n"]}, {"query": "r", "pos": ["s", "t"], "neg": ["m"]}
            )
        },
        [("q", "p", "n"), ("r", "s", "m"), ("r", "t", "m")],
        '`{"query": "q", "pos": ["p"], "neg": ["n"]}`',
    ),
    Shape(
        "BGE: negatives empty, blank or absent",
        "retrieval",
        {
            "a.jsonl": lines(
                {"query": "q", "pos": ["p"], "neg": ["n", ""]},
                {"query": "r", "pos": ["s"], "neg": []},
                {"query": "u", "pos": ["v"]},
                {"query": "w", "pos": ["x"], "neg": [None]},
            )
        },
        [("q", "p", "n"), ("r", "s", "n"), ("u", "v", "n"), ("w", "x", "n")],
        "such a record gets a negative of another one",
    ),
    Shape(
        "BGE: scores and prompts",
        "retrieval",
        {
            "a.jsonl": lines(
                {
                    "query": "q",
                    "pos": ["p"],
                    "neg": ["n"],
                    "pos_scores": [0.9],
                    "neg_scores": [0.1],
                    "prompt": "x",
                    "type": "y",
                }
            )
        },
        [("q", "p", "n")],
        "`pos_scores`, `prompt`: not used, and listed",
    ),
    Shape(
        "BGE: a text in place of a list",
        "retrieval",
        {"a.jsonl": lines({"query": "q", "pos": "p"}, {"query": "r", "pos": ["s"]})},
        [("q", "p"), ("r", "s")],
    ),
    Shape(
        "embedding-training-data: pairs",
        "retrieval",
        {"a.jsonl.gz": gzip.compress(lines(["q1", "a1"], ["q2", "a2"]).encode())},
        READ,
        '`["q1", "a1"]`',
    ),
    Shape(
        "embedding-training-data: triplets",
        "retrieval",
        {"a.jsonl": lines(["q", "p", "n"], ["r", "s", "m"])},
        [("q", "p", "n"), ("r", "s", "m")],
        '`["q", "p", "n"]`',
    ),
    Shape(
        "embedding-training-data: sets",
        "retrieval",
        {"a.jsonl": lines({"set": ["a", "b", "c"]})},
        [("a", "b"), ("a", "c")],
        '`{"set": ["a", "b", "c"]}`',
    ),
    Shape(
        "embedding-training-data: query, pos, neg",
        "retrieval",
        {"a.jsonl": lines({"query": "q", "pos": ["p"], "neg": ["n"]})},
        [("q", "p", "n")],
    ),
    Shape(
        "MEDI",
        "retrieval",
        {
            "a.json": json.dumps(
                [{"query": ["Find it:", "q"], "pos": ["It:", "p"], "neg": ["It:", "n"], "task_name": "x"}]
            )
        },
        [("Find it: q", "It: p", "It: n")],
        '`{"query": ["Find it:", "q"], "pos": ["It:", "p"], …}`',
    ),
    Shape(
        "GritLM",
        "retrieval",
        {"a.jsonl": lines({"query": ["Find it:", "q"], "pos": [["", "p"]], "neg": [["", "n"]]})},
        [("Find it: q", "p", "n")],
        '`{"query": ["Find it:", "q"], "pos": [["", "p"]], …}`',
    ),
    Shape(
        "MEDI with its instructions apart",
        "instruction-retrieval",
        {"a.jsonl": lines({"query": ["only x", "q"], "pos": ["", "p"], "neg": ["", "n"]})},
        [("q only x", "p", "n")],
    ),
    Shape(
        "MIRACL",
        "retrieval",
        {
            "a.jsonl": lines(
                {
                    "query_id": "1",
                    "query": "q",
                    "positive_passages": [{"docid": "1", "title": "T", "text": "p"}],
                    "negative_passages": [{"docid": "2", "title": "", "text": "n"}],
                }
            )
        },
        [("q", "T p", "n")],
        '`"positive_passages": [{"title": "T", "text": "p"}]`',
    ),
    Shape(
        "DPR",
        "retrieval",
        {
            "a.json": json.dumps(
                [
                    {
                        "question": "q",
                        "answers": ["x"],
                        "positive_ctxs": [{"title": "T", "text": "p", "score": 1}],
                        "negative_ctxs": [],
                        "hard_negative_ctxs": [{"title": "U", "text": "n", "score": 0.5}],
                    }
                ]
            )
        },
        [("q", "T p", "U n")],
        '`"positive_ctxs": [ … ], "hard_negative_ctxs": [ … ]`',
    ),
    Shape(
        "passages without a plain text",
        "retrieval",
        {"a.jsonl": lines({"question": "q", "answer": {"text": ["a"], "answer_start": [1]}})},
        "a passage has the fields text, answer_start, of which none holds its text",
    ),
    Shape(
        "AllNLI triplets",
        "retrieval",
        {"a.parquet": parquet([{"anchor": "q", "positive": "p", "negative": "n"}])},
        [("q", "p", "n")],
        "`anchor`, `positive`, `negative`",
    ),
    Shape("GooAQ", "retrieval", {"a.parquet": parquet(QA)}, READ, "`question`, `answer`"),
    Shape(
        "MS MARCO with n negatives",
        "retrieval",
        {
            "a.parquet": parquet(
                [{"query": "q", "positive": "p", "negative_1": "n", "negative_2": "m", "negative_10": "o"}]
            )
        },
        [("q", "p", "n", "m", "o")],
        "`query`, `positive`, `negative_1`, `negative_2`, …",
    ),
    Shape(
        "numbered negatives, some blank",
        "retrieval",
        {
            "a.jsonl": lines(
                {"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": ""},
                {"anchor": "r", "positive": "s", "negative_1": None, "negative_2": "m"},
            )
        },
        [("q", "p", "n", "m"), ("r", "s", "n", "m")],
    ),
    Shape(
        "SQuAD",
        "retrieval",
        {
            "a.jsonl": lines(
                {
                    "id": "1",
                    "title": "T",
                    "context": "c",
                    "question": "q",
                    "answers": {"text": ["x"], "answer_start": [1]},
                }
            )
        },
        [("q", "c")],
        "`question`, `context`",
    ),
    Shape(
        "mixed kinds in a column that is not needed",
        "retrieval",
        {"a.jsonl": lines(QA[0] | {"id": 1}, QA[1] | {"id": "x"})},
        READ,
    ),
    Shape(
        "mixed kinds in one that is",
        "retrieval",
        {"a.jsonl": lines(QA[0], {"question": 5, "answer": "a2"})},
        "holds values of different kinds",
    ),
    Shape(
        "right and wrong pairs",
        "retrieval",
        {"a.jsonl": lines(*pairs([1, 0, 1], "question", "answer"))},
        [("s0", "t0"), ("s2", "t2")],
        "`label`: 1 for an answer, 0 for another text",
    ),
    Shape(
        "the same in decimals",
        "retrieval",
        {"a.jsonl": lines(*pairs([1.0, 0.0], "question", "answer"))},
        [("s0", "t0")],
    ),
    Shape(
        "the same as true and false",
        "retrieval",
        {"a.jsonl": lines(*pairs([True, False], "question", "answer"))},
        [("s0", "t0")],
    ),
    Shape(
        "QNLI of GLUE, TSV",
        "retrieval",
        {
            "a.tsv": table(
                ("index", "question", "sentence", "label"),
                ("0", "q", "s", "not_entailment"),
                ("1", "r", "t", "entailment"),
            )
        },
        [("r", "t")],
    ),
    Shape(
        "QNLI of GLUE, Parquet",
        "retrieval",
        {"a.parquet": parquet(pairs([0, 1], "question", "sentence"), label=["entailment", "not_entailment"])},
        [("s0", "t0")],
        "names of labels (ClassLabel) count, not their numbers",
    ),
    Shape(
        "labels about something else",
        "retrieval",
        {"a.jsonl": lines(*pairs(["law", "art"], "question", "answer"))},
        "found art, law; write them as 1 and 0",
    ),
    Shape(
        "grades in place of labels",
        "retrieval",
        {"a.jsonl": lines(*pairs([0, 1, 2, 3], "question", "answer"))},
        "found 2, 3; write them as 1 and 0",
    ),
    *(
        Shape(
            f"right and wrong pairs: {column}",
            "retrieval",
            {
                "a.jsonl": lines(
                    *({"question": "q", "answer": f"a{n}", column: value} for n, value in enumerate(values))
                )
            },
            [("q", "a1")],
            example,
        )
        for column, values, example in (
            (
                "is_correct",
                (0, 1),
                "`is_` and a word of the table above, `gold_label`, `relevance`, `grade`, …",
            ),
            ("is_impossible", (True, False), "1 for a wrong one; so `is_wrong`, `is_negative`, …"),
            ("target", ("no", "yes"), "1 and 0, or yes and no; so `score`, `rating`, `class`, `y`, `gold`"),
        )
    ),
    Shape(
        "scores of another kind",
        "retrieval",
        {"a.jsonl": lines(*({"question": f"q{n}", "answer": f"a{n}", "rating": n} for n in range(3)))},
        [(f"q{n}", f"a{n}") for n in range(3)],
    ),
    Shape(
        "reranking as MTEB had it",
        "reranking",
        {
            "a.jsonl": lines(
                {"query": "q", "positive": ["p"], "negative": ["n"]},
                {"query": "r", "positive": [], "negative": ["m"]},
            )
        },
        [("q", "p", "n")],
        '`{"query": "q", "positive": ["p"], "negative": ["n"]}`',
    ),
    Shape(
        "reranking: one text, nothing, null",
        "reranking",
        {
            "a.jsonl": lines(
                {"query": "q", "positive": "p", "negative": ["n"]},
                {"query": "r", "positive": ["s"], "negative": None},
            )
        },
        [("q", "p", "n")],
    ),
    Shape(
        "WikiQA: one candidate a record",
        "reranking",
        {"a.jsonl": lines(*({"question": "q", "answer": f"a{n}", "label": n % 2} for n in range(2)))},
        [("q", "a1", "a0")],
        "`question`, `answer`, `label`",
    ),
]
