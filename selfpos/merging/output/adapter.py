"""One LoRA adapter out of several: Σ c_i V_i stays low-rank, so no weight of the base is needed."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.merging.output.layout import copy_side_files, side_files
from selfpos.merging.plan import Coefficients, Plan
from selfpos.merging.stream import finite
from selfpos.storage.atomic import write_text
from selfpos.storage.file_kinds import ADAPTER, ADAPTER_WEIGHTS, CONFIG
from selfpos.storage.numbers import NAMES, from_float32
from selfpos.storage.tensor_file import TensorFileWriter
from selfpos.vectors.parts import LowRank

Factors = tuple[np.ndarray, np.ndarray]


def write_adapter(
    plan: Plan, coefficients: Coefficients | None, folder: Path, metadata: dict[str, str]
) -> dict[str, Any] | None:
    """Write the merged adapter; returns what truncation to a rank lost, or None when the adapter is exact.

    Its factors are [c_1 s_1 B_1 … c_N s_N B_N] and [A_1; …; A_N], whose product is Σ c_i s_i B_i A_i exactly;
    with the option `rank`, the best approximation of at most that rank.
    """
    coefficients = _low_rank_only(plan, coefficients)
    rank = plan.options.rank
    dtype = NAMES[plan.options.dtype or "float32"]
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    lost: dict[str, list[float]] = {}
    for key in plan.keys:
        moved = zip((vector.parts.get(key) for vector in plan.vectors), coefficients[key], strict=True)
        parts = [(part, c) for part, c in moved if isinstance(part, LowRank)]
        if not parts:
            continue
        factors = _concatenate(parts, key)
        if rank is not None and factors[1].shape[0] > rank:
            factors, *lost[key] = truncate(factors, rank)
        first = parts[0][0]
        module, _, _ = first.a.name.removeprefix("base_model.model.").partition(".lora_")
        ranks[module] = factors[1].shape[0]
        tensors |= _named(first, factors)
    shapes = {name: (dtype, value.shape) for name, value in sorted(tensors.items())}
    with closing(TensorFileWriter(folder / ADAPTER_WEIGHTS, shapes, metadata)) as writer:
        for name, value in tensors.items():
            writer.write(name, from_float32(value, dtype))
    _write_config(plan, folder, ranks)
    return _truncation(rank, lost) if rank is not None else None


def truncate(factors: Factors, rank: int) -> tuple[Factors, float, float]:
    """The best approximation of at most `rank`; squared Frobenius norms of what is lost and of the whole.

    By QR of both factors and an SVD of the small product between: the full matrix is never formed.
    """
    left, right = (np.asarray(factor, np.float64) for factor in factors)
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, sigma, vt = np.linalg.svd(r_left @ r_right.T)
    root = np.sqrt(sigma[:rank])
    short_left, short_right = (q_left @ u[:, :rank]) * root, (q_right @ vt[:rank].T).T * root[:, None]
    approximation = short_left.astype(np.float32), short_right.astype(np.float32)
    return approximation, float(np.sum(sigma[rank:] ** 2)), float(np.sum(sigma**2))


def _low_rank_only(plan: Plan, coefficients: Coefficients | None) -> Coefficients:
    """The coefficients of the vectors at every tensor, once it is sure that an adapter can hold the merge."""
    assert coefficients is not None  # the plan lets no other method through
    count = len(plan.vectors)
    if any(len(values) > count and values[0] != 1.0 for values in coefficients.values()):
        raise SelfposError(
            f"method {plan.method.name} with these parameters scales the base too, which an adapter cannot; "
            "write a model instead"
        )
    for vector in plan.vectors:
        for key, part in vector.parts.items():
            if not isinstance(part, LowRank) and vector.values(key).any():
                raise SelfposError(
                    f"{vector.name} moves {key} by more than low-rank factors, so no adapter holds the "
                    "merge; write a model instead"
                )
            if isinstance(part, LowRank) and part.b.stored is not None:
                raise SelfposError(
                    f"{vector.name} moves {part.b.name}, of which {key} is a part, whose own factors would "
                    "not fit; write a model instead"
                )
    by_key = {key: values[-count:] for key, values in coefficients.items()}
    return by_key | {second: by_key[first] for second, first in plan.tied.items()}


def _concatenate(parts: list[tuple[LowRank, float]], key: str) -> Factors:
    if len({part.transposed for part, _ in parts}) > 1:
        raise SelfposError(
            f"the adapters store {key} in different layouts (fan_in_fan_out), which one adapter cannot hold; "
            "write a model instead"
        )
    lefts, rights = [], []
    for part, coefficient in parts:
        left, right = part.factors()
        if not (finite(left) and finite(right)):
            raise SelfposError(
                f"{part.a.file}: the factors of tensor {key} hold numbers that are not finite; nothing is "
                "merged from a damaged adapter"
            )
        lefts.append(left * np.float32(coefficient))
        rights.append(right)
    return np.concatenate(lefts, axis=1), np.concatenate(rights, axis=0)


def _named(like: LowRank, factors: Factors) -> dict[str, np.ndarray]:
    """The factors under PEFT's names and in its shapes, as `like` has them."""
    left, right = factors
    a, b = (left.T, right.T) if like.transposed else (right, left)
    if not like.embedding and len(like.a.shape) > 2:  # a convolution: A keeps the kernel, B has one of size 1
        a, b = a.reshape(a.shape[0], *like.a.shape[1:]), b.reshape(*b.shape, *like.b.shape[2:])
    return {like.a.name: np.ascontiguousarray(a), like.b.name: np.ascontiguousarray(b)}


def _write_config(plan: Plan, folder: Path, ranks: dict[str, int]) -> None:
    """adapter_config.json after the first source's, and the other files of its folder.

    alpha equals the rank everywhere, so that the scaling is 1.
    """
    source = plan.vectors[0].folder
    common = max(ranks.values(), key=list(ranks.values()).count, default=1)
    pattern = {module.replace(".", r"\."): rank for module, rank in ranks.items() if rank != common}
    config = source.config(ADAPTER) | {
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
    if source.modules:
        # Without config.json at its root: that is how sentence-transformers tells an adapter from a model.
        files = [file for file in side_files(source, code=plan.options.allow_code) if file != Path(CONFIG)]
        copy_side_files(source.path, files, folder, "F32")
        # The modules beside the Transformer do not move: their weights are the base's.
        for file in {entry.file for key, entry in plan.base.tensors.items() if "/" in key}:
            target = folder / file.relative_to(plan.base.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    write_text(folder / ADAPTER, json.dumps(config, indent=2) + "\n")


def _truncation(rank: int, lost: dict[str, list[float]]) -> dict[str, Any]:
    """The relative error of the truncation in Frobenius norm, over all tensors and at the worst."""
    dropped = sum(part for part, _ in lost.values())
    whole = sum(total for _, total in lost.values())
    errors = {key: math.sqrt(part / total) if total > 0 else 0.0 for key, (part, total) in lost.items()}
    worst = max(errors, key=lambda key: errors[key], default=None)
    error = math.sqrt(dropped / whole) if whole > 0 else 0.0
    log.warning(
        "truncating to rank %d loses %.2g of the merged vector (relative Frobenius norm)", rank, error
    )
    return {
        "rank": rank,
        "error": error,
        "worst": {"tensor": worst, "error": errors[worst]} if worst else None,
    }
