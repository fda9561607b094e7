"""Sign election, which TIES introduced and DARE, DELLA and Breadcrumbs share."""

from __future__ import annotations

from selfpos.merging.stream import Array


def elect_and_join(vectors: list[Array], weights: list[float], normalize: bool) -> Array:
    """Per entry: the sign of Σ w_i V_i, then Σ w_i V_i / Σ |w_i| over the i whose w_i V_i has that sign, or Σ w_i V_i without `normalize`.

    Entries that are zero have no sign and no vote. Where no vector agrees, or the signs balance, the result is 0.
    """
    if any(weight != 1.0 for weight in weights):
        vectors = [vector * weight for vector, weight in zip(vectors, weights, strict=True)]
    total = vectors[0] + 0.0
    for vector in vectors[1:]:
        total += vector
    positive, negative = total > 0, total < 0
    joined = total * 0.0
    agreeing = joined + 0.0
    for vector, weight in zip(vectors, weights, strict=True):
        agrees = ((vector > 0) & positive) | ((vector < 0) & negative)
        joined += vector * agrees
        if normalize:
            agreeing += agrees * abs(weight)
    if normalize:
        agreeing += agreeing == 0  # nothing agreed there: 0 / 1
        joined /= agreeing
    return joined
