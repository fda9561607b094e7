"""Weighted sums of task vectors."""

from __future__ import annotations

import numpy as np

from selfpos.merging.maths.geometry import unit_scales
from selfpos.merging.method import NotNegative, combination, kernel
from selfpos.merging.settings import check_sum
from selfpos.merging.stream import Array, Chunk, array_module
from selfpos.vectors.gram import norms_and_cosines


@combination(reference="https://arxiv.org/abs/2203.05482", weighting="none")
def average(weights: list[float]) -> list[float]:
    """The plain mean of the models (model soup).

    θ = θ0 + (1/N) Σ V_i = (1/N) Σ θ_i.

    Source: Wortsman et al. 2022, arXiv 2203.05482, "uniform soup".
    Prefer it as the first thing to try, and for models fine-tuned on the same task.
    """
    return [1.0 / len(weights)] * len(weights)


@combination(reference="https://arxiv.org/abs/2203.05482", weighting="mean", checks=(check_sum,))
def linear(weights: list[float], *, normalize: bool = False) -> list[float]:
    """The weighted sum of task vectors, weights taken as they are.

    θ = θ0 + Σ w_i V_i. Where the weights sum to 1, or with `normalize`, this is the weighted mean Σ w_i θ_i.
    Absent weights are 1/N.

    Args:
        normalize: divide the weights by their sum.

    Source: Wortsman et al. 2022, arXiv 2203.05482; coefficients that a search finds are applied in this way,
    too. Prefer it when the weights are known.
    """
    return [weight / sum(weights) for weight in weights] if normalize else weights


@combination(reference="https://arxiv.org/abs/2212.04089")
def task_arithmetic(weights: list[float], *, scale: float = 1.0) -> list[float]:
    """The scaled sum of task vectors.

    θ = θ0 + λ Σ w_i V_i. Absent weights are 1; a negative weight removes what a vector learned.

    Args:
        scale: λ, the factor of the whole sum.

    Source: Ilharco et al. 2023, arXiv 2212.04089, section 2.
    Prefer it when the vectors are nearly orthogonal, so that their sum keeps what each of them does; with λ
    below 1 when they are not.
    """
    return [scale * weight for weight in weights]


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


@kernel(reference="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001", weighting="none", most=1)
def nearswap(chunk: Chunk, *, t: NotNegative) -> Array:
    """NearSwap: take the other model's weight where it is near the base's, move by t toward it elsewhere.

    θ = θ0 + w V with w = min(1, t/|V|) per entry, that is V cut off at ±t.

    Args:
        t: the farthest any weight moves.

    Source: alchemonaut 2024, QuartetAnemoi-70B-t0.0001.
    Prefer it to blend in a second model softly; for one vector only.
    """
    return array_module(chunk.base).clip(chunk.vectors[0], -t, t)
