from __future__ import annotations

from typing import Annotated

from selfpos.merging.checks import check_sum
from selfpos.merging.registry import combination


@combination(reference="https://arxiv.org/abs/2203.05482", weighting="mean", checks=(check_sum,))
def linear(
    weights: list[float], *, normalize: Annotated[bool, "divide the weights by their sum"] = False
) -> list[float]:
    """The weighted sum of task vectors, weights taken as they are.

    θ = θ0 + Σ w_i V_i; where the weights sum to 1, or with `normalize`, this is the weighted mean Σ w_i θ_i. Absent weights are 1/N.

    Source: Wortsman et al. 2022, arXiv 2203.05482; this is also how coefficients found by a search are applied.
    Prefer it when the weights are known.
    """
    return [weight / sum(weights) for weight in weights] if normalize else weights
