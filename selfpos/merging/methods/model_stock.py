"""Model Stock."""

from __future__ import annotations

import numpy as np

from selfpos.merging.method import combination
from selfpos.vectors.gram import norms_and_cosines


@combination(reference="https://arxiv.org/abs/2403.19522", weighting="none", gram="tensor", fewest=2)
def model_stock(weights: list[float], gram: np.ndarray) -> list[float]:
    """Model Stock: the average, drawn toward the base as far as the vectors disagree, per tensor.

    θ = θ0 + t · (1/N) Σ V_i with t = N cos φ / (1 + (N − 1) cos φ), cos φ the mean cosine of all pairs.
    Orthogonal vectors give the base, and so do those at wider angles, for which the paper's geometry has no
    case (in mergekit t falls below 0 there, without bound).

    Source: Jang et al. 2024, arXiv 2403.19522, equation 9.
    Prefer it for several fine-tunings of one task; for different tasks, whose vectors are nearly orthogonal,
    it moves too little.
    """
    count = len(weights)
    _, cosines = norms_and_cosines(gram)
    cosine = max(0.0, float(cosines[np.triu_indices(count, 1)].mean()))
    t = count * cosine / (1 + (count - 1) * cosine)
    return [t / count] * count
