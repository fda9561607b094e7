"""How many examples each class keeps, which classes are the small ones, and which examples those are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selfpos.errors import SelfposError

Profile = Literal["step", "linear", "exp", "balanced"]
Minority = Literal["random", "lowest"]
Ints = NDArray[np.int64]


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
            f"mu {mu:g} leaves {count} of {classes} classes in the minority; it must leave at least one on "
            "each side"
        )
    return count


def class_order(minority: Minority, classes: int, seed: int, scarce: Ints | None = None) -> Ints:
    """All classes, those that become small first: by label (lowest), or drawn from `seed` (random).

    Among drawn ones the `scarce` classes come first: they are too small for the majority. The minorities of
    one seed are nested over `mu`.
    """
    if minority == "lowest":
        return np.arange(classes)
    drawn = np.random.default_rng([seed, 0]).permutation(classes)
    first = np.isin(drawn, scarce if scarce is not None else [])
    return np.concatenate([drawn[first], drawn[~first]])


def sizes_by_class(sizes: Ints, order: Ints) -> Ints:
    """Class sizes by label: the class order[i] gets the i-th smallest of `sizes`."""
    counts = np.empty_like(sizes)
    counts[order] = sizes
    return counts


def class_permutations(labels: Ints, classes: int, seed: int) -> list[Ints]:
    """The positions of each class's examples, shuffled by `seed`; prefixes are nested over all ratios."""
    return [
        np.random.default_rng([seed, 1, label]).permutation(np.flatnonzero(labels == label))
        for label in range(classes)
    ]


def subset(permutations: Sequence[Ints], counts: Ints, *, reserve: int = 0) -> Ints:
    """Positions of the first counts[c] examples of every class c, class by class.

    The last `reserve` examples of each class are kept for validation.
    """
    check_available(np.array([len(members) for members in permutations]), counts, reserve)
    return np.concatenate([members[:count] for members, count in zip(permutations, counts, strict=True)])


def check_available(available: Ints, counts: Ints, reserve: int) -> None:
    """Raise SelfposError when a class has fewer examples than its count and `reserve` for validation."""
    for label, (examples, count) in enumerate(zip(available, counts, strict=True)):
        if examples - reserve < count:
            raise SelfposError(
                f"class {label} has {examples} training examples, but needs {count} and {reserve} for "
                "validation; lower n_max or validation"
            )
