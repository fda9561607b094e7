"""Structured mutations of valid files, as hypothesis draws them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

ODD_NUMBERS = [
    0,
    1,
    -1,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**30,
    10**400,
    0.5,
    1e300,
    float("nan"),
    float("inf"),
]
ODD_TEXTS = [
    *("", " ", ".", "..", "../x", "/etc/passwd", "x/../..", "a\nselfpos: well", "\x1b[2J", "\u202e", "\0"),
    *(
        "\ud800",
        "é",
        "x" * 5000,
        "model.safetensors",
        "F32",
        "I64",
        "BOOL",
        "F4",
        "true",
        "null",
        "1e999",
        "*",
    ),
    *("*a", "&a", "!!python/none", "[", "(a+)+$", "con:", "C:\\x", "~", "query", "LORA", "..\\x"),
]
ODD = st.one_of(
    st.sampled_from([None, True, False, *ODD_NUMBERS]),
    st.sampled_from(ODD_TEXTS),
    st.sampled_from([[], {}, [[]], [None], {"": None}, {"a": {"b": [1]}}, [1, 2, 3], ["a", "b"], [True]]),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)

Path = tuple[Any, ...]


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """The positions of everything in a JSON value."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*at, index))


def value_at(value: Any, at: Path) -> Any:
    for step in at:
        value = value[step]
    return value


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """A JSON value near `valid`: one to four of its parts replaced, left out, renamed, doubled or swapped."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 4))):
        places = list(paths(value))
        at = draw(st.sampled_from(places))
        if not at:
            if draw(st.integers(0, 9)) == 0:
                value = copy.deepcopy(draw(ODD))
            continue
        parent, last = value_at(value, at[:-1]), at[-1]
        what = draw(st.sampled_from(["odd", "odd", "odd", "drop", "rename", "swap", "double", "wrap"]))
        if what == "drop":
            del parent[last]
        elif what == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(ODD_TEXTS) | st.text(max_size=10))] = parent.pop(last)
        elif what == "swap":
            parent[last] = copy.deepcopy(value_at(value, draw(st.sampled_from(places))))
        elif what == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        elif what == "wrap":
            parent[last] = draw(st.sampled_from([[parent[last]], {"a": parent[last]}, str(parent[last])]))
        else:
            parent[last] = copy.deepcopy(draw(ODD))
    return value


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes near `content`: cut, with others put in, or with a part doubled."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(changed)))
        what = draw(st.sampled_from(["cut", "insert", "flip", "double", "remove"]))
        if what == "cut":
            del changed[place:]
        elif what == "insert":
            odd = [
                b"\0",
                b"\xff\xfe",
                b"\xed\xa0\x80",
                b'"',
                b"[" * 300,
                b"9" * 5000,
                b"\r",
                b"\n",
                b"\xef\xbb\xbf",
            ]
            changed[place:place] = draw(st.sampled_from(odd) | st.binary(max_size=8))
        elif what == "flip" and place < len(changed):
            changed[place] ^= 1 << draw(st.integers(0, 7))
        else:
            end = min(len(changed), place + draw(st.integers(0, 60)))
            changed[place:end] = bytes(changed[place:end]) * 2 if what == "double" else b""
    return bytes(changed)


def documents(valid: Any) -> st.SearchStrategy[bytes]:
    """JSON documents near `valid`, and damaged ones."""
    text = json.dumps(valid).encode()
    return st.one_of(mutated(valid).map(as_json), mutated(valid).map(as_json), damaged(text))


def as_json(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()


def as_yaml(value: Any) -> bytes:
    """The value as YAML, or as JSON, which is YAML, where that cannot be written."""
    import yaml

    try:
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode(errors="surrogatepass")
    except (yaml.YAMLError, ValueError, OverflowError):
        return as_json(value)
