from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np

from selfpos.merging.checks import CANCELLED, check_sum
from selfpos.merging.geometry import OPPOSITE, length, normalized, of_models, over_base, unit_scales
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import combination


@combination(reference="https://arxiv.org/abs/2603.04972", gram="tensor", with_base=True, checks=(check_sum,))
def karcher(
    weights: list[float],
    gram: np.ndarray,
    *,
    space: Annotated[
        Literal["vectors", "models"], "what is averaged: task vectors, or full weights"
    ] = "vectors",
    steps: Annotated[int, "at most so many steps of the fixed point iteration", Limits(1)] = 100,
    tolerance: Annotated[float, "a step shorter than this ends it", Limits(0)] = 1e-9,
) -> list[float]:
    """The Karcher (Riemannian) mean of the vectors' directions, per tensor, times their mean norm.

    m is the point of the unit sphere where Σ w_i log_m(u_i) = 0, u_i = V_i/‖V_i‖, found by m ← exp_m(Σ w_i log_m(u_i)); V = (Σ w_i ‖V_i‖) m.
    The iteration runs on inner products in float64, so it costs the same for any size of tensor. Where the directions cancel out, or the
    weights of those vectors that are not zero, the weighted mean is taken.

    Source: Grove and Karcher 1973; as a merge method mergekit's `karcher`, arXiv 2603.04972.
    Prefer it to multi-slerp when vectors lie far apart, where one step is not enough.
    """
    inner = of_models(gram)[1:, 1:] if space == "models" else gram[1:, 1:]
    norms, scales = unit_scales(inner)
    shares = normalized(weights)
    alive = shares * (norms > 0)
    point = alive * scales
    size = length(point, inner)
    if size < OPPOSITE or abs(alive.sum()) < CANCELLED:
        point = shares  # no direction, opposite ones, or weights that cancel where the others have none: their weighted mean
    else:
        alive, point = alive / alive.sum(), point / size
        for _ in range(steps):
            cosines = np.clip((inner @ point) * scales, -1, 1)
            angles = np.arccos(cosines)
            sines = np.sinc(angles / math.pi)  # sin(angle) / angle
            reach = np.divide(
                alive, sines, out=np.zeros_like(alive), where=sines > OPPOSITE
            )  # exactly opposite: no way leads there
            tangent = reach * scales - float(reach @ cosines) * point
            size = length(tangent, inner)
            if size < tolerance:
                break
            point = math.cos(size) * point + math.sin(size) / size * tangent
            point /= length(point, inner)
        point = point * float(shares @ norms)
    return over_base(np.concatenate([[0.0], point])) if space == "models" else [1.0, *map(float, point)]
