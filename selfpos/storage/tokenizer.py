"""Whether a folder holds a tokenizer that knows words: without one, transformers makes one up that knows five tokens."""

from __future__ import annotations

from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.storage.model_folder import read_json, read_modules

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "*.model",
    "*.spm",
    "*.bpe",
    "*.tiktoken",
    "tekken.json",
    "bpe.codes",
    "vocab.bpe",
)
OF_BYTES = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
"""Tokenizers whose tokens are bytes or characters, which have no vocabulary file."""


def has_tokenizer(folder: Path) -> bool:
    """Whether `folder` has a vocabulary, or names a tokenizer that needs none. Raises SelfposError for a configuration that is no JSON."""
    if any(next(folder.glob(pattern), None) for pattern in VOCABULARIES):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and read_json(config).get("tokenizer_class") in OF_BYTES


def check_tokenizer(folder: Path) -> None:
    """Raise SelfposError where a transformer of the sentence-transformers model in `folder` lacks its config.json or its tokenizer."""
    for module in read_modules(folder):
        place = folder / module.path
        if module.kind != "Transformer":
            continue
        if not (place / "config.json").is_file():
            raise SelfposError(
                f"{place} has no config.json, without which the model does not load; copy it from the original model"
            )
        if not has_tokenizer(place):
            raise SelfposError(
                f"{place} has no tokenizer ({', '.join(VOCABULARIES[:3])}, …), without which no text can be embedded; copy it from the original model"
            )
