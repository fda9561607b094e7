"""A sentence-transformers folder, opened lazily: modules, configuration, and tensors as memory maps."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import (
    ADAPTER,
    CONFIG,
    EXPORT_FOLDERS,
    INDEX,
    MANIFEST,
    MODULES,
    VOCABULARIES,
    WEIGHTS,
)
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_json
from selfpos.storage.numbers import STORED, TORCH, to_float32
from selfpos.storage.tensor_file import TensorEntry, read_header

if TYPE_CHECKING:
    from torch import Tensor

BYTE_TOKENIZERS = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
"""Tokenizers whose tokens are bytes or characters, which have no vocabulary file."""


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json: `path` is its folder ('' for the root), `type` its Python class."""

    idx: int
    name: str
    path: str
    type: str

    @property
    def kind(self) -> str:
        """The class name alone: the package part differs between versions of sentence-transformers."""
        return self.type.rpartition(".")[2]


@dataclass(frozen=True)
class ModelFolder:
    """An opened model. `tensors` maps keys (`encoder…weight`, `2_Dense/linear.weight`) to entries.

    Weights, configuration and hash are read when first used, each once.
    """

    path: Path
    modules: tuple[Module, ...]
    tensors: dict[str, TensorEntry]
    _maps: dict[Path, np.ndarray] = field(default_factory=dict, repr=False)
    _configs: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    @cached_property
    def content_hash(self) -> str:
        """See hashing.content_hash."""
        return content_hash(self.path)

    @cached_property
    def is_adapter(self) -> bool:
        """Whether the folder holds a PEFT adapter."""
        return (self.path / ADAPTER).is_file()

    @property
    def manifest(self) -> dict[str, Any]:
        """What made the folder; empty where it does not say."""
        return self.config(MANIFEST)

    def config(self, file: str) -> dict[str, Any]:
        """The JSON object in `file` (relative path); empty where it does not exist. Not to be changed."""
        if file not in self._configs:
            path = self.path / file
            self._configs[file] = read_json(path) if path.is_file() else {}
        return self._configs[file]

    def raw(self, key: str) -> np.ndarray:
        """The stored bits of tensor `key`, flat, read-only, memory-mapped."""
        bits = raw_tensor(self.tensors[key], self._maps)
        bits.flags.writeable = False
        return bits

    def read_float32(self, key: str) -> np.ndarray:
        """Tensor `key` in its shape as float32: the memory map itself when stored so, else a copy."""
        entry = self.tensors[key]
        return to_float32(self.raw(key), entry.dtype).reshape(entry.shape)

    def read(self, key: str) -> Tensor:
        """Tensor `key` as a torch tensor in the stored number format, memory-mapped: not to be written to."""
        import torch

        entry = self.tensors[key]
        raw, dtype = raw_tensor(entry, self._maps), getattr(torch, TORCH[entry.dtype])
        flat = torch.frombuffer(raw.data, dtype=dtype) if raw.size else torch.empty(0, dtype=dtype)
        return flat.reshape(entry.shape)


def raw_tensor(entry: TensorEntry, maps: dict[Path, np.ndarray]) -> np.ndarray:
    """The stored bits of `entry`, flat, from the memory map of its file, which is kept in `maps`."""
    if entry.file not in maps:
        with entry.file.open("rb") as handle:
            # torch wants a writable buffer. ACCESS_COPY makes the pages private, so the file is never
            # changed.
            maps[entry.file] = np.frombuffer(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    bits = maps[entry.file][entry.offset : entry.offset + entry.nbytes]
    return bits.view(STORED[entry.dtype]) if entry.nbytes else np.empty(0, STORED[entry.dtype])


def open_model(folder: Path) -> ModelFolder:
    """Open the sentence-transformers model at `folder`. Raises SelfposError when it is none, or not whole."""
    modules = read_modules(folder)
    tensors: dict[str, TensorEntry] = {}
    for file, prefix in weight_files(folder):
        entries, _ = read_header(file, prefix)
        if twice := sorted(entries.keys() & tensors.keys()):
            other = tensors[twice[0]].file.name
            raise SelfposError(
                f"{folder}: tensor {twice[0]} is in both {other} and {file.name}; keep one of them"
            )
        tensors |= entries
    if not tensors:
        hint = " (it holds a PEFT adapter: give its base as the base, and this folder as a vector)"
        adapter = hint if (folder / ADAPTER).exists() else ""
        raise SelfposError(f"{folder} has no weights in safetensors files{adapter}")
    return ModelFolder(folder, modules, tensors)


def read_modules(folder: Path) -> tuple[Module, ...]:
    """The modules of a sentence-transformers folder, in order. Raises SelfposError when it is none."""
    if not folder.is_dir():
        raise SelfposError(f"there is no model folder {folder}")
    file = folder / MODULES
    if not file.is_file():
        hint = ""
        if (folder / CONFIG).is_file():
            hint = "; it looks like a plain transformers model: open and save it with SentenceTransformer"
        raise SelfposError(f"{folder} is no sentence-transformers model: it has no modules.json{hint}")
    try:
        modules = tuple(
            Module(int(item["idx"]), str(item["name"]), item["path"].strip("/"), item["type"])
            for item in json.loads(file.read_text(encoding="utf-8"))
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SelfposError(f"{file} does not list modules with idx, name, path and type") from None
    if not modules:
        raise SelfposError(f"{file} lists no modules; copy it from the original model")
    return modules


def weight_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """The safetensors files of every module below `folder`, each with its keys' prefix ('' or 'folder/')."""
    candidates = [file for file in folder.rglob("*") if file.name == CONFIG or file.suffix == ".safetensors"]
    for module in sorted({folder, *(file.parent for file in candidates)}):
        relative = module.relative_to(folder)
        first = relative.parts[0] if relative.parts else ""
        if first in EXPORT_FOLDERS or first.startswith((".", "checkpoint-")):
            continue
        prefix = f"{relative.as_posix()}/" if relative.parts else ""
        index = module / INDEX
        pickled = ("pytorch_model.bin", "pytorch_model.bin.index.json")
        pickles = [name for name in pickled if (module / name).is_file()]
        if (module / WEIGHTS).is_file():
            yield module / WEIGHTS, prefix
        elif index.is_file():
            yield from ((file, prefix) for file in _shards(index))
        elif pickles:
            raise SelfposError(
                f"{module} holds its weights as a pickle ({pickles[0]}), which is never loaded; save it as "
                f"{WEIGHTS} first"
            )


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise SelfposError(f"{index} has no weight_map from tensor to shard; fetch the model again") from None
    for name in names:
        if not (index.parent / name).is_file():
            raise SelfposError(f"{index} names the shard {name}, which does not exist; fetch the model again")
    return [index.parent / name for name in names]


def has_tokenizer(folder: Path) -> bool:
    """Whether `folder` has a vocabulary, or names a tokenizer that needs none."""
    if any(next(folder.glob(pattern), None) for pattern in VOCABULARIES):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and read_json(config).get("tokenizer_class") in BYTE_TOKENIZERS


def check_tokenizer(folder: Path, modules: tuple[Module, ...] = ()) -> None:
    """Raise SelfposError where a transformer of the model lacks its config.json or its tokenizer."""
    for module in modules or read_modules(folder):
        path = folder / module.path
        if module.kind != "Transformer":
            continue
        if not (path / CONFIG).is_file():
            raise SelfposError(
                f"{path} has no config.json, so the model does not load; copy it from the original model"
            )
        if not has_tokenizer(path):
            names = ", ".join(VOCABULARIES[:3])
            raise SelfposError(
                f"{path} has no tokenizer ({names}, …), so no text can be embedded; copy it from the "
                "original model"
            )
