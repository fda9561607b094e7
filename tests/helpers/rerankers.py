"""Tiny rerankers, and the questions and candidates that they learn from."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.helpers.families import plain_bert
from tests.helpers.files import write_lines


def reranker(place: Path, **fields: Any) -> Path:
    """A tiny reranker without dropout, as sentence-transformers saves it."""
    from sentence_transformers import CrossEncoder

    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 1}
    plain = plain_bert(place / "plain", "BertForSequenceClassification", **still | fields)
    CrossEncoder(str(plain), device="cpu").save_pretrained(str(place / "base"))
    return place / "base"


def default_prompt_of(text: str) -> dict[str, Any]:
    """The settings of a model that sets `text` before all it reads."""
    return {"prompts": {"ask": text, "other": "k "}, "default_prompt_name": "ask"}


def random_texts(draw: random.Random, count: int) -> list[str]:
    return [" ".join(draw.choices("defghijklmnop", k=4)) for _ in range(count)]


def questions(file: Path, right: str, wrong: str, count: int = 120) -> Path:
    """Questions whose right candidate has one word, and whose wrong ones have another."""
    draw = random.Random(right)
    rows = [
        {
            "query": question,
            "positive": [f"{right} {text}" for text in random_texts(draw, 1)],
            "negative": [f"{wrong} {text}" for text in random_texts(draw, 2)],
        }
        for question in random_texts(draw, count)
    ]
    write_lines(file, rows)
    return file


def write_candidates(file: Path, grades: list[Any], name: str = "score") -> Path:
    """Candidates one a record, four a question, with these grades in turn."""
    draw = random.Random(1)
    rows = [
        {"question": question, "passage": text, name: grades[(4 * n + k) % len(grades)]}
        for n, question in enumerate(random_texts(draw, 20))
        for k, text in enumerate(random_texts(draw, 4))
    ]
    write_lines(file, rows)
    return file
