"""Lengths and angles of task vectors from their inner products."""

from __future__ import annotations

import numpy as np


def norms_and_cosines(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms (N,) and cosines (N, N) from a Gram matrix (N, N). The cosine with a zero vector is 0, with itself 1."""
    norms = np.sqrt(np.clip(np.diag(gram), 0, None))
    products = np.outer(norms, norms)
    cosines = np.divide(gram, products, out=np.zeros_like(products), where=products > 0)
    np.fill_diagonal(cosines, 1.0)
    return norms, np.clip(cosines, -1.0, 1.0)
