"""Kinds of files."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

from tests.helpers.shapes.shape import QA, READ, Shape, arrow, lines, parquet, saved, zstandard


def categories(file: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"text": ["a", "b", "c", "d"], "label": ["x", "y", "x", "y"]})
    frame.astype({"label": "category"}).to_parquet(file)


FILES = [
    Shape("JSON Lines", "retrieval", {"a.jsonl": lines(*QA)}, READ, '`{"question": "q1", "answer": "a1"}`'),
    Shape("the same, called .ndjson", "retrieval", {"a.ndjson": lines(*QA)}, READ),
    Shape("gzip", "retrieval", {"a.jsonl.gz": gzip.compress(lines(*QA).encode())}, READ, "`a.jsonl.gz`"),
    Shape("bzip2", "retrieval", {"a.jsonl.bz2": bz2.compress(lines(*QA).encode())}, READ),
    Shape("xz", "retrieval", {"a.jsonl.xz": lzma.compress(lines(*QA).encode())}, READ),
    Shape("Zstandard", "retrieval", {"a.jsonl.zst": zstandard(lines(*QA))}, READ, "`a.jsonl.zst`"),
    Shape("compressed JSON", "retrieval", {"a.json.gz": gzip.compress(json.dumps(QA).encode())}, READ),
    Shape("a byte order mark", "retrieval", {"a.jsonl": "\ufeff" + lines(*QA)}, READ),
    Shape("empty lines", "retrieval", {"a.jsonl": "\n" + lines(*QA) + "\n\n"}, READ),
    Shape("JSON: a list", "retrieval", {"a.json": json.dumps(QA)}, READ, '`[{"question": …}, …]`'),
    Shape("JSON Lines in .json", "retrieval", {"a.json": lines(*QA)}, READ),
    Shape(
        "JSON: an object with one list",
        "retrieval",
        {"a.json": json.dumps({"version": "1", "data": QA})},
        READ,
        '`{"data": [{"question": …}, …]}`',
    ),
    Shape(
        "JSON: a list for each column",
        "retrieval",
        {"a.json": json.dumps({"question": ["q1", "q2"], "answer": ["a1", "a2"]})},
        READ,
        '`{"question": [ … ], "answer": [ … ]}`',
    ),
    Shape("JSON: one record", "retrieval", {"a.json": json.dumps(QA[0])}, READ[:1]),
    Shape(
        "JSON: an object of objects",
        "retrieval",
        {"a.json": '{"a": {"question": "q"}}'},
        "must hold a list of JSON objects",
    ),
    Shape(
        "a key with two values",
        "retrieval",
        {"a.jsonl": '{"question": "q1", "answer": "x", "answer": "a1"}\n'},
        "line 1 cannot be read: the key 'answer' is there twice, with two values",
    ),
    Shape(
        "CSV",
        "retrieval",
        {"a.csv": 'question,answer\n"q1","a1"\nq2,a2\n'},
        READ,
        "`question,answer` in the first line",
    ),
    Shape(
        "CSV: commas, quotes, lines",
        "retrieval",
        {"a.csv": 'question,answer\n"a, ""b""\nc",a1\nq2,a2\n'},
        [('a, "b"\nc', "a1"), ("q2", "a2")],
    ),
    Shape(
        "CSV between semicolons",
        "retrieval",
        {"a.csv": '\ufeffquestion;answer\r\n"a; b";a1, a2\r\nq2;a2\r\n'},
        [("a; b", "a1, a2"), ("q2", "a2")],
        "`question;answer` in the first line",
    ),
    Shape(
        "CSV: spaces after commas",
        "retrieval",
        {"a.csv": 'question, answer\nq1, "a1, b"\nq2, a2\n'},
        [("q1", "a1, b"), ("q2", "a2")],
    ),
    Shape(
        "CSV: quotes after backslashes",
        "retrieval",
        {"a.csv": 'question,answer\n"say \\"q1\\"",a1\n'},
        "line 2 cannot be read",
    ),
    Shape(
        "CSV of lists, as pandas writes it",
        "retrieval",
        {"a.csv": "query,pos,neg\nq,\"['p']\",\"['n', 'm']\"\n"},
        "holds lists written as text",
    ),
    Shape(
        "other cases, spaces and hyphens in names",
        "retrieval",
        {"a.csv": "Question,ANSWER,Hard-Negative 1,Label\nq1,a1,n1,1\nq2,a2,n2,0\n"},
        [("q1", "a1", "n1")],
        "`Question`, `Is Duplicate`, `Hard-Negative 1`",
    ),
    Shape(
        "CSV with more cells than names",
        "retrieval",
        {"a.csv": "question,answer\nq1,a1,x\nq2,a2,y\n"},
        "each line needs as many cells as the first has names",
    ),
    Shape(
        "a name twice",
        "sts",
        {"a.csv": "sentence1,sentence2,score,score\na,b,0,9\nc,d,1,9\n"},
        [("a", "b", 0.0), ("c", "d", 1.0)],
        "the first counts",
    ),
    Shape(
        "compressed CSV", "retrieval", {"a.csv.gz": gzip.compress(b"question,answer\nq1,a1\nq2,a2\n")}, READ
    ),
    Shape(
        "CSV: texts that are numbers",
        "retrieval",
        {"a.csv": "question,answer\n1,007\nq2,2.50\n"},
        [("1", "007"), ("q2", "2.50")],
    ),
    Shape(
        "TSV, which has no quoting",
        "retrieval",
        {"a.tsv": 'question\tanswer\n"q1\ta1\nq2\t"a2\n'},
        [('"q1', "a1"), ("q2", '"a2')],
        'a cell may begin with `"`',
    ),
    Shape("TSV of Windows", "retrieval", {"a.tsv": "question\tanswer\r\nq1\ta1\r\nq2\ta2\r\n"}, READ),
    Shape(
        "TSV with more cells than names",
        "retrieval",
        {"a.tsv": "question\tanswer\nq1\ta1\tx\n"},
        "line 2 has 3 cells",
    ),
    Shape("Parquet", "retrieval", {"a.parquet": parquet(QA)}, READ, "`a.parquet`"),
    Shape(
        "Parquet: categories of pandas",
        "classification",
        {"a.parquet": categories},
        [("a", 0), ("b", 1), ("c", 0), ("d", 1)],
    ),
    Shape("Arrow, as Polars writes it", "retrieval", {"a.arrow": arrow(QA)}, READ),
    Shape("`save_to_disk`, one split", "retrieval", {"saved": saved(QA)}, READ, "the folder"),
    Shape("`save_to_disk`, several splits", "retrieval", {"saved": saved(QA, "train")}, READ),
    Shape(
        "half a surrogate pair",
        "retrieval",
        {"a.jsonl": '{"question": "q1 \\ud83d", "answer": "a1"}\n'},
        [("q1 \ufffd", "a1")],
    ),
    Shape(
        "a pointer of Git LFS",
        "retrieval",
        {"a.parquet": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
        "is a pointer of Git LFS",
    ),
    Shape("an unknown kind", "retrieval", {"a.xlsx": "x"}, "is of no known kind"),
    Shape("a file without records", "retrieval", {"a.jsonl": ""}, "has no records"),
]
