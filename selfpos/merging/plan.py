"""What a merge will do, checked in full before anything is written."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from selfpos.errors import SelfposError, unknown
from selfpos.merging.layout import OutputFile, gather_prompts, output_files, side_files
from selfpos.merging.probe_statistics import ProbeStatistics, open_statistics
from selfpos.merging.registry import Method, get_method
from selfpos.merging.rules import Settings, make_settings
from selfpos.merging.stream import is_linear_map
from selfpos.merging.thresholds import AT_ONCE, collected
from selfpos.storage.atomic import refuse_existing
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import display_name
from selfpos.storage.model_folder import ADAPTER, ModelFolder, open_model
from selfpos.storage.numbers import MERGEABLE, NAMES, STORED, TORCH
from selfpos.storage.tokenizer import check_tokenizer
from selfpos.vectors import TaskVector, open_vectors
from selfpos.vectors.chunks import CHUNK
from selfpos.vectors.pieces import Dense, LowRank
from selfpos.vectors.tied import tied_tensors

MEGABYTE = 1 << 20
HALF = {"F16", "BF16"}
BASE = "base"


class Options(TypedDict, total=False):
    """The keywords of `plan` and `merge`."""

    weights: Any
    params: Mapping[str, Any] | None
    dtype: str | None
    seed: int
    threads: int | None
    device: str
    budget: int
    shard_size: int
    output: Literal["model", "adapter"]
    rank: int | None
    take_from: str | None
    allow_code: bool
    statistics: Mapping[str, Sequence[Path]] | None
    base_name: str | None
    names: Sequence[str] | None
    provenance: Mapping[str, Any] | None


@dataclass(frozen=True)
class Plan:
    """A merge, validated. The output has the tensors and files of `frame`, which is the base unless another was named; `keys` are merged, the
    others taken from it. `dtypes` is each tensor's number format in the output; `hashes` the content hashes of base and sources.
    """

    base: ModelFolder
    frame: ModelFolder
    vectors: list[TaskVector]
    method: Method
    settings: Settings
    out: Path
    keys: tuple[str, ...]
    tied: dict[str, str]
    dtypes: dict[str, str]
    files: list[OutputFile]
    side_files: list[Path]
    prompts: dict[str, str]
    statistics: dict[str, list[ProbeStatistics]]
    hashes: list[str]
    base_name: str
    threads: int
    options: Options = field(repr=False)

    @property
    def seed(self) -> int:
        return self.options.get("seed", 0)

    @property
    def budget(self) -> int:
        """Bytes of memory that the merge may use beyond the runtime itself."""
        return self.options.get("budget", 512 * MEGABYTE)

    @property
    def bytes_written(self) -> int:
        return sum(self.nbytes(key) for key in self.dtypes)

    @property
    def passes(self) -> int:
        """How often the inputs are read."""
        return 1 + bool(self.method.gram or self.method.survey)

    @property
    def bytes_read(self) -> int:
        entries = [self.base.tensors[key] for key in self.keys]
        entries += [
            piece.entry
            for vector in self.vectors
            for key in self.keys
            if isinstance(piece := vector.pieces.get(key), Dense)
        ]
        taken = [entry for key, entry in self.frame.tensors.items() if key not in set(self.keys)]
        return self.passes * sum(entry.nbytes for entry in entries) + sum(entry.nbytes for entry in taken)

    @property
    def elements(self) -> int:
        """Elements that pass through the engine, over base, vectors and passes: what progress counts."""
        return self.passes * (1 + len(self.vectors)) * sum(self.base.tensors[key].numel for key in self.keys)

    @property
    def memory(self) -> int:
        """About how many bytes the merge holds at a time, beyond the runtime and the memory maps."""
        return self._once + self.threads * self._per_thread

    def within_budget(self) -> Plan:
        """The plan with as few threads as its budget wants. Raises SelfposError when one thread is too many."""
        room = (self.budget - self._once) // self._per_thread
        if room >= 1:
            return replace(self, threads=min(self.threads, room))
        need = -(-(self._once + self._per_thread) // MEGABYTE)
        reason = (
            f" for {self._largest}, its largest matrix"
            if self.method.grain == "matrix" and self._largest
            else ""
        )
        raise SelfposError(
            f"method {self.method.name} needs about {need:,} MB of memory{reason}, and may use {self.budget / MEGABYTE:,.0f} MB; allow it that much (--memory)"
        )

    @cached_property
    def _largest(self) -> str:
        """The largest matrix of a linear map; empty when there is none."""
        found = [key for key in self.keys if is_linear_map(key, self.base.tensors[key].shape)]
        return max(found, key=lambda key: self.base.tensors[key].numel, default="")

    @cached_property
    def _once(self) -> int:
        """Bytes held whatever the number of threads: what a survey collects, and whole matrices."""
        total = sum(self.base.tensors[key].numel for key in self.keys)
        need = collected(total, len(self.vectors)) if self.method.survey else 0
        if self.method.grain == "matrix" and self._largest and self.options.get("device", "cpu") == "cpu":
            rows, columns = self.base.tensors[self._largest].shape
            need += 4 * (self.method.holds[0] * rows * columns + self.method.holds[1] * columns**2)
        return need

    @cached_property
    def _per_thread(self) -> int:
        """Bytes that each thread holds: chunks of base and vectors and the temporaries of a kernel, and the factors of adapters."""
        size, temporaries = CHUNK, 8
        if self.method.grain == "row":
            rows = (entry.shape for key in self.keys if (entry := self.base.tensors[key]).numel)
            size, temporaries = max([size, *(math.prod(shape[1:] or shape) for shape in rows)]), 14
        need = (len(self.vectors) + temporaries) * size
        if self.method.survey:
            need += (len(self.vectors) + 2) * AT_ONCE
        factors = [
            piece for vector in self.vectors for piece in vector.pieces.values() if isinstance(piece, LowRank)
        ]
        return 4 * (
            need
            + 2 * len(self.vectors) * max((piece.a.numel + piece.b.numel for piece in factors), default=0)
        )

    def nbytes(self, key: str) -> int:
        """The size of a tensor in the output."""
        return self.frame.tensors[key].numel * STORED[self.dtypes[key]].itemsize

    def with_statistics(self, files: Mapping[str, Sequence[Path]], provenance: Mapping[str, Any]) -> Plan:
        """The same merge with its data statistics, `provenance` (where they come from) added to the manifest."""
        options: Options = {
            **self.options,
            "provenance": {**(self.options.get("provenance") or {}), **provenance},
        }
        return replace(
            self, statistics=open_statistics(self.method, files, len(self.vectors)), options=options
        )

    @property
    def warnings(self) -> list[str]:
        found = []
        if kinds := sorted({TORCH[self.dtypes[key]] for key in self.keys if self.dtypes[key] in HALF}):
            found.append(
                f"writing {' and '.join(kinds)}: a small task vector loses much of itself to rounding (45 % at 1e-4 beside weights of 0.05); "
                "float32 keeps it"
            )
        place = self.options.get("take_from")
        for vector in self.vectors:
            found += [f"{vector.name}: {difference}; taken from {place}" for difference in vector.differences]
        return found


def plan(
    base: Path,
    sources: Sequence[Path],
    method: str,
    out: Path,
    *,
    weights: Any = None,
    params: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    budget: int = 512 * MEGABYTE,
    shard_size: int = 5_000_000_000,
    output: Literal["model", "adapter"] = "model",
    rank: int | None = None,
    take_from: str | None = None,
    allow_code: bool = False,
    statistics: Mapping[str, Sequence[Path]] | None = None,
    base_name: str | None = None,
    names: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Plan:
    """Open and check everything a merge needs; write nothing.

    sources: fine-tuned models or PEFT adapters. weights: one for all or one per vector, each a number, ramp or rules (see merging.rules); params: the method's own.
    dtype: float32, float16, bfloat16 or float64 for the output; absent, each tensor keeps the widest format it has among base and sources.
    threads: at most so many; absent, one per core. device: cpu, or a torch device for the arithmetic. budget: bytes of memory beyond the runtime,
    for which threads are left away, and beyond which nothing is merged.
    shard_size: bytes per weight file at most. output: a whole model, or one LoRA adapter, of `rank` if given, where all sources are such.
    take_from: 'base' or a vector's name, whose tokenizer, configs and tensors are taken where the sources differ. allow_code: keep a model's own
    Python code. statistics: files with data statistics by name, one per vector; absent, they are to be gathered before the plan is carried out.
    base_name, names: what to call the inputs. provenance: added to the manifest.

    Raises SelfposError for whatever cannot be merged, before any weight is merged.
    """
    options = Options(
        weights=weights, params=params, dtype=dtype, seed=seed, threads=threads, device=device, budget=budget, shard_size=shard_size, output=output,
        rank=rank, take_from=take_from, allow_code=allow_code, provenance=provenance,
    )  # fmt: skip
    refuse_existing(out)
    if not sources:
        raise SelfposError("there are no vectors to merge; give at least one fine-tuned model or adapter")
    chosen = get_method(method)
    chosen.check_count(len(sources))
    if dtype is not None and dtype not in NAMES:
        raise unknown("number format", dtype, NAMES)
    check_device(device)
    if output not in ("model", "adapter"):
        raise unknown("kind of output", output, ["model", "adapter"])
    for name, number in {
        "threads": threads,
        "budget": budget,
        "shard_size": shard_size,
        "rank": rank,
    }.items():
        if number is not None and number < 1:
            raise SelfposError(f"{name} must be at least 1, found {number}")
    if rank is not None and output != "adapter":
        raise SelfposError("a rank is for the output 'adapter' only; leave it away for a whole model")
    if output == "adapter" and chosen.form != "combination":
        raise SelfposError(
            f"method {method} does not make a low-rank result of low-rank vectors; write a model instead of an adapter"
        )
    if inside := next(
        (folder for folder in (base, *sources) if out.resolve().is_relative_to(folder.resolve())), None
    ):
        raise SelfposError(
            f"{out} lies within {inside}, a model to be merged, of which it would be taken for a part; choose another output"
        )
    opened = open_model(base)
    vectors = open_vectors(opened, sources, names=names, tolerate=take_from is not None)
    if output == "adapter" and (
        whole := next((vector for vector in vectors if not (vector.source / ADAPTER).is_file()), None)
    ):
        raise SelfposError(
            f"{whole.name} is a whole model, not low-rank, so no adapter holds the merge; write a model instead"
        )
    frame = _frame(opened, vectors, take_from)
    check_tokenizer(frame.path)
    misfits = frozenset().union(*(vector.misfits for vector in vectors))
    keys = tuple(
        key
        for key, entry in frame.tensors.items()
        if entry.mergeable
        and key not in misfits
        and key in opened.tensors
        and opened.tensors[key].shape == entry.shape
    )
    if not keys:
        raise SelfposError("base and vectors share no tensor that could be merged")
    copied = side_files(frame.path, code=allow_code)
    settings = make_settings(chosen, len(sources), weights, params, keys)
    _refuse_unmerged(opened, vectors, take_from)
    dtypes = {key: _dtype(key, opened, frame, vectors, NAMES.get(dtype or "")) for key in frame.tensors}
    workers = threads or _cores()
    with ThreadPoolExecutor(workers) as pool:
        hashes = list(pool.map(content_hash, [base, *sources]))
    made = Plan(
        base=opened,
        frame=frame,
        vectors=vectors,
        method=chosen,
        settings=settings,
        out=out,
        keys=keys,
        tied={
            second: first
            for second, first in tied_tensors(opened, vectors).items()
            if second in keys and first in keys
        },
        dtypes=dtypes,
        files=output_files(frame, dtypes, shard_size),
        side_files=copied,
        statistics=open_statistics(chosen, statistics, len(sources)) if statistics else {},
        prompts=gather_prompts(frame.path, sources),
        hashes=hashes,
        base_name=base_name or display_name(base),
        threads=workers,
        options=options,
    )
    return made if output == "adapter" else made.within_budget()


def _cores() -> int:
    """Cores that this process may use; of the machine, where the system does not tell (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_device(device: str) -> None:
    """Raise SelfposError when there is no such device."""
    if device == "cpu":
        return
    import torch

    kind, _, number = device.partition(":")
    counts = {"cuda": torch.cuda.device_count, "mps": torch.mps.device_count, "xpu": torch.xpu.device_count}
    if kind not in counts:
        raise unknown("device", device, ["cpu", *counts])
    found = counts[kind]()
    if found <= (int(number) if number.isdigit() else 0):
        raise SelfposError(
            f"there is no device {device} on this machine (torch {torch.__version__} sees {found} of kind {kind}); use cpu"
        )


def _frame(base: ModelFolder, vectors: Sequence[TaskVector], name: str | None) -> ModelFolder:
    if name in (None, BASE):
        return base
    vector = next((vector for vector in vectors if vector.name == name), None)
    if vector is None:
        raise unknown("model to take from", str(name), [BASE, *(vector.name for vector in vectors)])
    if (vector.source / ADAPTER).is_file():
        raise SelfposError(
            f"{name} is an adapter, from which nothing can be taken; name the base or a full model"
        )
    return open_model(vector.source)


def _refuse_unmerged(base: ModelFolder, vectors: Sequence[TaskVector], take_from: str | None) -> None:
    """Refuse matrices of whole numbers or float8 that a vector changes: they would not be merged. Those all share (position ids) are no matter."""
    fixed = {
        key: entry for key, entry in base.tensors.items() if not entry.mergeable and len(entry.shape) > 1
    }
    if not fixed:
        return
    for vector in vectors:
        if (vector.source / ADAPTER).is_file():
            continue
        model = open_model(vector.source)
        for key, entry in fixed.items():
            other = model.tensors.get(key)
            if other is None or (take_from is not None and other.shape != entry.shape):
                continue
            if (other.dtype, other.shape) != (entry.dtype, entry.shape) or not np.array_equal(
                model.raw(key), base.raw(key)
            ):
                raise SelfposError(
                    f"{vector.name} changes tensor {key}, which is {TORCH[entry.dtype]} in the base and cannot be merged; "
                    "save base and vectors with weights of float32, float16 or bfloat16 first"
                )


def _dtype(
    key: str, base: ModelFolder, frame: ModelFolder, vectors: Sequence[TaskVector], asked: str | None
) -> str:
    entry = frame.tensors[key]
    if not entry.mergeable:
        return entry.dtype
    if asked is not None:
        return asked
    found = {entry.dtype} | ({base.tensors[key].dtype} if key in base.tensors else set())
    found |= {piece.entry.dtype for vector in vectors if isinstance(piece := vector.pieces.get(key), Dense)}
    # Neither half format holds the other: together they need float32.
    return "F32" if found == HALF else next(name for name in MERGEABLE if name in found)
