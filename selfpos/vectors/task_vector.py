"""A task vector over its base, read tensor by tensor, and the opening of several vectors of one base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import ADAPTER, MODULES
from selfpos.storage.locate import hub_snapshot
from selfpos.storage.model_folder import ModelFolder, open_model, raw_tensor, read_modules, weight_files
from selfpos.storage.tensor_file import TensorEntry, read_header
from selfpos.vectors.adapter import adapter_parts
from selfpos.vectors.check import config_differences, tensor_differences, tokenizer_differences
from selfpos.vectors.names import is_token_table
from selfpos.vectors.parts import Dense, Maps, Reader, TensorPart

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_TIED = 1 << 12
"""Smaller tensors are equal by chance (biases of zeros): not taken for one tensor stored twice."""
SHOWN_DIFFERENCES = 6


@dataclass(frozen=True)
class TaskVector:
    """V = θ − θ0 of one specialist. `parts` holds what moves; tensors without a part do not.

    `differences` from the base are sentences, `misfits` the tensors that cannot be compared because of them:
    both empty unless differences are tolerated.
    """

    name: str
    folder: ModelFolder = field(repr=False)
    base: ModelFolder = field(repr=False)
    parts: dict[str, TensorPart] = field(repr=False)
    differences: tuple[str, ...] = ()
    misfits: frozenset[str] = frozenset()

    @property
    def source(self) -> Path:
        """The folder of the specialist."""
        return self.folder.path

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The base's tensors of floats, in the order of its files."""
        return tuple(key for key, entry in self.base.tensors.items() if entry.mergeable)

    def reader(self, key: str) -> Reader:
        """A function that reads ranges of V at `key`: see parts.Reader."""
        part = self.parts.get(key)
        return part.open() if part is not None else _zeros

    def values(self, key: str) -> np.ndarray:
        """V at `key` in the tensor's shape, float32."""
        entry = self.base.tensors[key]
        base = self.base.read_float32(key).reshape(-1)
        return self.reader(key)(0, entry.numel, base).reshape(entry.shape)

    def delta(self, key: str) -> Tensor:
        """V at `key` in the tensor's shape, as a float32 torch tensor."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(self.values(key)))


def _zeros(start: int, stop: int, base: np.ndarray) -> np.ndarray:
    return np.zeros(stop - start, np.float32)


def open_vectors(
    base: ModelFolder, sources: Sequence[Path], *, names: Sequence[str] | None = None, tolerate: bool = False
) -> list[TaskVector]:
    """Open the task vectors of fine-tuned models and PEFT adapters.

    Args:
        base: the opened base model (`selfpos.storage.open_model`).
        sources: the folders of models or adapters.
        names: what to call the vectors; default: their folders' names.
        tolerate: note differences from the base in the vector instead of refusing them.

    Returns:
        One vector per source, in the same order.

    Raises:
        SelfposError: a source differs from the base in tensors, modules, pooling, prompts or tokenizer (the
            message lists the differences), or its manifest names another base.
    """
    if names is not None and len(names) != len(sources):
        raise SelfposError(f"found {len(names)} names for {len(sources)} vectors; give one per vector")
    pairs = zip(sources, names or distinct_names(sources), strict=True)
    return [_open_vector(base, source, name, tolerate) for source, name in pairs]


def _open_vector(base: ModelFolder, source: Path, name: str, tolerate: bool) -> TaskVector:
    if not source.is_dir():
        raise SelfposError(f"there is no model or adapter folder {source}")
    adapter = (source / ADAPTER).is_file()
    folder = _open_adapter(source) if adapter else open_model(source)
    _check_base(base, folder)
    maps: Maps = {}
    shared = [key for key, entry in base.tensors.items() if entry.mergeable and key in folder.tensors]
    parts = adapter_parts(folder, base) if adapter else {}
    parts |= {key: Dense(folder.tensors[key], maps) for key in shared}
    if adapter and not folder.modules:
        return TaskVector(name, folder, base, parts)
    # An adapter stands for a model whose transformer has the base's tensors; its other modules are stored
    # whole.
    transformer = {key: entry for key, entry in base.tensors.items() if adapter and "/" not in key}
    differences, misfits = _compare(base, folder, transformer | folder.tensors)
    if differences and not tolerate:
        more = len(differences) - SHOWN_DIFFERENCES
        shown = [*differences[:SHOWN_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]
        raise SelfposError(f"{source} does not fit the base {base.path}: {'; '.join(shown)}")
    fitting = {key: part for key, part in parts.items() if key not in misfits}
    return TaskVector(name, folder, base, fitting, tuple(differences), frozenset(misfits))


def _open_adapter(source: Path) -> ModelFolder:
    """An adapter's folder, as sentence-transformers (with other modules' weights) or PEFT saves it."""
    if not (source / MODULES).is_file():
        return ModelFolder(source, (), {})
    tensors: dict[str, TensorEntry] = {}
    for file, prefix in weight_files(source):
        tensors |= read_header(file, prefix)[0]
    return ModelFolder(source, read_modules(source), tensors)


def _check_base(base: ModelFolder, folder: ModelFolder) -> None:
    recorded = folder.manifest.get("base")
    if not isinstance(recorded, dict) or not recorded.get("hash"):
        return
    if recorded["hash"] != base.content_hash:
        raise SelfposError(
            f"{folder.path} was made from another base: its manifest names {recorded.get('name')} with "
            f"content hash {str(recorded['hash'])[:12]}…, found {base.path} with {base.content_hash[:12]}…; "
            "give that base, or vectors of this one"
        )


def _compare(
    base: ModelFolder, other: ModelFolder, tensors: Mapping[str, TensorEntry]
) -> tuple[list[str], set[str]]:
    """The differences in words, and the keys of the base at which there is therefore no vector."""
    tokenizer = tokenizer_differences(base, other)
    differences = config_differences(base, other, tokenizer) + tensor_differences(base.tensors, tensors)
    misfits = {
        key
        for key, entry in base.tensors.items()
        if entry.mergeable and (key not in tensors or tensors[key].shape != entry.shape)
    }
    if tokenizer:
        misfits |= {key for key in base.tensors if is_token_table(key)}
    return differences, misfits


def distinct_names(sources: Sequence[Path]) -> list[str]:
    """Names for the vectors: a Hub snapshot's repository, else as much of the path's end as is unique.

    The same folder given twice gets a number.
    """
    paths = [source.resolve() for source in sources]
    longest = max((len(path.parts) for path in paths), default=1)
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)) and depth < longest:
        depth += 1
    names = [
        hub_snapshot(source).get("repo") or "/".join(path.parts[-depth:])
        for source, path in zip(sources, paths, strict=True)
    ]
    earlier = [names[:index].count(name) for index, name in enumerate(names)]
    return [f"{name}#{count + 1}" if count else name for name, count in zip(names, earlier, strict=True)]


def tied_tensors(base: ModelFolder, vectors: Sequence[TaskVector]) -> dict[str, str]:
    """Second name → first name of matrices with equal bytes everywhere, such as T5's shared embeddings."""
    seen: dict[tuple[str, tuple[int, ...], bytes], list[str]] = {}
    tied: dict[str, str] = {}
    for key, entry in base.tensors.items():
        if not entry.mergeable or len(entry.shape) != 2 or entry.numel < SMALLEST_TIED:
            continue
        # The first bytes sort out almost all others before whole tensors are compared.
        candidates = seen.setdefault((entry.dtype, entry.shape, base.raw(key)[:256].tobytes()), [])
        first = next((other for other in candidates if _same(base, vectors, key, other)), None)
        if first is None:
            candidates.append(key)
        else:
            tied[key] = first
    return tied


def _same(base: ModelFolder, vectors: Iterable[TaskVector], key: str, other: str) -> bool:
    for vector in vectors:
        pair = vector.parts.get(key), vector.parts.get(other)
        if pair == (None, None):
            continue
        first, second = pair
        if not (
            isinstance(first, Dense) and isinstance(second, Dense) and first.entry.dtype == second.entry.dtype
        ):
            return False
        if not np.array_equal(raw_tensor(first.entry, first.maps), raw_tensor(second.entry, second.maps)):
            return False
    return np.array_equal(base.raw(key), base.raw(other))
