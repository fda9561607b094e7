"""Methods that look at data: Fisher-weighted merging and RegMean."""

from __future__ import annotations

from selfpos.merging.maths.matrices import as_double, as_single, diagonal, is_matrix, weighted_mean
from selfpos.merging.method import NotNegative, Share, kernel
from selfpos.merging.stream import Array, Chunk, array_module


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
    informations = chunk.probe.get("fisher")
    if informations is None:
        return weighted_mean(chunk.vectors, chunk.weights)
    merged, mass = chunk.base * 0.0, chunk.base * 0.0
    for vector, information, weight in zip(chunk.vectors, informations, chunk.weights, strict=True):
        share = (information + floor) * weight
        merged += vector * share
        mass += share
    unknown = mass == 0
    return merged / (mass + unknown) + weighted_mean(chunk.vectors, chunk.weights) * unknown


RIDGE = 1e-6
"""Of the mean diagonal element: directions that no probe input reaches stay at the mean."""


@kernel(
    reference="https://arxiv.org/abs/2212.09849",
    weighting="share",
    chunking="matrix",
    holds=(8, 6),
    probe=("gram",),
)
def regmean(chunk: Chunk, *, alpha: Share = 0.9) -> Array:
    """RegMean: each linear layer takes the weights that come nearest to all specialists' outputs on their
    inputs.

    For y = W x with G_i = mean of x xᵀ over the inputs x that the layer of specialist i gets for its task's
    probe
    records: W = (Σ w_i W_i G̃_i)(Σ w_i G̃_i)⁻¹, G̃ = α G + (1 − α) diag G, the minimiser of
    Σ w_i tr (W − W_i) G̃_i (W − W_i)ᵀ; what no input reaches stays at the mean. Embeddings, norms, biases and
    linear layers that the probe did not run take the mean Σ w_i V_i / Σ w_i.

    Args:
        alpha: factor of what is off the diagonal of each Gram matrix.

    Source: Jin et al. 2023, arXiv 2212.09849; their G_i are sums over inputs, so a task of long texts counts
    for more. Needs a probe set (its labels are not used), one forward pass over it by each specialist, and
    disk for the G_i (about a model each).
    Prefer it where the specialists see different inputs and a search is not wanted; its authors found it
    above plain and Fisher-weighted means. RegMean++ is not implemented: it wants each layer's inputs from the
    layers merged so far, a pass over the probe set for every layer.
    """
    mean = weighted_mean(chunk.vectors, chunk.weights)
    grams = chunk.probe.get("gram")
    if not is_matrix(chunk) or grams is None:
        return mean
    xp = array_module(chunk.base)
    inner: Array = 0.0
    offset = as_double(mean) * 0.0
    for vector, gram, weight in zip(chunk.vectors, grams, chunk.weights, strict=True):
        shrunk = as_double(gram) * (alpha * weight)
        diagonal(xp, shrunk)[:] = as_double(xp.diagonal(gram)) * weight
        inner = shrunk + inner
        offset += as_double(vector - mean) @ shrunk
    size = float(xp.trace(inner)) / len(inner)
    if size == 0:
        return mean
    diagonal(xp, inner)[:] += RIDGE * size
    return mean + as_single(xp.linalg.solve(inner, offset.T).T)
