"""tokenizer.json files that fail, panic, or make texts of any length; and tasks of users' own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from documents import BOMB, FLOW_BOMB
from place import Place
from trial import DONE, REFUSED, Trial

TOKENIZER = "tokenizer.json"
ENDLESS = {"Regex": "(([a-z]+)+)+!"}
NOWHERE = {"SpecialToken": {"id": "[NOPE]", "type_id": 0}}
REPLACED = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
CHANGES: dict[str, list[dict[str, Any]]] = {
    "fails on texts": [
        {"model": {"vocab": {}}},
        {"model": {"unk_token": "[NOTHING]"}},
        {"model": {"vocab": {"[UNK]": 10**6, "a": 5}}},
        {"model": {"vocab": {"[UNK]": 1, "a": -1}}},
        {"model": {"vocab": {"[UNK]": 1, "a": 10**30}}},
        {"model": {"max_input_chars_per_word": 0}},
        {"model": {"type": "Unigram", "vocab": []}},
        {"model": {"type": "BPE", "merges": ["a b"], "dropout": 5}},
    ],
    "panics": [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"normalizer": {"type": "Replace", "pattern": ENDLESS, "content": "x"}},
        {"pre_tokenizer": {"type": "Split", "pattern": ENDLESS, "behavior": "Isolated", "invert": False}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [NOWHERE, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        },
    ],
    "multiplies letters": [
        {"normalizer": {"type": "Sequence", "normalizers": [REPLACED] * 4}},
        {"normalizer": {"type": "Sequence", "normalizers": [{**REPLACED, "pattern": {"Regex": ""}}] * 4}},
    ],
    "pads and cuts to any length": [
        {"truncation": {"direction": "Right", "max_length": size, "strategy": "LongestFirst", "stride": 9}}
        for size in (0, 5, 10**12)
    ],
}


def trials(place: Place) -> Iterator[Trial]:
    for fault, changes in CHANGES.items():
        for change in changes:
            for verb in ("base", "vector", "finetune", "eval-mteb", "search"):
                model = place.copy(place.vectors[0])
                kept = json.loads((model / TOKENIZER).read_text())
                for part, settings in change.items():
                    kept[part] = (kept[part] or {}) | settings if part == "model" else settings
                (model / TOKENIZER).write_text(json.dumps(kept))
                out = place.fresh() / "out"
                words = {
                    "base": lambda model=model, out=out: place.merge(out, base=model),
                    "vector": lambda model=model, out=out: place.merge(out, vectors=[model]),
                    "finetune": lambda model=model, out=out: place.finetune(out, base=model),
                    "eval-mteb": lambda model=model, out=out: place.score(out, model=model),
                    "search": lambda model=model, out=out: [*place.search(out, base=model), "--dry-run"],
                }[verb]()
                statuses = REFUSED if fault == "multiplies letters" else (*DONE, *REFUSED)
                yield Trial(f"tokenizer.json: {fault}", words, out, statuses, memory=2000)
    yield from own_tasks(place)


def own_tasks(place: Place) -> Iterator[Trial]:
    """Files of tasks that users declare for eval-mteb."""
    labelled = place.lines("labelled.jsonl", [{"text": f"a {n}", "label": n % 2} for n in range(40)])
    sts = f"name: Own\ntype: sts\nfiles: {{test: {place.pairs}}}\n"
    trained = f"name: Own\ntype: classification\nfiles: {{train: {labelled}, test: {labelled}}}\n"
    clustered = f"name: Own\ntype: clustering\nfiles: {{test: {labelled}}}\n"
    texts = [
        sts + BOMB,
        f"{sts}settings: {{a: {FLOW_BOMB}]}}\n",
        f"{sts}columns: &a {{x: *a}}\n",
        f"{sts}name: Other\n",
        sts.replace("Own", "../x"),
        sts.replace("Own", "n" * 300),
        f"{trained}settings: {{n_experiments: {10**9}}}\n",
        f"{trained}settings: {{samples_per_label: {10**12}}}\n",
        f"{clustered}settings: {{n_clusters: {10**12}}}\n",
        f"{clustered}settings: {{seed: {10**30}}}\n",
    ]
    for text in texts:
        file = place.fresh() / "task.yaml"
        file.write_text(text)
        out = place.fresh() / "out"
        words = ["eval-mteb", place.vectors[0], "--tasks", file, "--out", out, "--name", "me/scored"]
        yield Trial("a task of the user's own: without bounds", words, out, memory=2000)
