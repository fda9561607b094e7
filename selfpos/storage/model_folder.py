"""A sentence-transformers folder, opened lazily: its modules, and its tensors as memory maps."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.errors import SelfposError
from selfpos.storage.numbers import STORED, TORCH, to_float32
from selfpos.storage.tensor_file import TensorEntry, read_header

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json. `path` is its folder within the model ('' for the root), `type` its Python class."""

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
    """An opened model. `tensors` maps keys (`encoder…weight`, `2_Dense/linear.weight`) to entries; nothing is read before it is asked for."""

    path: Path
    modules: tuple[Module, ...]
    tensors: dict[str, TensorEntry]
    _maps: dict[Path, np.ndarray] = field(default_factory=dict, repr=False)

    def raw(self, key: str) -> np.ndarray:
        """The stored bits of tensor `key`, flat, read-only, memory-mapped."""
        bits = raw_tensor(self.tensors[key], self._maps)
        bits.flags.writeable = False
        return bits

    def read_float32(self, key: str) -> np.ndarray:
        """Tensor `key` in its own shape as float32: the memory map itself when stored so, else a converted copy."""
        entry = self.tensors[key]
        return to_float32(self.raw(key), entry.dtype).reshape(entry.shape)

    def read(self, key: str) -> Tensor:
        """Tensor `key` as a torch tensor in the stored number format, memory-mapped: not to be written to."""
        import torch

        entry = self.tensors[key]
        raw = raw_tensor(entry, self._maps)
        if raw.size == 0:
            return torch.empty(entry.shape, dtype=getattr(torch, TORCH[entry.dtype]))
        return torch.frombuffer(raw.data, dtype=getattr(torch, TORCH[entry.dtype])).reshape(entry.shape)


def raw_tensor(entry: TensorEntry, maps: dict[Path, np.ndarray]) -> np.ndarray:
    """The stored bits of `entry`, flat, from the memory map of its file, which is kept in `maps`."""
    if entry.file not in maps:
        with entry.file.open("rb") as handle:
            # ACCESS_COPY makes the pages private: torch wants a writable buffer, and the file stays untouched whatever happens to it.
            maps[entry.file] = np.frombuffer(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    bits = maps[entry.file][entry.offset : entry.offset + entry.nbytes]
    return bits.view(STORED[entry.dtype]) if entry.nbytes else np.empty(0, STORED[entry.dtype])


def open_model(folder: Path) -> ModelFolder:
    """Open the sentence-transformers model at `folder`.

    Raises SelfposError when it is no such folder, has weights only as pickles, or a weight file is torn.
    """
    modules = read_modules(folder)
    tensors: dict[str, TensorEntry] = {}
    for file, prefix in weight_files(folder):
        entries, _ = read_header(file, prefix)
        for key, entry in entries.items():
            if key in tensors:
                raise SelfposError(
                    f"{folder}: tensor {key} is in both {tensors[key].file.name} and {file.name}; keep one of them"
                )
            tensors[key] = entry
    if not tensors:
        adapter = (
            " (it holds a PEFT adapter: give its base as the base, and this folder as a vector)"
            if (folder / ADAPTER).exists()
            else ""
        )
        raise SelfposError(f"{folder} has no weights in safetensors files{adapter}")
    return ModelFolder(folder, modules, tensors)


def read_modules(folder: Path) -> tuple[Module, ...]:
    """The modules of the sentence-transformers folder, in order. Raises SelfposError when `folder` is no such folder."""
    if not folder.is_dir():
        raise SelfposError(f"there is no model folder {folder}")
    file = folder / "modules.json"
    if not file.is_file():
        hint = ""
        if (folder / "config.json").is_file():
            hint = "; it looks like a plain transformers model: open it with SentenceTransformer and save it with save_pretrained first"
        raise SelfposError(f"{folder} is no sentence-transformers model: it has no modules.json{hint}")
    try:
        modules = tuple(
            Module(int(item["idx"]), str(item["name"]), item["path"].strip("/"), item["type"])
            for item in read_json(file)
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SelfposError(f"{file} does not list modules with idx, name, path and type") from None
    if not modules:
        raise SelfposError(f"{file} lists no modules; copy it from the original model")
    return modules


def weight_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """The safetensors files of every module below `folder`, each with the prefix of its tensors' keys: '' at the root, else 'directory/'."""
    for place in sorted(
        {
            folder,
            *(file.parent for file in folder.rglob("config.json")),
            *(file.parent for file in folder.rglob("*.safetensors")),
        }
    ):
        relative = place.relative_to(folder)
        if relative.parts and (
            relative.parts[0] in {"onnx", "openvino"} or relative.parts[0].startswith((".", "checkpoint-"))
        ):
            continue
        prefix = f"{relative.as_posix()}/" if relative.parts else ""
        if (place / WEIGHTS).is_file():
            yield place / WEIGHTS, prefix
        elif (place / INDEX).is_file():
            for name in _shards(place / INDEX):
                if not (place / name).is_file():
                    raise SelfposError(
                        f"{place / INDEX} names the shard {name}, which is not there; fetch the model again"
                    )
                yield place / name, prefix
        elif pickles := sorted(
            file.name
            for file in place.glob("*.bin")
            if file.name in {"pytorch_model.bin", "pytorch_model.bin.index.json"}
        ):
            raise SelfposError(
                f"{place} holds its weights as a pickle ({pickles[0]}), which is never loaded; save it as {WEIGHTS} first"
            )


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise SelfposError(f"{index} has no weight_map from tensor to shard; fetch the model again") from None


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises SelfposError when it is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SelfposError(f"{file} is not JSON: {error}") from None
