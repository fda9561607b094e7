"""Spherical interpolation of two models or vectors, chains of it, and means on a sphere of any number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np

from selfpos.errors import SelfposError
from selfpos.merging.maths.geometry import (
    OPPOSITE,
    input_products,
    length,
    normalized,
    of_models,
    output_coefficients,
    over_base,
    slerp_shares,
    unit_scales,
)
from selfpos.merging.method import NotNegative, Share, combination
from selfpos.merging.settings import CANCELLED, Settings, check_sum


def check_divisors(settings: Settings, keys: Sequence[str]) -> None:
    """Refuse weights for which a_i + a_j is 0, by which the angle is divided."""
    for key in keys:
        weights = settings.weights(key)
        for n in range(1, len(weights)):
            if math.fsum(weights[:n]) / n + weights[n] == 0:
                raise SelfposError(
                    f"method slerp divides by a_i + a_j, which is 0 for weights {weights[: n + 1]}; change "
                    "one of them"
                )


@combination(reference="https://arxiv.org/abs/2410.15035", gram="model", checks=(check_divisors,))
def slerp(weights: list[float], gram: np.ndarray) -> list[float]:
    """Spherical interpolation of task vectors, one global angle, chained over more than two.

    V_(1..n) = f(V_(1..n−1), V_n, mean(a_1..a_{n−1}), a_n) with
    f(V_i, V_j, a_i, a_j) = [sin(a_j/(a_i+a_j)·α) V_i + sin(a_i/(a_i+a_j)·α) V_j] / sin α, α the angle between
    V_i and V_j.

    The weights are the a_i, all 1 when absent, and as printed in the paper: a larger a_i gives more to the
    OTHER vector. Vectors are not normalised, so norms are carried through: for orthogonal vectors and a = 1
    it is 0.71 (V_1 + V_2), where the average is 0.5. With three or more vectors the order matters and the
    last weighs most.

    Source: Li et al. 2024, arXiv 2410.15035, equations 4 and 9.
    Prefer it to the average when that has become too short, that is when the vectors are far from parallel.
    """
    return chain(gram, weights)


def chain(gram: np.ndarray, a: list[float]) -> list[float]:
    """The coefficients c with V_(1..N) = Σ c_i V_i, from the inner products (N, N) and the N parameters a.

    For opposite vectors (α = π) the direction between them is not defined: their linear interpolation is
    taken.
    """
    count = len(a)
    coefficients = np.zeros(count)
    coefficients[0] = 1.0
    for n in range(1, count):
        earlier = math.fsum(a[:n]) / n
        share = a[n] / (earlier + a[n])  # of V_(1..n−1), as printed
        inner = float(coefficients @ gram[:, n])
        square = float(coefficients @ gram @ coefficients)
        first, second = slerp_shares(square, float(gram[n, n]), inner, 1 - share)
        coefficients *= first
        coefficients[n] = second
    return coefficients.tolist()


@combination(
    reference="https://en.wikipedia.org/wiki/Slerp", weighting="none", gram="tensor", with_base=True, most=2
)
def tensor_slerp(
    weights: list[float], gram: np.ndarray, *, t: Share = 0.5, linear_above: Share = 0.9995
) -> list[float]:
    """Spherical interpolation of full weights, one angle per tensor: the usual SLERP of model mergers.

    θ = [sin((1−t)·α) θ_1 + sin(t·α) θ_2] / sin α per tensor, α the angle between θ_1 and θ_2; with one
    vector, between θ0 and θ_1.

    Args:
        t: the share of the second model: 0 is the first, 1 the second.
        linear_above: |cosine| above which the interpolation is linear.

    Fine-tuned models of one base lie at tiny angles, where this is linear interpolation: `slerp` on task
    vectors is another thing.
    Source: Shoemake 1985 (Animating rotation with quaternion curves); Digitous/LLM-SLERP-Merge and mergekit's
    `slerp`. Prefer it to reproduce such merges.
    """
    models = of_models(gram)
    first, second = (0, 1) if gram.shape[0] == 2 else (1, 2)
    coefficients = np.zeros(gram.shape[0])
    coefficients[[first, second]] = slerp_shares(
        models[first, first], models[second, second], models[first, second], t, linear_above
    )
    return over_base(coefficients)


@combination(
    reference="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    gram="tensor",
    with_base=True,
    checks=(check_sum,),
    fewest=2,
    most=2,
)
def nuslerp(
    weights: list[float], gram: np.ndarray, *, space: Literal["vectors", "models"] = "vectors"
) -> list[float]:
    """Spherical interpolation of two task vectors, one angle per tensor, by weights.

    V = [sin((1−t)·α) V_1 + sin(t·α) V_2] / sin α per tensor, t = w_2 / (w_1 + w_2): a larger weight gives
    more to its vector.

    Args:
        space: what is interpolated: task vectors, or full weights.

    Source: mergekit's `nuslerp` (its flattened form); Shoemake 1985.
    Prefer it to `slerp` for two vectors whose angle differs much between tensors.
    """
    t = float(normalized(weights)[1])
    if space == "vectors":
        return [1.0, *slerp_shares(gram[1, 1], gram[2, 2], gram[1, 2], t)]
    models = of_models(gram)
    return over_base(np.array([0.0, *slerp_shares(models[1, 1], models[2, 2], models[1, 2], t)]))


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
