"""Layouts of folders."""

from __future__ import annotations

import gzip

from tests.helpers.shapes.shape import QA, READ, Shape, lines, parquet

BEIR = {
    "corpus.jsonl": lines(
        {"_id": "d1", "title": "T", "text": "a1"}, {"_id": "d2", "title": "", "text": "a2"}
    ),
    "queries.jsonl": lines({"_id": "q1", "text": "q1"}, {"_id": "q2", "text": "q2"}),
}
BEIR_READ = [("q1", "T a1"), ("q2", "a2")]
HEAD = "query-id\tcorpus-id\tscore\n"
CONFIG = (
    "---\nconfigs:\n- config_name: default\n  data_files:\n"
    "  - split: train\n    path: one/part-*.jsonl\n---\n# A set\n"
)


FOLDERS = [
    Shape(
        "a file for each split",
        "retrieval",
        {"train.jsonl": lines(*QA), "test.jsonl": lines(QA[0])},
        READ,
        "`train.jsonl`, `test.jsonl`",
    ),
    Shape(
        "a Hub data set as downloaded",
        "retrieval",
        {f"data/train-0000{n}-of-00002.parquet": parquet([row]) for n, row in enumerate(QA)},
        READ,
        "`data/train-00000-of-00002.parquet`, …",
    ),
    Shape(
        "parts of a split beside each other",
        "retrieval",
        {f"train-0000{n}-of-00002.jsonl": lines(row) for n, row in enumerate(QA)},
        READ,
    ),
    Shape(
        "a folder for each split",
        "retrieval",
        {f"train/{n}.jsonl": lines(row) for n, row in enumerate(QA)},
        READ,
        "`train/0.jsonl`, `train/1.jsonl`",
    ),
    Shape(
        "the Hub's conversion to Parquet",
        "retrieval",
        {f"default/train/000{n}.parquet": parquet([row]) for n, row in enumerate(QA)},
        READ,
        "`default/train/0000.parquet`, …",
    ),
    Shape(
        "files that the README names",
        "retrieval",
        {"README.md": CONFIG, **{f"one/part-{n}.jsonl": lines(row) for n, row in enumerate(QA)}},
        READ,
        "`configs:` of a data set's card",
    ),
    Shape(
        "a folder for each language",
        "retrieval",
        {f"{name}/train.jsonl": lines(row) for name, row in zip(("de", "fr"), QA, strict=True)},
        READ,
        "`de/train.jsonl`, `fr/train.jsonl`",
    ),
    Shape(
        "folders of other sets",
        "retrieval",
        {f"{name}/train.jsonl": lines(*QA) for name in ("mnli", "sst2")},
        "has no split 'train'; found mnli/, sst2/",
    ),
    Shape(
        "a missing part",
        "retrieval",
        {f"data/train-0000{n}-of-00003.jsonl": lines(*QA) for n in (0, 2)},
        "part 00001 is missing",
    ),
    Shape(
        "no file of the split",
        "retrieval",
        {"test.jsonl": lines(*QA), "other.txt": ""},
        "has no split 'train'; found test",
    ),
    Shape(
        "BEIR",
        "retrieval",
        {**BEIR, "qrels/train.tsv": HEAD + "q1\td1\t1\nq2\td2\t2\nq2\td1\t0\n"},
        BEIR_READ,
        "`corpus.jsonl`, `queries.jsonl`, `qrels/train.tsv`",
    ),
    Shape(
        "BEIR: judgements without a first line",
        "retrieval",
        {**BEIR, "qrels/train.tsv": "q1\td1\t1\nq2\td2\t1\n"},
        BEIR_READ,
    ),
    Shape(
        "BEIR: TREC's columns",
        "retrieval",
        {**BEIR, "qrels/train.tsv": "q1 0 d1 1\nq2 0 d2 1\n"},
        BEIR_READ,
        "`q1 0 d1 1`",
    ),
    Shape(
        "BEIR: decimal grades, empty last lines",
        "retrieval",
        {**BEIR, "qrels/train.tsv": HEAD + "q1\td1\t1.0\nq2\td2\t1.0\n\n\n"},
        BEIR_READ,
    ),
    Shape(
        "BEIR: judgements that point nowhere",
        "retrieval",
        {**BEIR, "qrels/train.tsv": HEAD + "q1\td1\t1\nq2\td2\t1\nq1\td9\t1\n"},
        BEIR_READ,
        "left out and counted",
    ),
    Shape(
        "BEIR: all judgements point nowhere",
        "retrieval",
        {**BEIR, "qrels/train.tsv": HEAD + "q1\td9\t1\n"},
        "has no judgements of a query and a document that are there",
    ),
    Shape(
        "BEIR: grades between whole numbers",
        "retrieval",
        {**BEIR, "qrels/train.tsv": HEAD + "q1\td1\t0.5\n"},
        "line 2: expected query-id, corpus-id and a whole score",
    ),
    Shape(
        "BEIR as the Hub has it",
        "retrieval",
        {
            "corpus/corpus-00000-of-00001.parquet": parquet([{"_id": "d1", "title": "T", "text": "a1"}]),
            "queries/queries-00000-of-00001.parquet": parquet([{"_id": "q1", "text": "q1"}]),
            "data/train-00000-of-00001.parquet": parquet(
                [{"query-id": "q1", "corpus-id": "d1", "score": 1.0}]
            ),
        },
        [("q1", "T a1")],
    ),
    Shape(
        "BEIR on the Hub, in parts",
        "retrieval",
        {
            "corpus/corpus-00000-of-00002.parquet": parquet([{"_id": "d1", "title": "T", "text": "a1"}]),
            "corpus/corpus-00001-of-00002.parquet": parquet([{"_id": "d2", "title": "", "text": "a2"}]),
            "queries/train-00000-of-00001.parquet": parquet(
                [{"_id": "q1", "text": "q1"}, {"_id": "q2", "text": "q2"}]
            ),
            "qrels/train-00000-of-00001.parquet": parquet(
                [{"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1} for n in (1, 2)]
            ),
        },
        BEIR_READ,
        "`corpus/corpus-00000-of-00002.parquet`, …",
    ),
    Shape(
        "BEIR: other names of texts",
        "retrieval",
        {
            "corpus.jsonl": lines({"docid": "d1", "title": "T", "contents": "a1"}),
            "queries.jsonl": lines({"qid": "q1", "question": "q1"}),
            "qrels/train.tsv": HEAD + "q1\td1\t1\n",
        },
        [("q1", "T a1")],
        "`contents`, `body`, `passage`; `query`, `question`",
    ),
    Shape(
        "BEIR: documents without a text",
        "retrieval",
        {**BEIR, "corpus.jsonl": lines({"_id": "d1", "title": "T"}), "qrels/train.tsv": HEAD + "q1\td1\t1\n"},
        "has no column text",
    ),
    Shape(
        "BEIR: judgements compressed, or with quotes",
        "retrieval",
        {
            **BEIR,
            "qrels/train.csv.gz": gzip.compress(
                b'"query-id","corpus-id","score"\n"q1","d1","1"\n"q2","d2","1"\n'
            ),
        },
        BEIR_READ,
    ),
    Shape(
        "BEIR: nothing is right",
        "retrieval",
        {**BEIR, "qrels/train.tsv": HEAD + "q1\td1\t0\n"},
        "has no judgement above 0",
    ),
    Shape(
        "BEIR for reranking",
        "reranking",
        {**BEIR, "qrels/train.tsv": HEAD + "q1\td1\t1\nq1\td2\t0\n"},
        [("q1", "T a1", "a2")],
    ),
]
