"""Hashes that say whether two models are the same, and in what two models differ."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import ADAPTER, DESCRIPTIONS, TEXT_ENDINGS, TRAINING_FILES, model_files
from selfpos.storage.manifest import read_json

CONTENT_ENDINGS = {".safetensors", ".py", *TEXT_ENDINGS}

REVISION_LENGTH = 40
"""Characters of the content hash that serve as a local model's revision: as in a commit of the Hub."""


def sha256_file(path: Path) -> str:
    """The SHA-256 of the file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint_file(path: Path) -> str:
    """The XXH3-128 of the file, in hex: eight times as fast as SHA-256, but no protection against forgery."""
    import xxhash

    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as handle:
        while count := handle.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def content_files(folder: Path) -> list[Path]:
    """The files that determine the embeddings of a model (weights, tokenizer, configs, code), sorted."""
    left_out = DESCRIPTIONS | TRAINING_FILES
    return [
        file for file in model_files(folder) if file.suffix in CONTENT_ENDINGS and file.name not in left_out
    ]


def content_hash(folder: Path) -> str:
    """A hash (64 hex digits) over names and contents of everything that determines a model's embeddings.

    It is the SHA-256 of a list of names and digests. Weight files enter by XXH3-128, since a merge hashes
    gigabytes of them; compare SHA-256 of the files where forgery must be ruled out. An adapter's
    configuration enters without the path of its base, which differs from disk to disk.
    """
    whole = hashlib.sha256()
    for file in content_files(folder):
        whole.update(f"{file.as_posix()}\0{_digest(folder / file)}\n".encode())
    return whole.hexdigest()


def _digest(file: Path) -> str:
    if file.suffix == ".safetensors":
        return fingerprint_file(file)
    if file.name != ADAPTER:
        return sha256_file(file)
    try:
        config = read_json(file)
    except SelfposError:
        return sha256_file(file)
    for name in ("base_model_name_or_path", "revision"):
        config.pop(name, None)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def compare_models(old: Path, new: Path) -> tuple[int, list[str]]:
    """The number of files compared, and a sentence for each that decides the embeddings and differs."""
    before, after = set(content_files(old)), set(content_files(new))
    differences = [f"{file} is missing in the new one" for file in sorted(before - after)]
    differences += [f"{file} is new" for file in sorted(after - before)]
    for file in sorted(before & after):
        if sha256_file(old / file) != sha256_file(new / file):
            detail = f" ({_tensors(old / file, new / file)})" if file.suffix == ".safetensors" else ""
            differences.append(f"{file} differs{detail}")
    return len(before | after), differences


def _tensors(old: Path, new: Path) -> str:
    """How two weight files differ: in which tensors and by how much, or in their header only."""
    import numpy as np

    from selfpos.storage.model_folder import raw_tensor
    from selfpos.storage.numbers import to_float32
    from selfpos.storage.tensor_file import read_header

    before, after = read_header(old)[0], read_header(new)[0]
    kinds = [{key: (entry.dtype, entry.shape) for key, entry in side.items()} for side in (before, after)]
    if kinds[0] != kinds[1]:
        return "other tensors, shapes or number formats"
    different, worst = [], 0.0
    for key, entry in before.items():
        left, right = raw_tensor(entry, {}), raw_tensor(after[key], {})
        if np.array_equal(left, right):
            continue
        different.append(key)
        if entry.mergeable:
            distance = np.abs(to_float32(left, entry.dtype) - to_float32(right, entry.dtype)).max()
            worst = max(worst, float(distance))
    if not different:
        return "all tensors are equal bit for bit, only the header differs"
    return f"{len(different)} of {len(before)} tensors, by at most {worst:.3g}, the first {different[0]}"
