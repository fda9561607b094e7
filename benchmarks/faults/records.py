"""Records that break a reader: lines without end, nesting, encodings, numbers and damage."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from place import Place
from trial import DONE, REFUSED, Seen, Trial

GOOD = {"sentence1": "a b", "sentence2": "c d", "score": 1}
LINES = "".join(json.dumps(GOOD | {"score": number % 5}) + "\n" for number in range(64))


def _one(**changes: object) -> str:
    return LINES + json.dumps(GOOD | changes) + "\n"


TEXTS: dict[str, list[str]] = {
    "nested deeply": [
        LINES + "[" * 100_000,
        LINES + '{"sentence1": ' + "[" * 50_000 + "]" * 50_000 + "}\n",
        LINES + '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
    "a line that is no record": [f"{LINES}{text}\n" for text in ("{", "5", "null", "[1]", '"a"', "not json")],
    "a field of a wrong type": [
        *(_one(score=value) for value in ("x", [1], {}, float("nan"), 1e400, 10**30)),
        *(_one(sentence1=value) for value in (5, ["a"], {"a": "b"})),
        _one(score=True),
    ],
    "nothing in it": ["", "\n\n\n", " "],
    "no column that is needed": ['{"text": "a"}\n' * 64],
}
KEPT = {
    "half a surrogate pair (a mark in its place, which is said)": (
        "half a surrogate pair in 1 records is read as",
        [LINES + '{"sentence1": "\\ud800", "sentence2": "a", "score": 1}\n'],
    ),
    "missing values and blank texts (left out, which is said)": (
        "64 of 65 records; dropped: 1 (missing value|blank text)",
        [*(_one(sentence1=value) for value in (None, "", " ")), _one(score=None)],
    ),
    "integers beyond 64 bits in a column nobody needs": (
        "sentence1: 65 texts",
        [_one(id=2**70), _one(id="9")],
    ),
    "thousands of digits in a column nobody needs": (
        "sentence1: 65 texts",
        [LINES + json.dumps(GOOD)[:-1] + ', "id": ' + "9" * 5000 + "}\n"],
    ),
    "escape sequences in texts": (
        "sentence1: 65 texts, 2 different",
        [_one(sentence1="\x1b[2J\x1b[31m red\nselfpos: well\u202e")],
    ),
}
"""Fault → what is said of it while the work goes on, and records."""


def trials(place: Place) -> Iterator[Trial]:
    for fault, texts in TEXTS.items():
        for text in texts:
            yield _read(place, f"records: {fault}", "x.jsonl", text.encode())
    for fault, (said, texts) in KEPT.items():
        for text in texts:
            trial = _read(place, f"records: {fault}", "x.jsonl", text.encode(), DONE)
            yield replace(trial, right=partial(_unsaid, said))
    long = (LINES + '{"sentence1": "' + "x" * 100_000_000 + '"}\n').encode()
    for name, content in (("x.jsonl", long), ("x.jsonl.gz", gzip.compress(long, 1))):
        yield _read(place, "records: a line of 100 MB", name, content)
    yield _read(
        place, "records: a line of 100 MB", "x.csv", b"sentence1,sentence2,score\n" + b'"' + b"x" * 10**8
    )
    yield _read(place, "records: a line of 100 MB", "x.tsv", b"sentence1\tsentence2\tscore\n" + b"x" * 10**8)
    yield _read(place, "records: a line of 100 MB", "x.json", b'[{"sentence1": "' + b"x" * 10**8)
    text = LINES.replace("a b", "größe")
    for encoding in ("utf-16", "utf-32", "latin-1", "utf-16-be"):
        yield _read(place, "records: not UTF-8", "x.jsonl", json_text(text).encode(encoding))
    yield _read(place, "records: with a byte order mark", "x.jsonl", LINES.encode("utf-8-sig"), DONE)
    yield _read(place, "records: not UTF-8", "x.jsonl", bytes(range(256)) * 1000)
    packed = gzip.compress(LINES.encode())
    for name, content in {
        "x.jsonl.gz": packed[:-20],
        "y.jsonl.gz": b"not gzip",
        "x.jsonl.xz": b"not xz",
        "x.jsonl.zst": b"not zst",
        "x.parquet": b"PAR1 not parquet PAR1",
        "x.arrow": b"ARROW1 not arrow",
        "x.jsonl.bz2": b"BZh9 no",
    }.items():
        yield _read(place, "records: a file that is cut or damaged", name, content)
    yield _read(
        place, "records: a packed file that unpacks without end", "b.jsonl.gz", gzip.compress(b"x" * 10**9, 1)
    )
    yield _read(
        place, "records: a packed file that unpacks without end", "b.json.gz", gzip.compress(b" " * 10**9, 1)
    )
    yield from tables(place)
    yield from probes(place)


def _unsaid(said: str, seen: Seen) -> str:
    return "" if re.search(said, seen.err) else f"says nothing of {said!r}"


def json_text(text: str) -> str:
    """The lines with letters as they are."""
    return "".join(json.dumps(json.loads(line), ensure_ascii=False) + "\n" for line in text.splitlines())


def _read(place: Place, fault: str, name: str, content: bytes, statuses: tuple[int, ...] = REFUSED) -> Trial:
    file = place.fresh() / name
    file.write_bytes(content)
    out = place.fresh() / "out"
    seconds = 15 if 0 in statuses else 4  # reading takes 2, the check of the base the rest
    return Trial(fault, place.finetune(out, data=file), out, statuses, seconds=seconds)


def tables(place: Place) -> Iterator[Trial]:
    """Tables whose rows and cells do not fit."""
    head = "sentence1,sentence2,score\n"
    for text, says in (
        (head + 'a,"b,1\n' * 64, "line 3 cannot be read: ',' expected after"),
        (head + "a,b\n" * 64, "no usable records: 64 with a missing value"),
        (head + "a,b,1,2,3\n" * 64, "line 2 cannot be read: it has 5 cells"),
        (head + "a,b,x\n" * 64, "'score' .* must hold numbers"),
        (head + "a\0,b,1\n" * 64, "all 64 scores are 1"),
        ("sentence1,sentence1,score\na,b,1\n" * 3, "lacks sentence2"),
        (head, "has no records"),
        ("," * 100_000 + "\n", "100,001 columns in its first line"),
    ):
        trial = _read(place, "records: a CSV whose rows do not fit", "x.csv", text.encode())
        yield replace(trial, says=says)


def probes(place: Place) -> Iterator[Trial]:
    """Probe sets that are damaged."""
    good = (place.probe / "probe.jsonl").read_text()
    first = json.loads(good.splitlines()[0])
    for text in (
        "[" * 100_000,
        good + "{",
        good.replace('"record"', '"recard"'),
        good.replace('"type": "sts"', '"type": "nothing"'),
        json.dumps(first | {"record": {"sentence1": "\ud800", "sentence2": "a", "score": 1}}) + "\n",
        json.dumps(first | {"task": 5}) + "\n",
        json.dumps(first | {"record": 5}) + "\n",
        "",
        good[: len(good) // 2],
    ):
        file = place.fresh() / "probe.jsonl"
        file.write_text(text)
        out = place.fresh() / "out"
        words: list[str | Path | int] = [*place.merge(out, method="self-positioning"), "--probe", file]
        yield Trial("a probe set that is damaged", words, out, memory=2000)
