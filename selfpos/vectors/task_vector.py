"""A task vector over its base, read tensor by tensor, and the opening of several against one base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfpos.errors import SelfposError
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import hub_snapshot
from selfpos.storage.manifest import read_manifest
from selfpos.storage.model_folder import ADAPTER, ModelFolder, open_model, weight_files
from selfpos.storage.tensor_file import TensorEntry, read_header
from selfpos.vectors.adapter import adapter_pieces
from selfpos.vectors.check import (
    config_differences,
    is_token_table,
    tensor_differences,
    tokenizer_differences,
)
from selfpos.vectors.pieces import Dense, LowRank, Maps, Piece, Reader

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TaskVector:
    """V = θ − θ0 of one specialist. `pieces` holds what moves; tensors without a piece stand still.

    `differences` are those from the base, in words, and `misfits` the tensors that cannot be compared for that reason: none unless tolerated.
    """

    name: str
    source: Path
    base: ModelFolder = field(repr=False)
    pieces: dict[str, Piece] = field(repr=False)
    differences: tuple[str, ...] = ()
    misfits: frozenset[str] = frozenset()

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


def open_vectors(
    base: ModelFolder, sources: Sequence[Path], *, names: Sequence[str] | None = None, tolerate: bool = False
) -> list[TaskVector]:
    """The task vectors of fine-tuned models and PEFT adapters, in the order given; `names` are what to call them, absent their folders' names.

    Raises SelfposError when a source differs from the base in its tensors, modules, pooling, prompts or tokenizer (the differences
    are listed; with `tolerate` they are noted in the vector instead), or when its manifest says that it was trained from another base.
    """
    if names is not None and len(names) != len(sources):
        raise SelfposError(f"found {len(names)} names for {len(sources)} vectors; give one per vector")
    vectors = []
    base_hash = ""
    for source, name in zip(sources, names or distinct_names(sources), strict=True):
        if not source.is_dir():
            raise SelfposError(f"there is no model or adapter folder {source}")
        recorded = (read_manifest(source) or {}).get("base")
        if isinstance(recorded, dict) and recorded.get("hash"):
            base_hash = base_hash or content_hash(base.path)
            if recorded["hash"] != base_hash:
                raise SelfposError(
                    f"{source} was made from another base: its manifest names {recorded.get('name')} with content hash {str(recorded['hash'])[:12]}…, "
                    f"found {base.path} with {base_hash[:12]}…; give that base, or vectors of this one"
                )
        pieces, others = (_adapter if (source / ADAPTER).is_file() else _model)(base, source)
        faults, misfits = ([], set()) if others is None else _compare(base, source, others)
        if faults and not tolerate:
            more = f"; and {len(faults) - 6} more" if len(faults) > 6 else ""
            raise SelfposError(f"{source} does not fit the base {base.path}: {'; '.join(faults[:6])}{more}")
        fitting = {key: piece for key, piece in pieces.items() if key not in misfits}
        vectors.append(TaskVector(name, source, base, fitting, tuple(faults), frozenset(misfits)))
    return vectors


Entries = Mapping[str, TensorEntry]


def _model(base: ModelFolder, source: Path) -> tuple[dict[str, Piece], Entries | None]:
    """A fine-tuned model: its pieces and its tensors."""
    tensors = open_model(source).tensors
    maps: Maps = {}
    return {
        key: Dense(tensors[key], maps)
        for key, entry in base.tensors.items()
        if entry.mergeable and key in tensors
    }, tensors


def _adapter(base: ModelFolder, source: Path) -> tuple[dict[str, Piece], Entries | None]:
    """An adapter: its pieces; and, where sentence-transformers saved it, all tensors of the model it stands for, of which other modules are whole."""
    pieces = adapter_pieces(source, base)
    if not (source / "modules.json").is_file():
        return pieces, None
    others = {
        key: entry
        for file, prefix in weight_files(source)
        for key, entry in read_header(file, prefix)[0].items()
    }
    maps: Maps = {}
    pieces |= {
        key: Dense(others[key], maps)
        for key, entry in base.tensors.items()
        if entry.mergeable and key in others
    }
    return pieces, {key: entry for key, entry in base.tensors.items() if "/" not in key} | others


def _compare(base: ModelFolder, source: Path, tensors: Entries) -> tuple[list[str], set[str]]:
    """The differences in words, and the keys of the base at which there is therefore no vector."""
    faults = config_differences(base.path, source) + tensor_differences(base.tensors, tensors)
    misfits = {
        key
        for key, entry in base.tensors.items()
        if entry.mergeable and (key not in tensors or tensors[key].shape != entry.shape)
    }
    if tokenizer_differences(base.path, source):
        misfits |= {key for key in base.tensors if is_token_table(key)}
    return faults, misfits


def distinct_names(sources: Sequence[Path]) -> list[str]:
    """What to call the vectors: a Hub snapshot's repository, else the folder's name with as much of the way to it as tells them apart; the
    same folder given twice gets a number."""
    paths = [source.resolve() for source in sources]
    depth = 1
    names = [path.name for path in paths]
    snapshots = [hub_snapshot(source) for source in sources]
    while len(set(names)) < len(set(paths)) and depth < max(len(path.parts) for path in paths):
        depth += 1
        names = ["/".join(path.parts[-depth:]) for path in paths]
    names = [snapshot[0] if snapshot else name for snapshot, name in zip(snapshots, names, strict=True)]
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[index] = f"{name}#{seen[name]}"
    return names
