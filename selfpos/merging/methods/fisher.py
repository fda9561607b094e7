"""Fisher-weighted merging."""

from __future__ import annotations

from selfpos.merging.maths.matrices import weighted_mean
from selfpos.merging.method import NotNegative, kernel
from selfpos.merging.stream import Array, Chunk


@kernel(reference="https://arxiv.org/abs/2111.09832", weighting="share", probe=("fisher",))
def fisher(chunk: Chunk, *, floor: NotNegative = 1e-6) -> Array:
    """Fisher-weighted mean: at every weight, the specialists whose loss depends on it count for more.

    V = Σ w_i (F_i + ε) V_i / Σ w_i (F_i + ε), element by element, with F_i the diagonal of specialist i's
    empirical Fisher information on its task's probe records (see statistics.fisher), scaled to mean 1. Where
    no F_i is known, or all are 0 and so is ε, the mean Σ w_i V_i / Σ w_i.

    Args:
        floor: ε, added to every F_i, whose mean is 1.

    Source: Matena & Raffel 2022, arXiv 2111.09832; the w_i are its λ_i. Means of 1 because losses of
    different task types have different units.
    Needs a probe set, one backward pass over it by each specialist, and disk for the F_i (a model each).
    Prefer it when the tasks live in different weights, such as rows of the word embeddings. It does not see
    how weights act together: RegMean does.
    """
    known = chunk.probe.get("fisher")
    if known is None:
        return weighted_mean(chunk.vectors, chunk.weights)
    merged, mass = chunk.base * 0.0, chunk.base * 0.0
    for vector, information, weight in zip(chunk.vectors, known, chunk.weights, strict=True):
        share = (information + floor) * weight
        merged += vector * share
        mass += share
    unknown = mass == 0
    return merged / (mass + unknown) + weighted_mean(chunk.vectors, chunk.weights) * unknown
