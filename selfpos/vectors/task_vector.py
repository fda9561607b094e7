"""A task vector over its base, read tensor by tensor, and the opening of several against one base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfpos.errors import SelfposError
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest
from selfpos.storage.model_folder import ADAPTER, ModelFolder, open_model, weight_files
from selfpos.storage.tensor_file import read_header
from selfpos.vectors.adapter import adapter_pieces
from selfpos.vectors.check import config_differences, tensor_differences
from selfpos.vectors.pieces import Dense, LowRank, Maps, Piece, Reader

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TaskVector:
    """V = θ − θ0 of one specialist. `pieces` holds what moves; tensors without a piece stand still."""

    name: str
    source: Path
    base: ModelFolder = field(repr=False)
    pieces: dict[str, Piece] = field(repr=False)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The base's tensors of floats, in the order of its files."""
        return tuple(key for key, entry in self.base.tensors.items() if entry.mergeable)

    @property
    def low_rank(self) -> bool:
        """Whether the whole vector consists of low-rank factors."""
        return all(isinstance(piece, LowRank) for piece in self.pieces.values())

    def reader(self, key: str) -> Reader:
        """A function that reads ranges of V at `key`: see pieces.Reader."""
        piece = self.pieces.get(key)
        return piece.open() if piece is not None else _standing_still

    def values(self, key: str) -> np.ndarray:
        """V at `key` in the tensor's shape, float32."""
        entry = self.base.tensors[key]
        base = self.base.read_float32(key).reshape(-1)
        return self.reader(key)(0, entry.numel, base).reshape(entry.shape)

    def delta(self, key: str) -> Tensor:
        """V at `key` in the tensor's shape, as a float32 torch tensor."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(self.values(key)))


def _standing_still(start: int, stop: int, base: np.ndarray) -> np.ndarray:
    return np.zeros(stop - start, np.float32)


def open_vectors(base: ModelFolder, sources: Sequence[Path]) -> list[TaskVector]:
    """The task vectors of fine-tuned models and PEFT adapters, in the order given.

    Raises SelfposError when a source differs from the base in its tensors, modules, pooling, prompts or tokenizer (the differences
    are listed), or when its manifest says that it was trained from another base.
    """
    vectors = []
    base_hash = ""
    for source, name in zip(sources, distinct_names(sources), strict=True):
        manifest = read_manifest(source) or {}
        recorded = manifest.get("base")
        if isinstance(recorded, dict) and recorded.get("hash"):
            base_hash = base_hash or content_hash(base.path)
            if recorded["hash"] != base_hash:
                raise SelfposError(
                    f"{source} was made from another base: its manifest names {recorded.get('name')} with content hash {recorded['hash'][:12]}…, "
                    f"found {base.path} with {base_hash[:12]}…; give that base, or vectors of this one"
                )
        vectors.append(TaskVector(name, source, base, _pieces(base, source)))
    return vectors


def _pieces(base: ModelFolder, source: Path) -> dict[str, Piece]:
    if not source.is_dir():
        raise SelfposError(f"there is no model or adapter folder {source}")
    if not (source / ADAPTER).is_file():
        model = open_model(source)
        faults = config_differences(base.path, source) + tensor_differences(base.tensors, model.tensors)
        _refuse(base, source, faults)
        maps: Maps = {}
        return {key: Dense(model.tensors[key], maps) for key, entry in base.tensors.items() if entry.mergeable}
    pieces = adapter_pieces(source, base)
    if (source / "modules.json").is_file():  # an adapter saved by sentence-transformers: its other modules are whole
        others = {key: entry for file, prefix in weight_files(source) for key, entry in read_header(file, prefix)[0].items()}
        of_base = {key: entry for key, entry in base.tensors.items() if "/" in key}
        _refuse(base, source, config_differences(base.path, source) + tensor_differences(of_base, others))
        maps = {}
        pieces |= {key: Dense(others[key], maps) for key, entry in of_base.items() if entry.mergeable}
    return pieces


def _refuse(base: ModelFolder, source: Path, faults: list[str]) -> None:
    if faults:
        more = f"; and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise SelfposError(f"{source} does not fit the base {base.path}: {'; '.join(faults[:6])}{more}")


def distinct_names(sources: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of the way to them as tells them apart; the same folder given twice gets a number."""
    paths = [source.resolve() for source in sources]
    depth = 1
    names = [path.name for path in paths]
    while len(set(names)) < len(set(paths)) and depth < max(len(path.parts) for path in paths):
        depth += 1
        names = ["/".join(path.parts[-depth:]) for path in paths]
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[index] = f"{name}#{seen[name]}"
    return names
