from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np

from selfpos.merging.checks import check_sum
from selfpos.merging.geometry import OPPOSITE, length, normalized, of_models, over_base, unit_scales
from selfpos.merging.registry import combination


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
    space: Annotated[
        Literal["vectors", "models"], "what is interpolated: task vectors, or full weights"
    ] = "vectors",
    normalize: Annotated[bool, "divide the weights by their sum"] = True,
) -> list[float]:
    """Barycentric interpolation of any number of vectors on a sphere, per tensor, in one step.

    With u_i = V_i/‖V_i‖ and m the direction of Σ w_i u_i: r = Σ w_i (u_i − ⟨u_i, m⟩ m), V = (Σ w_i ‖V_i‖) · (cos‖r‖ m + sin‖r‖ r/‖r‖).

    Unlike a chain of SLERPs it does not depend on the order. Where the directions cancel out, which has no point between them, the weighted
    mean is taken. Source: C. Goddard 2025, mergekit's `multislerp`; used for embeddings by
    Zhang et al. 2026 (BOOM), arXiv 2602.05787. Prefer it for three or more vectors of similar role.
    """
    inner = of_models(gram)[1:, 1:] if space == "models" else gram[1:, 1:]
    shares = normalized(weights) if normalize else np.array(weights)
    norms, scales = unit_scales(inner)
    mean = shares * scales
    size = length(mean, inner)
    if size < OPPOSITE:
        point = shares
    else:
        mean /= size
        toward = (inner @ mean) * scales  # ⟨u_i, m⟩
        tangent = shares * scales - float(shares @ toward) * mean
        angle = length(tangent, inner)
        step = np.sinc(angle / math.pi)  # sin(angle) / angle
        point = (math.cos(angle) * mean + step * tangent) * float(shares @ norms)
    return over_base(np.concatenate([[0.0], point])) if space == "models" else [1.0, *map(float, point)]
