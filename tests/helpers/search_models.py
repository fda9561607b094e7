"""SPLADE and ColBERT, and the questions and answers that they learn from."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.families import colbert, splade
from tests.helpers.files import write_lines

KINDS: dict[str, Callable[..., Path]] = {"SparseEncoder": splade, "MultiVectorEncoder": colbert}
each_kind = pytest.mark.parametrize("kind", list(KINDS))


def load_encoder(folder: Path, kind: str) -> Any:
    import sentence_transformers

    return getattr(sentence_transformers, kind)(str(folder), device="cpu")


def write_pairs(file: Path, count: int = 40, seed: int = 0) -> Path:
    """Questions in letters of a to l, whose answers hold each letter's partner (a: m, b: n, …)."""
    draw = random.Random(seed)
    partner = dict(zip("abcdefghijkl", "mnopqrstuvwx", strict=True))
    questions = {" ".join(draw.sample(list(partner), 4)) for _ in range(3 * count)}
    rows = [
        {"query": question, "answer": " ".join(partner.get(letter, letter) for letter in question)}
        for question in sorted(questions)[:count]
    ]
    write_lines(file, rows)
    return file
