"""The files of a model folder by kind: weights, configuration, tokenizer, descriptions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from selfpos.errors import SelfposError, is_text

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors$")
PICKLED_WEIGHTS = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
PICKLED_SHARD = re.compile(r"pytorch_model-(\d+)-of-(\d+)\.bin$")
MODULES = "modules.json"
CONFIG = "config.json"
TRANSFORMER_CONFIG = "sentence_bert_config.json"
TRANSFORMER_CONFIGS = (
    TRANSFORMER_CONFIG,
    *(
        f"sentence_{kind}_config.json"
        for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    ),
)
"""Its names now and in early versions of sentence-transformers, which are read in this order."""
ROUTER_CONFIG = "router_config.json"
PROMPTS_CONFIG = "config_sentence_transformers.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
PICKLED = re.compile(r"pytorch_model.*\.bin")
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MANIFEST = "selfpos.json"

VOCABULARIES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm", "*.bpe", "*.tiktoken", "tekken.json",
    "bpe.codes", "vocab.bpe",
)  # fmt: skip
"""Files that hold a vocabulary. Without one, transformers makes up a tokenizer of five tokens."""
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model",
    "spm.model", "tokenizer.model",
)  # fmt: skip
"""Files that decide which token numbers a text becomes; the first that two folders share is compared."""

# Text that a model needs: configuration, tokenizer, templates.
TEXT_ENDINGS = {".json", ".txt", ".model", ".jinja", ".vocab", ".bpe", ".tiktoken"}
HEADS_ENDINGS = (".pt", ".pth")
"""Pickled tensors beside the model: heads such as BGE-M3's, but for the states of a training."""
TRAINING_STATES = ("optimizer", "scheduler", "scaler", "rng_state", "training_args", "trainer_state")
# Weights of any format; only safetensors are read.
WEIGHT_ENDINGS = {
    ".safetensors", ".bin", ".pt", ".pth", ".pkl", ".ckpt", ".onnx", ".onnx_data", ".h5", ".msgpack", ".ot",
    ".gguf", ".tflite",
}  # fmt: skip
EXPORT_FOLDERS = {"onnx", "openvino"}
SIDE_FOLDERS = {*EXPORT_FOLDERS, "eval", "runs", "logs"}
TRAINING_FILES = {"trainer_state.json", "data_config.json", "train_script.py"}
DESCRIPTIONS = {"README.md", MANIFEST, "model_card_template.md", "LICENSE"}


def model_files(folder: Path) -> list[Path]:
    """All files below `folder` but hidden ones and those in side folders, relative to it, sorted.

    Side folders hold exports, logs, checkpoints or hidden files. Raises SelfposError for a name that is not
    UTF-8, which no manifest, hash or index can hold.
    """
    below = ((file, file.relative_to(folder)) for file in folder.rglob("*"))
    files = sorted(relative for file, relative in below if file.is_file() and not is_aside(relative))
    if odd := next((file for file in files if not is_text(str(file))), None):
        raise SelfposError(f"{folder} has a file {str(odd)!r}, whose name is not UTF-8; rename or remove it")
    return files


def with_safetensors(files: Iterable[Path]) -> set[Path]:
    """The folders of `files` in which a module has its weights as safetensors, whole or in shards."""
    return {file.parent for file in files if file.name in (WEIGHTS, INDEX) or SHARD.match(file.name)}


def is_aside(relative: Path) -> bool:
    """Whether a path in a model's folder is hidden or in a side folder."""
    folders = relative.parts[:-1]
    aside = any(name in SIDE_FOLDERS or name.startswith(("checkpoint-", ".")) for name in folders)
    return aside or relative.name.startswith(".")
