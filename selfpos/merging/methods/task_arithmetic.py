from __future__ import annotations

from typing import Annotated

from selfpos.merging.registry import combination


@combination(reference="https://arxiv.org/abs/2212.04089")
def task_arithmetic(
    weights: list[float], *, scale: Annotated[float, "λ, the factor of the whole sum"] = 1.0
) -> list[float]:
    """The scaled sum of task vectors.

    θ = θ0 + λ Σ w_i V_i. Absent weights are 1; a negative weight removes what a vector learned.

    Source: Ilharco et al. 2023, arXiv 2212.04089, section 2.
    Prefer it when the vectors are nearly orthogonal, so that their sum keeps what each of them does; λ below 1 when they are not.
    """
    return [scale * weight for weight in weights]
