from __future__ import annotations

from typing import Annotated

import numpy as np

from selfpos.merging.geometry import unit_scales
from selfpos.merging.registry import combination


@combination(reference="https://arxiv.org/abs/2410.15035", weighting="mean", gram="model")
def norm_equalized(
    weights: list[float],
    gram: np.ndarray,
    *,
    exponent: Annotated[float, "τ: 0 is the plain weighted mean, 1 makes all vectors equally long"] = 1.0,
    scale: Annotated[float, "λ, the factor of the merged vector"] = 1.0,
) -> list[float]:
    """The weighted mean of task vectors after evening out their norms.

    V = λ Σ w_i V_i · (n̄/‖V_i‖)^τ, n̄ the mean of the norms, so that the result keeps their scale. Absent weights are 1/N.

    Source: the norm imbalance described by Li et al. 2024, arXiv 2410.15035, section 3.2; inverse-frequency weighting carried over to norms.
    Prefer it when one task was trained much longer than the others and its vector drowns them.
    """
    norms, reciprocals = unit_scales(gram)
    return [
        float(value)
        for value in scale
        * np.array(weights)
        * np.where(norms > 0, (norms.mean() * reciprocals) ** exponent, 0.0)
    ]
