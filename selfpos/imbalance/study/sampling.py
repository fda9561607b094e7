"""Random over- and undersampling by imbalanced-learn, and the streams of batches that training draws."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfpos.errors import SelfposError

Ints = NDArray[np.int64]


def oversample(labels: Ints, seed: int, ratio: float = 1.0) -> Ints:
    """Positions into `labels` after random oversampling until largest / smallest ≤ `ratio`.

    All originals come first, then the copies.
    """
    need_samplers()
    from imblearn.over_sampling import RandomOverSampler

    counts = np.bincount(labels)
    return _resampled(RandomOverSampler, labels, np.maximum(counts, round(counts.max() / ratio)), seed)


def undersample(labels: Ints, seed: int, ratio: float = 1.0) -> Ints:
    """Positions into `labels` after random undersampling until largest / smallest ≤ `ratio`."""
    need_samplers()
    from imblearn.under_sampling import RandomUnderSampler

    counts = np.bincount(labels)
    target = max(round(counts[counts > 0].min() * ratio), 1)
    return _resampled(RandomUnderSampler, labels, np.minimum(counts, target), seed)


def _resampled(sampler: Any, labels: Ints, sizes: Ints, seed: int) -> Ints:
    strategy = {int(label): int(sizes[label]) for label in np.unique(labels)}
    fitted = sampler(sampling_strategy=strategy, random_state=seed)
    fitted.fit_resample(np.arange(len(labels))[:, None], labels)
    return np.asarray(fitted.sample_indices_, dtype=np.int64)


def need_samplers() -> None:
    """Raise SelfposError when imbalanced-learn is not installed."""
    if find_spec("imblearn") is None:
        raise SelfposError(
            "over- and undersampling and SMOTE need imbalanced-learn; install it with: pip install "
            "'selfpos[imbalance]', from a checkout '.[imbalance]'"
        )


def stream(indices: Ints, batch: int, seed: int) -> Iterator[Ints]:
    """Endless batches of `batch` entries of `indices`, pass by shuffled pass; a batch may span two passes.

    So iterations and batch size are equal for all methods, even where undersampling leaves ten examples.
    """
    rng = np.random.default_rng([seed, 2])
    ahead = np.empty(0, dtype=np.int64)
    while True:
        while len(ahead) < batch:
            ahead = np.concatenate([ahead, rng.permutation(indices)])
        yield ahead[:batch]
        ahead = ahead[batch:]


def class_balanced_stream(indices: Ints, labels: Ints, batch: int, seed: int) -> Iterator[Ints]:
    """Endless batches that draw a class uniformly, then one of its examples; `labels` go with `indices`."""
    rng = np.random.default_rng([seed, 3])
    members = [indices[labels == label] for label in np.unique(labels)]
    sizes = np.array([len(group) for group in members])
    while True:
        classes = rng.integers(len(members), size=batch)
        offsets = (rng.random(batch) * sizes[classes]).astype(np.int64)
        yield np.array([members[c][o] for c, o in zip(classes, offsets, strict=True)], dtype=np.int64)
