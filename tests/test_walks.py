"""The pages that a newcomer follows, carried out from their first block to their last."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.command import ROOT

pytestmark = pytest.mark.nightly

QUEUES = {
    "card_arrival": "my new card has not come",
    "lost_card": "somebody took my card",
    "exchange_rate": "the rate is not what I saw",
    "top_up_failed": "money was not added to my account",
}


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block of a page, in order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    yield from re.findall(r"^```(\w+)\n(.*?)^```", text, re.S | re.M)


def tickets(count: int, header: str) -> str:
    """A CSV of `count` labelled texts."""
    queues = list(QUEUES.items())
    rows = [(f"{queues[n % 4][1]} since {n} days", queues[n % 4][0]) for n in range(count)]
    return f"{header}\n" + "".join(f"{text},{queue}\n" for text, queue in rows)


def questions(count: int) -> str:
    """JSON Lines of `count` questions with replies."""
    rows = [
        {"question": f"What is disease {n}?", "reply": f"Disease {n} is an illness of organ {n * 7}."}
        for n in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def own_data(folder: Path) -> None:
    """What the page "A CSV and a JSONL" begins with."""
    (folder / "tickets.csv").write_text(tickets(200, "ticket,queue"), encoding="utf-8")
    (folder / "faq.jsonl").write_text(questions(200), encoding="utf-8")


def own_models(folder: Path) -> None:
    """What the page "Three fine-tuned models" begins with: folders as sentence-transformers saves them."""
    import torch
    from sentence_transformers import SentenceTransformer

    from selfpos.storage.locate import locate_model

    base = str(locate_model("all-MiniLM-L6-v2"))
    for seed, name in enumerate(("support", "medical", "duplicates")):
        torch.manual_seed(seed)
        model = SentenceTransformer(base, device="cpu")
        with torch.no_grad():
            for weights in model.parameters():
                weights += 0.02 * weights.std(correction=0) * torch.randn_like(weights)
        model.save(str(folder / name))
    texts = {f"texts/medical/{n}.txt": f"Disease {n} is an illness of organ {n * 7}." for n in range(60)}
    texts["texts/support.csv"] = tickets(60, "text,label")
    texts["texts/duplicates.txt"] = "".join(f"How do I cook dish {n}?\n" for n in range(60))
    texts["data/support-train.jsonl"] = as_lines(tickets(40, "text,label"))
    texts["test/support.csv"] = tickets(60, "text,label")
    pairs = [{"anchor": f"dish {n}", "positive": f"a dish, number {n}"} for n in range(30)]
    texts["test/medical.jsonl"] = "".join(json.dumps(pair) + "\n" for pair in pairs)
    judged = [{"text1": f"dish {n}", "text2": f"meal {n + n % 2}", "label": 1 - n % 2} for n in range(30)]
    texts["test/duplicates.jsonl"] = "".join(json.dumps(pair) + "\n" for pair in judged)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def as_lines(table: str) -> str:
    """A CSV of texts and labels as JSON Lines."""
    rows = [line.rsplit(",", 1) for line in table.splitlines()[1:]]
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


@pytest.mark.parametrize(
    ("page", "begin", "made"),
    [
        ("walk-data.md", own_data, "checkpoints/own-data/report.html"),
        ("walk-merge.md", own_models, "merged/model.safetensors"),
        ("python.md", None, "merged/model.safetensors"),
    ],
)
def test_a_page_can_be_followed(
    tmp_path: Path, page: str, begin: Callable[[Path], None] | None, made: str
) -> None:
    if begin is not None:
        begin(tmp_path)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    for language, text in blocks(page):
        if language == "yaml":  # its first line names the file
            (tmp_path / text.split()[1].rstrip(":")).write_text(text, encoding="utf-8")
            continue
        if language == "python":
            words = [sys.executable, "-c", text]
        else:
            commands = "\n".join(line for line in text.splitlines() if not line.startswith("pip "))
            words = ["bash", "-euc", f'selfpos() {{ "{sys.executable}" -m selfpos "$@"; }}\n{commands}']
        ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, f"{text}\n{ended.stderr[-2000:]}"
    assert (tmp_path / made).is_file()
