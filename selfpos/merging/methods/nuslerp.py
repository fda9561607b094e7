from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from selfpos.merging.checks import check_sum
from selfpos.merging.geometry import normalized, of_models, over_base, slerp_shares
from selfpos.merging.registry import combination


@combination(
    reference="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    gram="tensor",
    with_base=True,
    checks=(check_sum,),
    fewest=2,
    most=2,
)
def nuslerp(
    weights: list[float],
    gram: np.ndarray,
    *,
    space: Annotated[
        Literal["vectors", "models"], "what is interpolated: task vectors, or full weights"
    ] = "vectors",
) -> list[float]:
    """Spherical interpolation of two task vectors, one angle per tensor, by weights.

    V = [sin((1−t)·α) V_1 + sin(t·α) V_2] / sin α per tensor, t = w_2 / (w_1 + w_2): a larger weight gives more to its own vector.

    Source: mergekit's `nuslerp` (its flattened form); Shoemake 1985.
    Prefer it to `slerp` for two vectors whose angle differs much between tensors.
    """
    t = float(normalized(weights)[1])
    if space == "vectors":
        return [1.0, *slerp_shares(gram[1, 1], gram[2, 2], gram[1, 2], t)]
    models = of_models(gram)
    return over_base(np.array([0.0, *slerp_shares(models[1, 1], models[2, 2], models[1, 2], t)]))
