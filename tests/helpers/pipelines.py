"""A recipe with every way of training."""

from __future__ import annotations

import json
from pathlib import Path

MODELS = [
    "base", "retrieval", "pairs", "plain", "surgery", "max-3-1", "iterative-2-retrieval", "bagging-1",
    "bagging-2",
    "average", "slerp-iterative", "found-iterative", "boom",
]  # fmt: skip


def every_pipeline(base: Path, folder: Path) -> dict:
    """A recipe of small local data, which it writes into `folder`."""
    words = [f"{a}{b} {b}{a}" for a in "abcdefgh" for b in "ijklmnop"]
    lines = {
        "retrieval": [{"anchor": word, "positive": f"about {word}"} for word in words],
        "pairs": [
            {"sentence1": word, "sentence2": words[-place - 1], "label": place % 2}
            for place, word in enumerate(words)
        ],
    }
    for name, records in lines.items():
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
        )
    scored = folder / "mteb" / "stsbenchmark"
    scored.mkdir(parents=True)
    rows = [
        {"sentence1": word, "sentence2": words[place // 2], "score": place % 6}
        for place, word in enumerate(words[:20])
    ]
    (scored / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "name": "every",
        "base": str(base),
        "seed": 3,
        "tasks": {
            "retrieval": {"type": "retrieval", "data": str(folder / "retrieval.jsonl")},
            "pairs": {"type": "pair-classification", "data": str(folder / "pairs.jsonl")},
        },
        "training": {
            "steps": 6,
            "batch_size": 8,
            "max_length": 16,
            "learning_rate": 1e-3,
            "checkpoint_every": 2,
        },
        "joint": {
            "plain": {},
            "surgery": {"surgery": "pcgrad", "on_probe": True},
            "max-3-1": {"mixture": "resampled", "size": "max", "ratio": {"retrieval": 3}},
        },
        "iterative": {"order": ["pairs", "retrieval"]},
        "bagging": {"shares": [0.5, 1.0]},
        "budget": {"equal": "draws"},
        "probe": {"per_task": 12},
        "merges": {
            "average": {"method": "average"},
            "slerp-iterative": {"method": "slerp", "vectors": "iterative"},
            "found-iterative": {
                "method": "self-positioning",
                "vectors": "iterative",
                "positioning": {
                    "search": "sgd",
                    "steps": 2,
                    "batch_size": 4,
                    "validation": 0.0,
                    "compare": False,
                },
            },
            "boom": {"method": "multi-slerp", "vectors": "bagging"},
        },
        "evaluation": {"tasks": ["STSBenchmark"], "data_dir": str(folder / "mteb")},
    }
