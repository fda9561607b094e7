"""Tasks of one's own: made-up sentences for them, and the files that declare them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def sentence(rng: random.Random, count: int = 6) -> str:
    return " ".join("".join(rng.choices(SYLLABLES, k=2)) for _ in range(count))


def sentences(count: int, seed: int = 0) -> list[str]:
    """So many sentences, drawn with `seed`."""
    rng = random.Random(seed)
    return [sentence(rng) for _ in range(count)]


def declare(folder: Path, **fields: Any) -> str:
    (folder / "mine.yaml").write_text(yaml.safe_dump(fields))
    return str(folder / "mine.yaml")
