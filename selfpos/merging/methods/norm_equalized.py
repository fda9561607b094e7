"""The weighted mean with equal norms."""

from __future__ import annotations

import numpy as np

from selfpos.merging.maths.geometry import unit_scales
from selfpos.merging.method import combination


@combination(reference="https://arxiv.org/abs/2410.15035", weighting="mean", gram="model")
def norm_equalized(
    weights: list[float], gram: np.ndarray, *, exponent: float = 1.0, scale: float = 1.0
) -> list[float]:
    """The weighted mean of task vectors after evening out their norms.

    V = λ Σ w_i V_i · (n̄/‖V_i‖)^τ, n̄ the mean of the norms, so that the result keeps their scale. Absent
    weights are 1/N.

    Args:
        exponent: τ: 0 is the plain weighted mean, 1 makes all vectors equally long.
        scale: λ, the factor of the merged vector.

    Source: the norm imbalance described by Li et al. 2024, arXiv 2410.15035, section 3.2; inverse-frequency
    weighting applied to norms.
    Prefer it when one task was trained much longer than the others and its vector dominates.
    """
    norms, reciprocals = unit_scales(gram)
    factors = np.where(norms > 0, (norms.mean() * reciprocals) ** exponent, 0.0)
    return [float(value) for value in scale * np.array(weights) * factors]
