"""Adapters, and copies of models that are damaged or in shards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def state(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder, by key, in float64; independent of the code under test."""
    return {
        (f"{file.parent.relative_to(folder).as_posix()}/" if file.parent != folder else "")
        + name: value.double().numpy()
        for file in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def make_adapter(
    base: Path, folder: Path, *, seed: int = 0, plain: bool = False, **options: Any
) -> dict[str, np.ndarray]:
    """Write a random adapter over `base` with PEFT; returns the float64 differences that PEFT's own merge
    makes, by key.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(seed)
    model = AutoModel.from_pretrained(base)
    before = {name: value.double().numpy().copy() for name, value in model.state_dict().items()}
    adapted = get_peft_model(
        model, LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": ["query", "dense"]} | options))
    )
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name or value.requires_grad:
                value += 0.05 * torch.randn_like(value)
    if plain:
        adapted.save_pretrained(folder)
    else:
        shutil.copytree(base, folder, ignore=shutil.ignore_patterns("model.safetensors"))
        shutil.copy(base / "2_Dense" / "model.safetensors", folder / "2_Dense")
        (folder / "config.json").unlink()  # as sentence-transformers saves adapters
        adapted.save_pretrained(folder)
    merged = adapted.merge_and_unload().state_dict()
    return {name: merged[name].double().numpy() - value for name, value in before.items() if name in merged}


def edit_json(file: Path, **change: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def in_shards(base: Path, folder: Path, *, twice: bool = False) -> dict[str, str]:
    """A copy in two shards without an index, the last tensor in both (wrong in the first) with `twice`;
    returns the weight map.
    """
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    halves = [names[::2], names[1::2]]
    weight_map = {name: SHARDS[number] for number, half in enumerate(halves) for name in half}
    for number, half in enumerate(halves):
        stored = {name: tensors[name] for name in half}
        if twice and number == 0:
            stored[halves[1][-1]] = tensors[halves[1][-1]] + 1
        save_file(stored, folder / SHARDS[number], {"format": "pt"})
    return weight_map


def changed(tiny_base: Path, folder: Path, what: str) -> None:
    """A copy of the model in `folder` with one thing changed: its weights, or one of its JSON files."""
    shutil.copytree(tiny_base, folder)
    if what in ("missing", "extra", "shape"):
        _change_weights(folder / "model.safetensors", what)
    elif what.endswith(".json"):
        (folder / what).write_text("[]")
    else:
        _change_json(folder, what)


def _change_weights(weights: Path, what: str) -> None:
    tensors = load_file(weights)
    name = "encoder.layer.0.output.dense.bias"
    if what == "missing":
        del tensors[name]
    elif what == "extra":
        tensors["extra.weight"] = torch.zeros(2)
    else:
        tensors[name] = torch.zeros(3)
    save_file(tensors, weights, metadata={"format": "pt"})


def _change_json(folder: Path, what: str) -> None:
    edits: dict[str, tuple[str, dict[str, Any]]] = {
        "pooling": ("1_Pooling/config.json", {"pooling_mode": "cls"}),
        "prompts": ("config_sentence_transformers.json", {"prompts": {"query": "other: "}}),
        "heads": ("config.json", {"num_attention_heads": 4}),
        "added tokens": ("tokenizer.json", {"added_tokens": ["a"]}),
    }
    if what in edits:
        name, change = edits[what]
        edit_json(folder / name, **change)
    elif what == "modules":
        modules = json.loads((folder / "modules.json").read_text())
        (folder / "modules.json").write_text(json.dumps(modules[:-1]))
    elif what == "tokenizer":
        data = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = data["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        (folder / "tokenizer.json").write_text(json.dumps(data))
    else:
        raise ValueError(what)
