from __future__ import annotations

from typing import Annotated

import numpy as np

from selfpos.merging.geometry import of_models, over_base, slerp_shares
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import combination


@combination(
    reference="https://en.wikipedia.org/wiki/Slerp",
    weighting="none",
    gram="tensor",
    with_base=True,
    most=2,
    ordered=True,
)
def tensor_slerp(
    weights: list[float],
    gram: np.ndarray,
    *,
    t: Annotated[float, "the way from the first model (0) to the second (1)", Limits(0, 1)] = 0.5,
    linear_above: Annotated[float, "|cosine| above which the interpolation is linear", Limits(0, 1)] = 0.9995,
) -> list[float]:
    """Spherical interpolation of full weights, one angle per tensor: the usual SLERP of model mergers.

    θ = [sin((1−t)·α) θ_1 + sin(t·α) θ_2] / sin α per tensor, α the angle between θ_1 and θ_2; with one vector, between θ0 and θ_1.

    Fine-tuned models of one base lie at tiny angles, where this is linear interpolation: `slerp` on task vectors is another thing.
    Source: Shoemake 1985 (Animating rotation with quaternion curves); Digitous/LLM-SLERP-Merge and mergekit's `slerp`.
    Prefer it to reproduce such merges.
    """
    models = of_models(gram)
    one, two = (0, 1) if gram.shape[0] == 2 else (1, 2)
    shares = slerp_shares(models[one, one], models[two, two], models[one, two], t, linear_above)
    coefficients = np.zeros(gram.shape[0])
    coefficients[[one, two]] = shares
    return over_base(coefficients)
