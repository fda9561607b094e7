"""A trained model as a folder that differs from its base in the weights alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

#: files of slow tokenizers, which the library leaves out when it saves a fast one
TOKENIZER_FILES = {
    "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
}  # fmt: skip


def save_model(model: SentenceTransformer, base: Path, folder: Path, prompts: Mapping[str, str]) -> None:
    """Save `model`, trained from the folder `base`, to `folder`: its weights or adapter, with the base's
    configuration.

    `prompts` of its tasks are kept beside the base's. The library's save writes the tokenizer with the
    truncation of the last training batch, and configurations in its newest form. Here tokenizer, pooling,
    normalisation, prompts and length limit stay the base's, byte for byte, so that models of one base can be
    compared.
    """
    model.prompts = {**model.prompts, **prompts}
    model.save_pretrained(str(folder), create_model_card=False)
    for adapter in folder.rglob("adapter_config.json"):
        _settle_adapter(adapter)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes them readable to their owner only
    if _module_paths(folder) != _module_paths(base):
        return  # the base has an old layout, which the library has just brought up to date
    for file in base.rglob("*"):
        copy = folder / file.relative_to(base)
        weights = file.suffix == ".safetensors" or file.name.endswith(".index.json")
        if not file.is_file() or weights or file.name in ("README.md", "selfpos.json"):
            continue
        tokenizer_file = file.name in TOKENIZER_FILES and copy.parent.is_dir()
        if (copy.is_file() or tokenizer_file) and not _says_other_dtype(file):
            shutil.copyfile(file, copy)
    if prompts:
        file = folder / "config_sentence_transformers.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        config["prompts"] = {**(config.get("prompts") or {}), **prompts}
        file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _settle_adapter(file: Path) -> None:
    """Sort the adapter's target modules, a set to PEFT, for equal bytes; mark it as no longer trained."""
    config = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    config["inference_mode"] = True
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _module_paths(folder: Path) -> list[str]:
    return [module["path"] for module in json.loads((folder / "modules.json").read_text(encoding="utf-8"))]


def _says_other_dtype(file: Path) -> bool:
    """Whether it is a transformer's config.json that would load the float32 weights in another dtype."""
    if file.name != "config.json":
        return False
    config = json.loads(file.read_text(encoding="utf-8"))
    return config.get("dtype", config.get("torch_dtype")) not in (None, "float32")
