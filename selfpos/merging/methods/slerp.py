from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from selfpos.errors import SelfposError
from selfpos.merging.geometry import slerp_shares
from selfpos.merging.registry import combination
from selfpos.merging.rules import Settings


def check(settings: Settings, keys: Sequence[str]) -> None:
    """Refuse weights for which a_i + a_j is 0, by which the angle is divided."""
    for key in keys:
        weights = settings.weights(key)
        for n in range(1, len(weights)):
            if math.fsum(weights[:n]) / n + weights[n] == 0:
                raise SelfposError(
                    f"method slerp divides by a_i + a_j, which is 0 for weights {weights[: n + 1]}; change one of them"
                )


@combination(reference="https://arxiv.org/abs/2410.15035", gram="model", checks=(check,), ordered=True)
def slerp(weights: list[float], gram: np.ndarray) -> list[float]:
    """Spherical interpolation of task vectors, one global angle, chained over more than two.

    V_(1..n) = f(V_(1..n−1), V_n, mean(a_1..a_{n−1}), a_n) with
    f(V_i, V_j, a_i, a_j) = [sin(a_j/(a_i+a_j)·α) V_i + sin(a_i/(a_i+a_j)·α) V_j] / sin α, α the angle between V_i and V_j.

    The weights are the a_i, all 1 when absent, and as printed in the paper: a larger a_i gives more to the OTHER vector. Vectors are not
    normalised, so norms are carried through: for orthogonal vectors and a = 1 it is 0.71 (V_1 + V_2), where the average is 0.5. With three or
    more vectors the order matters and the last one weighs most.

    Source: Li et al. 2024, arXiv 2410.15035, equations 4 and 9.
    Prefer it to the average when that has become too short, that is when the vectors are far from parallel.
    """
    return chain(gram, weights)


def chain(gram: np.ndarray, a: list[float]) -> list[float]:
    """The coefficients c with V_(1..N) = Σ c_i V_i, from the inner products (N, N) and the N parameters a.

    Raises nothing for opposite vectors (α = π), where the direction between them is not defined: their linear interpolation is taken.
    """
    count = len(a)
    coefficients = np.zeros(count)
    coefficients[0] = 1.0
    for n in range(1, count):
        earlier = math.fsum(a[:n]) / n
        share = a[n] / (earlier + a[n])  # of V_(1..n−1), as printed
        inner = float(coefficients @ gram[:, n])
        first, second = slerp_shares(
            float(coefficients @ gram @ coefficients), float(gram[n, n]), inner, 1 - share
        )
        coefficients *= first
        coefficients[n] = second
    return coefficients.tolist()
