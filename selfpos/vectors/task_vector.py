"""A task vector over its base, read tensor by tensor, and the opening of several vectors of one base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfpos.errors import OptionNeededError, SelfposError
from selfpos.storage.file_kinds import ADAPTER, CONFIG, MODULES
from selfpos.storage.inside import refuse_links_out
from selfpos.storage.locate import hub_snapshot
from selfpos.storage.manifest import made_from
from selfpos.storage.model_folder import ModelFolder, open_model, raw_tensor, read_modules, stored_tensors
from selfpos.storage.networks import TRANSFORMERS
from selfpos.storage.tensor_file import TensorEntry
from selfpos.vectors.adapter import adapter_parts
from selfpos.vectors.check import quantisation, some_tensors
from selfpos.vectors.compare import Comparison, compare, network_of_keys
from selfpos.vectors.match import transformers_of
from selfpos.vectors.names import may_be_tied
from selfpos.vectors.parts import Dense, MatchedRows, Reader, TensorPart

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_TIED = 1 << 12
"""Smaller tensors are equal by chance (biases of zeros): not taken for one tensor stored twice."""
SHOWN_DIFFERENCES = 6


@dataclass(frozen=True)
class TaskVector:
    """V = θ − θ0 of one specialist. `parts` holds what moves; tensors without a part do not.

    `differences` from the base are sentences, `misfits` the tensors that cannot be compared because of them:
    both empty unless differences are tolerated. `notes` say what was left aside without harm.
    `by_token` are tables whose rows were found by their tokens, in the order of the base's tokenizer;
    `unused` tensors of the base that the model does not use, such as a head.
    """

    name: str
    folder: ModelFolder = field(repr=False)
    base: ModelFolder = field(repr=False)
    parts: dict[str, TensorPart] = field(repr=False)
    differences: tuple[str, ...] = ()
    misfits: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    by_token: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()

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
    # In the folder of a module, or in one that PEFT calls as the adapter; a plain model may have checkpoints.
    pattern = "*_*" if (source / MODULES).is_file() else "*"
    inner = next(source.glob(f"{pattern}/{ADAPTER}"), None)
    if inner is not None and not adapter and (pattern == "*_*" or not (source / CONFIG).is_file()):
        raise SelfposError(
            f"{source} holds a PEFT adapter in {inner.parent.name}; give that folder, {inner.parent}, "
            "as the vector"
        )
    folder = _open_adapter(source) if adapter else open_model(source)
    _check_base(base, folder)
    moved: dict[str, TensorPart] = {}
    notes: list[str] = []
    if adapter:
        moved, notes = adapter_parts(folder, base)
        if not folder.modules:
            return TaskVector(name, folder, base, moved, notes=tuple(notes))
        # An adapter stands for a model whose transformer has the base's tensors; its other modules are stored
        # whole.
        folder = replace(folder, tensors=transformers_of(base, folder) | folder.tensors)
    compared = compare(base, folder)
    differences = list(compared.differences)
    if differences and not tolerate:
        raise _refusal(base, folder, compared)
    lent = {key for key, kind in network_of_keys(base).items() if adapter and kind in TRANSFORMERS}
    stored = {key: part for key, part in compared.parts.items() if key not in lent}
    fitting = {key: part for key, part in (stored | moved).items() if key not in compared.misfits}
    frame = replace(folder, tensors=compared.tensors) if not adapter else folder
    return TaskVector(
        *(name, frame, base, fitting, tuple(differences), compared.misfits),
        notes=(*notes, *compared.notes),
        by_token=compared.by_token,
        unused=compared.unused,
    )


def _refusal(base: ModelFolder, folder: ModelFolder, compared: Comparison) -> SelfposError:
    """What does not fit, and the way on with it."""
    more = len(compared.differences) - SHOWN_DIFFERENCES
    shown = [*compared.differences[:SHOWN_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]
    refused = f"{folder.path} does not fit the base {base.path}: {'; '.join(shown)}"
    for model in (base, folder):
        if any(not entry.mergeable for entry in model.tensors.values()) and (how := quantisation(model)):
            if "before it was quantised" in refused:
                return SelfposError(refused)
            return SelfposError(f"{refused}; {model.path} is quantised ({how}): give it as it was before")
    left = "merges all tensors"
    instead = (
        "write it in the form of the base (selfpos merge --base BASE --vectors MODEL --method average "
        "--take-from base --out NEW), and give NEW"
    )
    if compared.misfits:
        left = f"leaves {some_tensors(sorted(compared.misfits))} unmerged"
        instead = "give the model that it was trained from"
    elif compared.by_token:
        left = f"finds the rows of {some_tensors(sorted(compared.by_token))} by their tokens"
    return OptionNeededError(
        f"{refused}; to go on with what the base has, which {left}, say --take-from base", instead
    )


def _open_adapter(source: Path) -> ModelFolder:
    """An adapter's folder, as sentence-transformers (with other modules' weights) or PEFT saves it."""
    refuse_links_out(source)
    if not (source / MODULES).is_file():
        return ModelFolder(source, (), {})
    return ModelFolder(source, read_modules(source), stored_tensors(source))


def _check_base(base: ModelFolder, folder: ModelFolder) -> None:
    """Refuse a model of another base. A merge whose base is one of its models fits this and its base."""
    recorded = made_from(folder.manifest)
    if not recorded.get("hash") or folder.path == base.path:
        return
    if base.content_hash not in (recorded["hash"], folder.manifest["base"].get("hash")):
        raise SelfposError(
            f"{folder.path} was made from another base: its manifest names {recorded.get('name')} with "
            f"content hash {recorded['hash'][:12]}…, found {base.path} with {base.content_hash[:12]}…; "
            "give that base, or vectors of this one"
        )


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
    """Second name → first name of tensors with equal bytes everywhere, such as T5's shared embeddings."""
    by_content: dict[tuple[str, tuple[int, ...], bytes], list[str]] = {}
    tied: dict[str, str] = {}
    for key, entry in base.tensors.items():
        if not entry.mergeable or not entry.numel:
            continue
        # The first bytes sort out almost all others before whole tensors are compared.
        candidates = by_content.setdefault((entry.dtype, entry.shape, base.raw(key)[:256].tobytes()), [])
        related = (other for other in candidates if _may_be_tied(key, other, entry))
        first = next((other for other in related if _same(base, vectors, key, other)), None)
        if first is None:
            candidates.append(key)
        else:
            tied[key] = first
    return tied


def _may_be_tied(key: str, other: str, entry: TensorEntry) -> bool:
    """Whether equal tensors are one: large ones, tables of tokens, a bias under a head and its decoder."""
    large = len(entry.shape) == 2 and entry.numel >= SMALLEST_TIED
    name, other_name = key.replace(".decoder.", "."), other.replace(".decoder.", ".")
    return large or (may_be_tied(key) and may_be_tied(other)) or name == other_name


def _same(base: ModelFolder, vectors: Iterable[TaskVector], key: str, other: str) -> bool:
    maps: dict[Path, np.ndarray] = {}
    for vector in vectors:
        first, second = (_stored(vector.parts.get(name)) for name in (key, other))
        if first is None or second is None:
            if vector.parts.get(key) is not vector.parts.get(other):
                return False
        elif first != second and (
            first.dtype != second.dtype
            or not np.array_equal(raw_tensor(first, maps), raw_tensor(second, maps))
        ):
            return False
    return np.array_equal(base.raw(key), base.raw(other))


def _stored(part: TensorPart | None) -> TensorEntry | None:
    return part.entry if isinstance(part, Dense | MatchedRows) else None
