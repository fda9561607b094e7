"""One LoRA adapter out of several: Σ c_i V_i stays low-rank, so no weight of the base is needed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.errors import SelfposError
from selfpos.merging.layout import copy_side_files, side_files
from selfpos.merging.plan import Plan
from selfpos.merging.prepare import Coefficients
from selfpos.merging.stream import finite
from selfpos.storage.atomic import write_text
from selfpos.storage.model_folder import ADAPTER, read_json
from selfpos.storage.numbers import NAMES, from_float32
from selfpos.storage.tensor_file import TensorFileWriter
from selfpos.vectors import TaskVector
from selfpos.vectors.adapter import ADAPTER_WEIGHTS
from selfpos.vectors.pieces import LowRank

Factors = tuple[np.ndarray, np.ndarray]


def write_adapter(
    plan: Plan, coefficients: Coefficients | None, folder: Path, metadata: dict[str, str]
) -> dict[str, Any] | None:
    """Write the merged adapter; returns what truncation to a rank lost, or None when the adapter is exact.

    Its factors are [c_1 s_1 B_1 … c_N s_N B_N] and [A_1; …; A_N], whose product is Σ c_i s_i B_i A_i exactly; with the option `rank`, the best
    approximation of at most that rank. Raises SelfposError when a source or the method is not low-rank.
    """
    coefficients = _low_rank_only(plan, coefficients)
    rank = plan.options.get("rank")
    dtype = NAMES[plan.options.get("dtype") or "float32"]
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    lost: dict[str, tuple[float, float]] = {}
    for key in plan.keys:
        pieces = [
            (vector.pieces[key], c)
            for vector, c in zip(plan.vectors, coefficients[key], strict=True)
            if key in vector.pieces
        ]
        found = [(piece, c) for piece, c in pieces if isinstance(piece, LowRank)]
        if not found:
            continue
        factors = _concatenate(found, key)
        if rank is not None and factors[1].shape[0] > rank:
            factors, dropped, whole = truncate(factors, rank)
            lost[key] = (dropped, whole)
        like = found[0][0]
        module, _, _ = like.a.name.removeprefix("base_model.model.").partition(".lora_")
        ranks[module] = factors[1].shape[0]
        tensors |= _named(like, factors)
    shapes = {name: (dtype, value.shape) for name, value in sorted(tensors.items())}
    writer = TensorFileWriter(folder / ADAPTER_WEIGHTS, shapes, metadata)
    try:
        for name, value in tensors.items():
            writer.write(name, from_float32(value, dtype))
    finally:
        writer.close()
    _write_config(plan, folder, ranks)
    return _truncation(rank, lost) if rank is not None else None


def truncate(factors: Factors, rank: int) -> tuple[Factors, float, float]:
    """The best approximation of left @ right of at most `rank`, and the squared Frobenius norms of what is dropped and of the whole.

    By QR of both factors and an SVD of the small product between: the full matrix is never formed.
    """
    left, right = (np.asarray(factor, np.float64) for factor in factors)
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, sigma, vt = np.linalg.svd(r_left @ r_right.T)
    root = np.sqrt(sigma[:rank])
    kept = ((q_left @ u[:, :rank]) * root, (q_right @ vt[:rank].T).T * root[:, None])
    return (
        (kept[0].astype(np.float32), kept[1].astype(np.float32)),
        float(np.sum(sigma[rank:] ** 2)),
        float(np.sum(sigma**2)),
    )


def _low_rank_only(plan: Plan, coefficients: Coefficients | None) -> Coefficients:
    name = plan.method.name
    assert coefficients is not None  # the plan lets no other method through
    if any(len(values) > len(plan.vectors) and values[0] != 1.0 for values in coefficients.values()):
        raise SelfposError(
            f"method {name} with these parameters scales the base too, which an adapter cannot; write a model instead"
        )
    for vector in plan.vectors:
        for key, piece in vector.pieces.items():
            if not isinstance(piece, LowRank) and not _stands_still(vector, key):
                raise SelfposError(
                    f"{vector.name} moves {key} by more than low-rank factors, so no adapter holds the merge; write a model instead"
                )
    return {key: values[-len(plan.vectors) :] for key, values in coefficients.items()} | {
        second: coefficients[first][-len(plan.vectors) :] for second, first in plan.tied.items()
    }


def _stands_still(vector: TaskVector, key: str) -> bool:
    return not vector.values(key).any()


def _concatenate(pieces: list[tuple[LowRank, float]], key: str) -> Factors:
    if len({piece.transposed for piece, _ in pieces}) > 1:
        raise SelfposError(
            f"the adapters store {key} in different layouts (fan_in_fan_out), which one adapter cannot hold; write a model instead"
        )
    factors = [piece.factors() for piece, _ in pieces]
    for (piece, _), pair in zip(pieces, factors, strict=True):
        if not all(finite(factor) for factor in pair):
            raise SelfposError(
                f"{piece.a.file}: the factors of tensor {key} hold numbers that are not finite; nothing is merged from a damaged adapter"
            )
    left = np.concatenate(
        [part[0] * np.float32(c) for part, (_, c) in zip(factors, pieces, strict=True)], axis=1
    )
    return left, np.concatenate([part[1] for part in factors], axis=0)


def _named(like: LowRank, factors: Factors) -> dict[str, np.ndarray]:
    """The factors under PEFT's names and in its shapes, as `like` has them."""
    left, right = factors
    a, b = (left.T, right.T) if like.transposed else (right, left)
    if not like.embedding and len(like.a.shape) > 2:  # a convolution: A keeps the kernel, B has one of size 1
        a, b = a.reshape(a.shape[0], *like.a.shape[1:]), b.reshape(*b.shape, *like.b.shape[2:])
    return {like.a.name: np.ascontiguousarray(a), like.b.name: np.ascontiguousarray(b)}


def _write_config(plan: Plan, folder: Path, ranks: dict[str, int]) -> None:
    """adapter_config.json after the first source's, and the other files of its folder. alpha equals the rank everywhere: the scaling is 1."""
    source = plan.vectors[0].source
    common = max(ranks.values(), key=list(ranks.values()).count, default=1)
    pattern = {module.replace(".", r"\."): rank for module, rank in ranks.items() if rank != common}
    config = read_json(source / ADAPTER) | {
        "r": common,
        "lora_alpha": common,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": sorted(ranks),
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    if (source / "modules.json").is_file():
        # Without config.json at its root: that is how sentence-transformers tells an adapter from a model.
        aside = [
            file
            for file in side_files(source, code=bool(plan.options.get("allow_code")))
            if file != Path("config.json")
        ]
        copy_side_files(source, aside, folder, "F32")
        _copy_still_weights(plan, folder)
    write_text(folder / ADAPTER, json.dumps(config, indent=2) + "\n")


def _copy_still_weights(plan: Plan, folder: Path) -> None:
    """The weights of modules beside the Transformer, which stand still: the base's."""
    for file in {entry.file for key, entry in plan.base.tensors.items() if "/" in key}:
        target = folder / file.relative_to(plan.base.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _truncation(rank: int, lost: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """The relative error of the truncation in Frobenius norm, over all truncated tensors and at the worst of them."""
    dropped, whole = (sum(pair[index] for pair in lost.values()) for index in range(2))
    errors = {key: math.sqrt(part / total) if total > 0 else 0.0 for key, (part, total) in lost.items()}
    worst = max(errors, key=lambda key: errors[key], default=None)
    error = math.sqrt(dropped / whole) if whole > 0 else 0.0
    return {
        "rank": rank,
        "error": error,
        "worst": {"tensor": worst, "error": errors[worst]} if worst else None,
    }
