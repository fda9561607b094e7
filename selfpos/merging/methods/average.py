from __future__ import annotations

from selfpos.merging.registry import combination


@combination(reference="https://arxiv.org/abs/2203.05482", weighting="none")
def average(weights: list[float]) -> list[float]:
    """The plain mean of the models (model soup).

    θ = θ0 + (1/N) Σ V_i = (1/N) Σ θ_i.

    Source: Wortsman et al. 2022, arXiv 2203.05482, "uniform soup".
    Prefer it as the first thing to try, and for models fine-tuned on the same task.
    """
    return [1.0 / len(weights)] * len(weights)
