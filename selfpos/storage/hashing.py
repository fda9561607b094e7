"""Hashes that say whether two models are the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

NOT_CONTENT = {
    "README.md",
    "selfpos.json",
    "model_card_template.md",
    "trainer_state.json",
    "data_config.json",
    "train_script.py",
    "LICENSE",
}
NOT_CONTENT_FOLDERS = {"onnx", "openvino", "eval", "runs", "logs"}
CONTENT_ENDINGS = {".safetensors", ".json", ".txt", ".model", ".jinja", ".vocab", ".bpe", ".tiktoken", ".py"}

REVISION_LENGTH = 40
"""Characters of the content hash that serve as a local model's revision: as many as in a commit of the Hub."""


def sha256_file(path: Path) -> str:
    """The SHA-256 of the file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint_file(path: Path) -> str:
    """The XXH3-128 of the file, in hex: eight times as fast as SHA-256, and as sure against accidents, though not against forgery."""
    import xxhash

    digest = xxhash.xxh3_128()
    piece = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as handle:
        while count := handle.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()


def content_files(folder: Path) -> list[Path]:
    """The files below `folder` that determine its embeddings (weights, tokenizer, configs, code), relative to it, sorted.

    Left out: the card, the manifest, hidden files, exports to other runtimes, and the leftovers of training.
    """
    found = []
    for file in folder.rglob("*"):
        relative = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        aside = NOT_CONTENT_FOLDERS.intersection(relative.parts[:-1]) or any(
            part.startswith("checkpoint-") for part in relative.parts[:-1]
        )
        if (
            file.is_file()
            and not hidden
            and not aside
            and file.suffix in CONTENT_ENDINGS
            and file.name not in NOT_CONTENT
        ):
            found.append(relative)
    return sorted(found)


def content_hash(folder: Path) -> str:
    """A hash of 64 hex digits over the names and contents of everything in the model `folder` that determines its embeddings (see content_files).

    It is the SHA-256 of a list of names and digests; those of weight files are XXH3-128, since a merge hashes gigabytes of them. It tells models
    apart; whoever must rule out forgery compares SHA-256 of the files.
    Of an adapter's configuration, where it looks for its base is left out: that is another name on another disk and on the Hub.
    """
    whole = hashlib.sha256()
    for file in content_files(folder):
        digest = _digest(folder / file)
        whole.update(f"{file.as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()


def _digest(file: Path) -> str:
    if file.name == "adapter_config.json":
        return _adapter_digest(file)
    return fingerprint_file(file) if file.suffix == ".safetensors" else sha256_file(file)


def _adapter_digest(file: Path) -> str:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kept = {
            key: value for key, value in config.items() if key not in ("base_model_name_or_path", "revision")
        }
    except (ValueError, AttributeError):
        return sha256_file(file)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
