"""What a merge will do, checked in full before anything is written."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.devices import check_device
from selfpos.errors import MemoryBudgetError, SelfposError, unknown
from selfpos.merging.maths.thresholds import AT_ONCE, collected
from selfpos.merging.method import Method, get_method
from selfpos.merging.output.layout import OutputFile, gather_prompts, output_files, side_files
from selfpos.merging.output.modules import check_measured_pooling, check_pooling
from selfpos.merging.settings import Settings, make_settings
from selfpos.merging.stream import ProbeStatistics, open_statistics
from selfpos.recipe.merging import MEGABYTE, MergeOptions
from selfpos.recipe.settings import validate
from selfpos.storage.atomic import refuse_existing, refuse_within
from selfpos.storage.locate import display_name
from selfpos.storage.model_folder import ModelFolder, check_tokenizer, open_model
from selfpos.storage.numbers import MERGEABLE, NAMES, STORED, TORCH
from selfpos.vectors import TaskVector, open_vectors
from selfpos.vectors.check import quantisation, some_tensors
from selfpos.vectors.names import is_linear_map
from selfpos.vectors.parts import CHUNK, Dense, LowRank, MatchedRows, within
from selfpos.vectors.task_vector import tied_tensors

HALF = {"F16", "BF16"}
Coefficients = dict[str, list[float]]
"""Of a combination, by tensor; that of θ0 first where the method sets it."""
BASE = "base"


@dataclass(frozen=True)
class Plan:
    """A merge, validated. `keys` are merged; the output's other tensors and files are those of `frame`.

    `frame` is the base unless another model was named. `dtypes` is each tensor's number format in the output.
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
    options: MergeOptions = field(repr=False)

    @property
    def bytes_written(self) -> int:
        """The size of the output's weights."""
        return sum(self.nbytes(key) for key in self.dtypes)

    @property
    def passes(self) -> int:
        """How often the inputs are read."""
        return 1 + (self.method.reads if self.method.statistics_pass else bool(self.method.gram))

    @property
    def bytes_read(self) -> int:
        """How many bytes of weights are read, over all passes."""
        entries = [self.base.tensors[key] for key in self.keys]
        parts = (vector.parts.get(key) for vector in self.vectors for key in self.keys)
        inner = (leaf for part in parts for leaf in within(part))
        entries += [leaf.entry for leaf in inner if isinstance(leaf, Dense | MatchedRows)]
        merged = set(self.keys)
        taken_whole = sum(entry.nbytes for key, entry in self.frame.tensors.items() if key not in merged)
        return self.passes * sum(entry.nbytes for entry in entries) + taken_whole

    @property
    def elements(self) -> int:
        """Elements that pass through the engine, over base, vectors and passes: what progress counts."""
        return self.passes * (1 + len(self.vectors)) * sum(self.base.tensors[key].numel for key in self.keys)

    @property
    def memory(self) -> int:
        """About how many bytes the merge holds at a time, beyond the runtime and the memory maps."""
        return self._shared_memory + self.threads * self._thread_memory

    def within_budget(self) -> Plan:
        """The plan with as few threads as its budget allows. Raises SelfposError when one is too many."""
        threads = (self.options.budget - self._shared_memory) // self._thread_memory
        if threads >= 1:
            return replace(self, threads=min(self.threads, threads))
        need = -(-(self._shared_memory + self._thread_memory) // MEGABYTE)
        matrix = self._largest_matrix if self.method.chunking == "matrix" else ""
        reason = f" for {matrix}, its largest matrix" if matrix else ""
        raise MemoryBudgetError(
            f"method {self.method.name} needs about {need:,} MB of memory{reason}, and may use "
            f"{self.options.budget / MEGABYTE:,.0f} MB; allow it that much (--memory)"
        )

    @cached_property
    def _largest_matrix(self) -> str:
        """The largest matrix of a linear map; empty when there is none."""
        matrices = [key for key in self.keys if is_linear_map(key, self.base.tensors[key].shape)]
        return max(matrices, key=lambda key: self.base.tensors[key].numel, default="")

    @cached_property
    def _shared_memory(self) -> int:
        """Bytes held whatever the number of threads: what a statistics pass collects, and whole matrices."""
        total = sum(self.base.tensors[key].numel for key in self.keys)
        need = collected(total, len(self.vectors)) if self.method.statistics_pass else 0
        if self.method.chunking == "matrix" and self._largest_matrix and self.options.device == "cpu":
            rows, columns = self.base.tensors[self._largest_matrix].shape
            need += 4 * (self.method.holds[0] * rows * columns + self.method.holds[1] * columns**2)
        return need

    @cached_property
    def _thread_memory(self) -> int:
        """Bytes that each thread holds: chunks of base and vectors, temporaries, adapters' factors."""
        size, temporaries = CHUNK, 8
        if self.method.chunking == "row":
            shapes = [entry.shape for key in self.keys if (entry := self.base.tensors[key]).numel]
            size, temporaries = max([size, *(math.prod(shape[1:] or shape) for shape in shapes)]), 14
        need = (len(self.vectors) + temporaries) * size
        if self.method.statistics_pass:
            need += (len(self.vectors) + 2) * AT_ONCE
        parts = [within(part) for vector in self.vectors for part in vector.parts.values()]
        factors = max(
            (
                sum(leaf.a.numel + leaf.b.numel for leaf in inner if isinstance(leaf, LowRank))
                for inner in parts
            ),
            default=0,
        )
        return 4 * (need + 2 * len(self.vectors) * factors)

    def nbytes(self, key: str) -> int:
        """The size of a tensor in the output."""
        return self.frame.tensors[key].numel * STORED[self.dtypes[key]].itemsize

    @property
    def main_dtype(self) -> str:
        """The number format of most of the output's weights, safetensors name."""
        sizes = Counter[str]()
        for key in self.keys:
            sizes[self.dtypes[key]] += self.base.tensors[key].numel
        return sizes.most_common(1)[0][0]

    def with_statistics(self, files: Mapping[str, Sequence[Path]], provenance: Mapping[str, Any]) -> Plan:
        """The same merge with its data statistics; `provenance` says where they come from."""
        added = {**(self.options.provenance or {}), **provenance}
        options = self.options.model_copy(update={"provenance": added})
        opened = open_statistics(self.method, files, len(self.vectors))
        return replace(self, statistics=opened, options=options)

    @property
    def warnings(self) -> list[str]:
        """What the user should know before the merge."""
        warnings = []
        if names := sorted({TORCH[self.dtypes[key]] for key in self.keys if self.dtypes[key] in HALF}):
            warnings.append(
                f"writing {' and '.join(names)}: a small task vector loses much of itself to rounding (45 % "
                "at 1e-4 beside weights of 0.05); float32 keeps it"
            )
        for vector in self.vectors:
            warnings += [f"{vector.name}: {note}" for note in vector.notes]
            for difference in vector.differences:
                warnings.append(f"{vector.name}: {difference}; taken from {self.options.take_from}")
            if vector.by_token:
                tables = some_tensors(sorted(vector.by_token))
                effect = "rows are those of the same tokens" if self.frame is self.base else "not merged"
                warnings.append(f"{vector.name}: {tables}: {effect}")
            if vector.misfits:
                kept = some_tensors(sorted(vector.misfits))
                warnings.append(
                    f"{vector.name}: {kept} not merged for anyone, but {self.options.take_from}'s"
                )
        folders = [self.base, *(vector.folder for vector in self.vectors)]
        if heads := sorted({head for folder in folders for head in folder.heads}):
            warnings.append(f"{', '.join(heads)}: pickled heads beside the model, neither merged nor copied")
        return warnings


def plan(base: Path, sources: Sequence[Path], method: str, out: Path, **options: Any) -> Plan:
    """Open and check everything a merge needs; write nothing.

    `sources` are fine-tuned models or PEFT adapters; the options are the fields of `MergeOptions`.
    Raises SelfposError for whatever cannot be merged, before any weight is read.
    """
    refuse_existing(out)
    return _planned(base, sources, method, out, validate(MergeOptions, options, "merge options"))


def _planned(
    base: Path, sources: Sequence[Path], method: str, out: Path, merge_options: MergeOptions
) -> Plan:
    chosen = get_method(method)
    _check_request(base, sources, chosen, out, merge_options)
    opened = open_model(base)
    vectors = open_vectors(
        opened, sources, names=merge_options.names, tolerate=merge_options.take_from is not None
    )
    for vector in vectors if merge_options.output == "adapter" else ():
        if not vector.folder.is_adapter:
            raise SelfposError(
                f"{vector.name} is a whole model, not low-rank, so no adapter holds the merge; write a model "
                "instead"
            )
    frame = _frame(opened, vectors, merge_options.take_from)
    check_tokenizer(frame.path, frame.modules)
    check_pooling(frame, merge_options.pooling)
    if chosen.probe:
        check_measured_pooling(frame, merge_options.pooling)
    keys = _merged_keys(opened, frame, vectors)
    settings = make_settings(chosen, len(sources), merge_options.weights, merge_options.params, keys)
    _refuse_unmerged(opened, vectors, merge_options.take_from)
    dtypes = _dtypes(opened, frame, vectors, NAMES.get(merge_options.dtype or ""))
    tied = tied_tensors(opened, vectors)
    threads = merge_options.threads or _cores()
    folders = [opened, *(vector.folder for vector in vectors)]
    with ThreadPoolExecutor(threads) as pool:
        hashes = list(pool.map(lambda folder: folder.content_hash, folders))
    statistics_files = merge_options.statistics
    made = Plan(
        base=opened,
        frame=frame,
        vectors=vectors,
        method=chosen,
        settings=settings,
        out=out,
        keys=keys,
        tied={second: first for second, first in tied.items() if {second, first} <= set(keys)},
        dtypes=dtypes,
        files=output_files(frame, dtypes, merge_options.shard_size),
        side_files=side_files(frame, code=merge_options.allow_code),
        prompts=gather_prompts(frame, [vector.folder for vector in vectors]),
        statistics=open_statistics(chosen, statistics_files, len(sources)) if statistics_files else {},
        hashes=hashes,
        base_name=merge_options.base_name or display_name(base),
        threads=threads,
        options=merge_options,
    )
    return made if merge_options.output == "adapter" else made.within_budget()


def plan_sweep(
    base: Path, sources: Sequence[Path], merges: Mapping[Path, Mapping[str, Any]], **options: Any
) -> list[Plan]:
    """Plans of several merges of the same models, which are opened once, for `execute_all`.

    `merges` maps each output to its method, and its own weights, params, seed and provenance; the options
    are those that all share. Unlike `plan` this does not refuse an output that exists. Raises SelfposError
    as `plan` does.
    """
    shared = validate(MergeOptions, options, "merge options")
    folder = next(iter(merges)).parent
    opened = _planned(base, sources, "average", folder, shared)  # which every number of vectors suits
    return [_again(opened, base, sources, out, {**options, **merge}) for out, merge in merges.items()]


def _again(opened: Plan, base: Path, sources: Sequence[Path], out: Path, merge: dict[str, Any]) -> Plan:
    """The plan of another merge of the same models. Raises SelfposError with the name of its output."""
    try:
        method = get_method(merge.pop("method"))
        options = validate(MergeOptions, merge, "merge options")
        _check_request(base, sources, method, out, options)
        settings = make_settings(method, len(sources), options.weights, options.params, opened.keys)
        threads = options.threads or _cores()
        return replace(
            opened, method=method, settings=settings, out=out, threads=threads, options=options
        ).within_budget()
    except SelfposError as error:
        raise type(error)(f"{out.name}: {error}") from None


def _cores() -> int:
    # all of the machine's where the system does not say which may be used (macOS)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_base(base: Path, *, allow_code: bool) -> ModelFolder:
    """Raise SelfposError for what every merge over `base` refuses of it; returns it opened."""
    opened = open_model(base)
    check_tokenizer(base, opened.modules)
    check_pooling(opened, None)
    side_files(opened, code=allow_code)
    if quantised := quantisation(opened):
        raise SelfposError(f"{base} is quantised: {quantised}, which is not merged; give it as it was before")
    return opened


def _check_request(
    base: Path, sources: Sequence[Path], method: Method, out: Path, options: MergeOptions
) -> None:
    """What can be refused before a model is opened."""
    if not sources:
        raise SelfposError("there are no vectors to merge; give at least one fine-tuned model or adapter")
    method.check_count(len(sources))
    check_device(options.device)
    if options.output == "adapter" and method.form != "combination":
        raise SelfposError(
            f"method {method.name} does not make a low-rank result of low-rank vectors; write a model "
            "instead of an adapter"
        )
    for folder in (base, *sources):
        refuse_within(out, folder)


def _frame(base: ModelFolder, vectors: Sequence[TaskVector], name: str | None) -> ModelFolder:
    if name in (None, BASE):
        return base
    by_name = {vector.name: vector for vector in reversed(vectors)}
    if name not in by_name:
        raise unknown("model to take from", str(name), [BASE, *by_name])
    if by_name[name].folder.is_adapter:
        raise SelfposError(
            f"{name} is an adapter, from which nothing can be taken; name the base or a full model"
        )
    return by_name[name].folder


def _merged_keys(base: ModelFolder, frame: ModelFolder, vectors: Sequence[TaskVector]) -> tuple[str, ...]:
    misfits = frozenset().union(*(vector.misfits | vector.unused for vector in vectors))
    if frame is not base:  # whose tokens have other rows
        misfits = misfits.union(*(vector.by_token for vector in vectors))
    shapes = {key: entry.shape for key, entry in base.tensors.items() if key not in misfits}
    merged = [
        key for key, entry in frame.tensors.items() if entry.mergeable and shapes.get(key) == entry.shape
    ]
    if not merged:
        raise SelfposError("base and vectors share no tensor that could be merged")
    return tuple(merged)


def _refuse_unmerged(base: ModelFolder, vectors: Sequence[TaskVector], take_from: str | None) -> None:
    """Refuse tensors of whole numbers or float8 that a vector changes: they are not merged."""
    fixed = {key: entry for key, entry in base.tensors.items() if not entry.mergeable and entry.numel > 1}
    for vector in vectors:
        for key, entry in fixed.items():
            other = vector.folder.tensors.get(key)
            left = key in vector.misfits or (other is not None and other.shape != entry.shape)
            if other is None or (take_from is not None and left):
                continue
            same = (other.dtype, other.shape) == (entry.dtype, entry.shape)
            if not same or not np.array_equal(vector.folder.raw(key), base.raw(key)):
                raise SelfposError(
                    f"{vector.name} changes tensor {key}, which is {TORCH[entry.dtype]} in the base and "
                    "cannot be merged; save base and vectors with weights of float32, float16 or bfloat16 "
                    "first"
                )


def _dtypes(
    base: ModelFolder, frame: ModelFolder, vectors: Sequence[TaskVector], dtype: str | None
) -> dict[str, str]:
    """The number format of every tensor; parts of one stored tensor have that of the widest."""
    dtypes = {key: _dtype(key, base, frame, vectors, dtype) for key in frame.tensors}
    whole: dict[tuple[Path, str], set[str]] = {}
    for key, entry in frame.tensors.items():
        whole.setdefault((entry.file, entry.name), set()).add(dtypes[key])
    for key, entry in frame.tensors.items():
        dtypes[key] = _widest(whole[entry.file, entry.name])
    return dtypes


def _dtype(
    key: str, base: ModelFolder, frame: ModelFolder, vectors: Sequence[TaskVector], dtype: str | None
) -> str:
    entry = frame.tensors[key]
    if not entry.mergeable or dtype is not None:
        return dtype if entry.mergeable and dtype is not None else entry.dtype
    formats = {entry.dtype} | ({base.tensors[key].dtype} if key in base.tensors else set())
    parts = [vector.parts.get(key) for vector in vectors]
    formats |= {part.entry.dtype for part in parts if isinstance(part, Dense | MatchedRows)}
    return _widest(formats)


def _widest(formats: set[str]) -> str:
    # Neither half format holds the other: together they need float32.
    return "F32" if formats == HALF else next((name for name in MERGEABLE if name in formats), min(formats))
