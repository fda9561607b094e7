"""Weighted sums of task vectors."""

from __future__ import annotations

from selfpos.merging.method import combination
from selfpos.merging.settings import check_sum


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
