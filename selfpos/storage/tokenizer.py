"""Whether a folder holds a tokenizer that knows words: without one, transformers makes one up that knows five tokens."""

from __future__ import annotations

from pathlib import Path

from selfpos.storage.model_folder import read_json

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
