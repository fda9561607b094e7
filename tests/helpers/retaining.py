"""Files of text and of pairs for `selfpos retain`, and the command."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.helpers.command import CommandLine, Done


def sentences(count: int, seed: int, length: int = 12) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length)) for _ in range(count)]


def text_file(folder: Path, name: str, seed: int, count: int = 60) -> Path:
    file = folder / f"{name}.txt"
    file.write_text("\n".join(sentences(count, seed)), encoding="utf-8")
    return file


def pair_file(folder: Path, name: str, seed: int, count: int = 60) -> Path:
    """Questions and answers that share most of their letters."""
    file = folder / f"{name}.jsonl"
    lines = []
    for number, text in enumerate(sentences(count, seed)):
        answer = text[: -2 * (1 + number % 4)]
        lines.append(json.dumps({"query": text, "positive": answer}))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def retain(selfpos: CommandLine, base: Path, tuned: list[Path], out: Path, *words: str | Path) -> Done:
    return selfpos("retain", base, *tuned, "--out", out, "--device", "cpu", *words)
