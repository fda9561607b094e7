"""The files of a model folder by kind: weights, configuration, tokenizer, descriptions."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MODULES = "modules.json"
CONFIG = "config.json"
PROMPTS_CONFIG = "config_sentence_transformers.json"
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
# Weights of any format; only safetensors are read.
WEIGHT_ENDINGS = {
    ".safetensors", ".bin", ".pt", ".pth", ".pkl", ".ckpt", ".onnx", ".onnx_data", ".h5", ".msgpack", ".ot",
    ".gguf", ".tflite",
}  # fmt: skip
EXPORT_FOLDERS = {"onnx", "openvino"}
SIDE_FOLDERS = {*EXPORT_FOLDERS, "eval", "runs", "logs"}
TRAINING_FILES = {"trainer_state.json", "data_config.json", "train_script.py"}
DESCRIPTIONS = {"README.md", MANIFEST, "model_card_template.md", "LICENSE"}


def is_side_folder(name: str) -> bool:
    """Whether a folder of this name holds exports, logs, checkpoints or hidden files."""
    return name in SIDE_FOLDERS or name.startswith(("checkpoint-", "."))


def model_files(folder: Path) -> list[Path]:
    """All files below `folder` but hidden ones and those in side folders, relative to it, sorted."""
    files = []
    for file in folder.rglob("*"):
        relative = file.relative_to(folder)
        aside = any(is_side_folder(part) for part in relative.parts[:-1]) or relative.name.startswith(".")
        if file.is_file() and not aside:
            files.append(relative)
    return sorted(files)
