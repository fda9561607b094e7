"""Training sets: class sizes, which classes are small, which examples they keep, resampling, and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from selfpos.errors import SelfposError

Profile = Literal["step", "linear", "exp", "balanced"]
Minority = Literal["random", "lowest"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Streams = Sequence[Iterator[Ints]]  # of batches of positions, one for each network


def setting_name(profile: str, rho: float, mu: float | None) -> str:
    """A setting of the grid in words."""
    return f"{profile} ρ={rho:g}" + ("" if mu is None else f" μ={mu:g}")


def class_sizes(
    profile: Profile, classes: int, n_max: int, rho: float = 1.0, mu: float | None = None
) -> Ints:
    """Class sizes in ascending order, shape (classes,), for imbalance ratio `rho` = largest / smallest.

    step: round(mu · classes) classes of n_max/rho, the others of n_max. linear: equally spaced from n_max/rho
    to n_max. exp: n_max · rho^(−i/(classes − 1)), the long-tail profile. balanced: n_max everywhere. Sizes
    are rounded half to even, and at least 1 (the paper states no rule).
    """
    if classes < 2 or n_max < 1 or not 1 <= rho < np.inf:
        raise SelfposError(
            f"imbalance needs 2 classes or more, n_max ≥ 1 and rho ≥ 1; found {classes} classes, n_max "
            f"{n_max}, rho {rho:g}"
        )
    small = n_max / rho
    if profile == "balanced":
        sizes = np.full(classes, float(n_max))
    elif profile == "linear":
        sizes = np.linspace(small, n_max, classes)
    elif profile == "exp":
        sizes = n_max * rho ** (-np.arange(classes)[::-1] / (classes - 1))
    else:
        sizes = np.where(np.arange(classes) < minority_count(classes, mu), small, n_max)
    return np.maximum(np.rint(sizes), 1).astype(np.int64)


def minority_count(classes: int, mu: float | None) -> int:
    """The number of minority classes: round(mu · classes), or half of them without `mu` (linear, exp)."""
    if mu is None:
        return classes // 2
    count = round(mu * classes) if 0 < mu < 1 else 0
    if not 0 < count < classes:
        raise SelfposError(
            f"mu {mu:g} leaves {count} of {classes} classes in the minority; both sides need at least one"
        )
    return count


def class_order(minority: Minority, classes: int, seed: int, scarce: Sequence[int] | Ints = ()) -> Ints:
    """All classes, those that become small first: by label (lowest), or drawn from `seed` (random).

    `scarce` classes, too small for the majority, come first. Minorities of a seed are nested over `mu`.
    """
    if minority == "lowest":
        return np.arange(classes)
    drawn = np.random.default_rng([seed, 0]).permutation(classes)
    first = np.isin(drawn, scarce)
    return np.concatenate([drawn[first], drawn[~first]])


def sizes_by_class(sizes: Ints, order: Ints) -> Ints:
    """Class sizes by label: the class order[i] gets the i-th smallest of `sizes`."""
    return sizes[np.argsort(order)]


def class_permutations(labels: Ints, classes: int, seed: int) -> list[Ints]:
    """The positions of each class's examples, shuffled by `seed`; prefixes are nested over all ratios."""
    members = [np.flatnonzero(labels == label) for label in range(classes)]
    return [np.random.default_rng([seed, 1, c]).permutation(indices) for c, indices in enumerate(members)]


def subset(permutations: Sequence[Ints], counts: Ints) -> Ints:
    """Positions of the first counts[c] examples of every class c, class by class."""
    return np.concatenate([members[:count] for members, count in zip(permutations, counts, strict=True)])


def oversample(labels: Ints, seed: int, ratio: float = 1.0) -> Ints:
    """Positions into `labels` after random oversampling until largest / smallest ≤ `ratio`; copies last."""
    from imblearn.over_sampling import RandomOverSampler

    counts = np.bincount(labels)
    return _resampled(RandomOverSampler, labels, np.maximum(counts, round(counts.max() / ratio)), seed)


def undersample(labels: Ints, seed: int, ratio: float = 1.0) -> Ints:
    """Positions into `labels` after random undersampling until largest / smallest ≤ `ratio`."""
    from imblearn.under_sampling import RandomUnderSampler

    counts = np.bincount(labels)
    target = max(round(counts[counts > 0].min() * ratio), 1)
    return _resampled(RandomUnderSampler, labels, np.minimum(counts, target), seed)


def _resampled(sampler: Any, labels: Ints, sizes: Ints, seed: int) -> Ints:
    strategy = {int(label): int(sizes[label]) for label in np.unique(labels)}
    fitted = sampler(sampling_strategy=strategy, random_state=seed)
    fitted.fit_resample(np.arange(len(labels))[:, None], labels)
    return np.asarray(fitted.sample_indices_, dtype=np.int64)


def stream(indices: Ints, batch: int, seed: int) -> Iterator[Ints]:
    """Endless batches of entries of `indices`, pass by shuffled pass; a batch may span two passes."""
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
