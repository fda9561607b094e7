"""Global contrast normalisation and ZCA whitening as pylearn2's CIFAR-10 script had them, which All-CNN was
trained on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def contrast_normalise(images: NDArray, scale: float = 55.0) -> NDArray[np.float32]:
    """Per image: subtract its mean over all values, divide by its L2 norm, times `scale`. images (n, …) → (n,
    features) float32.
    """
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return (flat * (scale / np.where(norms < 1e-8, 1.0, norms))).astype(np.float32, copy=False)


def fit_zca(flat: NDArray[np.float32], ridge: float = 0.1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (features,) and whitening matrix (features, features) of `flat` (n, features): V diag((λ +
    ridge)^−½) Vᵀ of XᵀX/n, in float64.
    """
    mean = flat.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((flat.shape[1], flat.shape[1]))
    for start in range(0, len(flat), 4096):
        block = flat[start : start + 4096].astype(np.float64) - mean
        covariance += block.T @ block
    values, vectors = np.linalg.eigh(covariance / len(flat) + ridge * np.eye(flat.shape[1]))
    return mean.astype(np.float32), ((vectors / np.sqrt(values)) @ vectors.T).astype(np.float32)


def whiten(train: NDArray, test: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Normalise and whiten both sets, in their own shapes, with the statistics of all of `train`."""
    flat = contrast_normalise(train)
    mean, matrix = fit_zca(flat)

    def apply(images: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        return ((images - mean) @ matrix).reshape(shape).astype(np.float32, copy=False)

    return apply(flat, train.shape), apply(contrast_normalise(test), test.shape)
