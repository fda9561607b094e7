"""Random over- and under-sampling (imbalanced-learn, positions only), and the streams of batches that
training draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from selfpos.errors import SelfposError

Ints = NDArray[np.int64]


def oversample(labels: Ints, seed: int, ratio: float = 1.0) -> Ints:
    """Positions into `labels` after random minority oversampling until largest / smallest ≤ `ratio`: all
    originals, then replicas.
    """
    counts = _counts(labels)
    target = round(max(counts.values()) / ratio)
    return _resample("over", labels, {label: max(count, target) for label, count in counts.items()}, seed)


def undersample(labels: Ints, seed: int, ratio: float = 1.0) -> Ints:
    """Positions into `labels` after random majority undersampling until largest / smallest ≤ `ratio`."""
    counts = _counts(labels)
    target = max(round(min(counts.values()) * ratio), 1)
    return _resample("under", labels, {label: min(count, target) for label, count in counts.items()}, seed)


def _counts(labels: Ints) -> dict[int, int]:
    return {
        int(label): int(count) for label, count in zip(*np.unique(labels, return_counts=True), strict=True)
    }


def _resample(kind: str, labels: Ints, strategy: dict[int, int], seed: int) -> Ints:
    need_samplers()
    from imblearn.over_sampling import RandomOverSampler
    from imblearn.under_sampling import RandomUnderSampler

    sampler = (RandomOverSampler if kind == "over" else RandomUnderSampler)(
        sampling_strategy=strategy, random_state=seed
    )
    sampler.fit_resample(np.arange(len(labels))[:, None], labels)
    return np.asarray(sampler.sample_indices_, dtype=np.int64)


def need_samplers() -> None:
    """Raise SelfposError when imbalanced-learn is not installed."""
    if find_spec("imblearn") is None:
        raise SelfposError(
            "over- and undersampling and SMOTE need imbalanced-learn; install it with: pip install "
            "'selfpos[imbalance]', from a checkout '.[imbalance]'"
        )


def stream(indices: Ints, batch: int, seed: int) -> Iterator[Ints]:
    """Batches of `batch` entries of `indices`, for ever: one shuffled pass after the other, a batch may reach
    into the next pass.

    That keeps the number of iterations and the batch size equal for all methods, even where undersampling
    leaves ten examples.
    """
    rng = np.random.default_rng([seed, 2])
    ahead = np.empty(0, dtype=np.int64)
    while True:
        while len(ahead) < batch:
            ahead = np.concatenate([ahead, rng.permutation(indices)])
        yield ahead[:batch]
        ahead = ahead[batch:]


def class_balanced_stream(indices: Ints, labels: Ints, batch: int, seed: int) -> Iterator[Ints]:
    """Batches for ever in which every example's class is drawn uniformly, then the example from that class.

    `labels` go with `indices`.
    """
    rng = np.random.default_rng([seed, 3])
    members = [indices[labels == label] for label in np.unique(labels)]
    while True:
        classes = rng.integers(len(members), size=batch)
        places = (rng.random(batch) * np.array([len(m) for m in members])[classes]).astype(np.int64)
        yield np.array([members[c][p] for c, p in zip(classes, places, strict=True)], dtype=np.int64)
