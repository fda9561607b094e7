"""Means on a sphere of any number of vectors or models."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np

from selfpos.merging.maths.geometry import (
    OPPOSITE,
    input_products,
    length,
    normalized,
    output_coefficients,
    unit_scales,
)
from selfpos.merging.method import NotNegative, combination
from selfpos.merging.settings import CANCELLED, check_sum


@combination(reference="https://arxiv.org/abs/2603.04972", gram="tensor", with_base=True, checks=(check_sum,))
def karcher(
    weights: list[float],
    gram: np.ndarray,
    *,
    space: Literal["vectors", "models"] = "vectors",
    steps: Annotated[int, (1, math.inf)] = 100,
    tolerance: NotNegative = 1e-9,
) -> list[float]:
    """The Karcher (Riemannian) mean of the vectors' directions, per tensor, times their mean norm.

    m is the point of the unit sphere where Σ w_i log_m(u_i) = 0, u_i = V_i/‖V_i‖, found by the iteration
    m ← exp_m(Σ w_i log_m(u_i)); V = (Σ w_i ‖V_i‖) m. It runs on inner products in float64, so it costs the
    same for any size of tensor. Where the directions cancel out, or the weights of the vectors that are not
    zero, the weighted mean is taken.

    Args:
        space: what is averaged: task vectors, or full weights.
        steps: at most so many steps of the fixed point iteration.
        tolerance: a step shorter than this ends it.

    Source: Grove and Karcher 1973; as a merge method mergekit's `karcher`, arXiv 2603.04972.
    Prefer it to multi-slerp when vectors lie far apart, where one step is not enough.
    """
    inner = input_products(gram, space)
    norms, scales = unit_scales(inner)
    shares = normalized(weights)
    alive = shares * (norms > 0)
    point = alive * scales
    size = length(point, inner)
    if size < OPPOSITE or abs(alive.sum()) < CANCELLED:
        return output_coefficients(shares, space)
    alive, point = alive / alive.sum(), point / size
    for _ in range(steps):
        cosines = np.clip((inner @ point) * scales, -1, 1)
        sines = np.sinc(np.arccos(cosines) / math.pi)  # sin(angle) / angle
        # No shortest path leads to an exactly opposite direction: it is left out.
        reach = np.divide(alive, sines, out=np.zeros_like(alive), where=sines > OPPOSITE)
        tangent = reach * scales - float(reach @ cosines) * point
        size = length(tangent, inner)
        if size < tolerance:
            break
        point = math.cos(size) * point + math.sin(size) / size * tangent
        point /= length(point, inner)
    return output_coefficients(point * float(shares @ norms), space)


@combination(
    reference="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    gram="tensor",
    with_base=True,
    checks=(check_sum,),
)
def multi_slerp(
    weights: list[float],
    gram: np.ndarray,
    *,
    space: Literal["vectors", "models"] = "vectors",
    normalize: bool = True,
) -> list[float]:
    """Barycentric interpolation of any number of vectors on a sphere, per tensor, in one step.

    With u_i = V_i/‖V_i‖ and m the direction of Σ w_i u_i: r = Σ w_i (u_i − ⟨u_i, m⟩ m),
    V = (Σ w_i ‖V_i‖) · (cos‖r‖ m + sin‖r‖ r/‖r‖).

    Unlike a chain of SLERPs it does not depend on the order. Where the directions cancel out, so that no
    point lies between them, the weighted mean is taken.

    Args:
        space: what is interpolated: task vectors, or full weights.
        normalize: divide the weights by their sum.

    Source: C. Goddard 2025, mergekit's `multislerp`; used for embeddings by Zhang et al. 2026 (BOOM), arXiv
    2602.05787. Prefer it for three or more vectors of similar role.
    """
    inner = input_products(gram, space)
    shares = normalized(weights) if normalize else np.array(weights)
    norms, scales = unit_scales(inner)
    mean = shares * scales
    size = length(mean, inner)
    if size < OPPOSITE:
        return output_coefficients(shares, space)
    mean /= size
    toward = (inner @ mean) * scales  # ⟨u_i, m⟩
    tangent = shares * scales - float(shares @ toward) * mean
    angle = length(tangent, inner)
    step = np.sinc(angle / math.pi)  # sin(angle) / angle
    return output_coefficients((math.cos(angle) * mean + step * tangent) * float(shares @ norms), space)
