from __future__ import annotations

from typing import Annotated

from selfpos.merging.matrices import is_matrix, mean, thin_svd, total
from selfpos.merging.registry import kernel
from selfpos.merging.stream import Array, Chunk, array_module


@kernel(reference="https://arxiv.org/abs/2502.04959", weighting="none", grain="matrix", holds=(11, 0))
def iso_c(chunk: Chunk, *, scale: Annotated[float, "α, the factor of the merged vector"] = 1.0) -> Array:
    """Isotropic merging in the common subspace: the sum of the vectors with all singular values made equal.

    Per matrix: Σ V_i = U diag(σ) Wᵀ, then V = α σ̄ U Wᵀ with σ̄ the mean of σ. Embeddings, norms and biases take α times the mean.

    Source: Marczak et al. 2025, arXiv 2502.04959, algorithm 1 (Iso-C). The best α depends on the number of tasks (1 to 2 in the paper).
    Prefer it when a few directions, shared by the larger vectors, drown the others.
    """
    if not is_matrix(chunk):
        return mean(chunk.vectors) * scale
    left, values, right = thin_svd(array_module(chunk.base), total(chunk.vectors))
    return left @ right * (scale * float(values.mean()))
