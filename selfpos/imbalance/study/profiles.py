"""How many examples each class keeps, which classes are the small ones, and which examples those are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selfpos.errors import SelfposError

Profile = Literal["step", "linear", "exp", "balanced"]
Minority = Literal["random", "lowest", "highest"] | tuple[int, ...]
Ints = NDArray[np.int64]


def place_of(profile: str, rho: float, mu: float | None) -> str:
    """A point of the grid in words."""
    return f"{profile} ρ={rho:g}" + ("" if mu is None else f" μ={mu:g}")


def class_sizes(
    profile: Profile, classes: int, n_max: int, rho: float = 1.0, mu: float | None = None
) -> Ints:
    """Class sizes in ascending order, shape (classes,), for imbalance ratio `rho` = largest / smallest.

    step: round(mu · classes) classes of n_max/rho, the others of n_max. linear: equally spaced from n_max/rho
    to n_max. exp: n_max · rho^(−i/(classes − 1)), as the long-tail literature has it. balanced: n_max
    everywhere. Sizes are rounded half to even and kept at 1 or more (the paper states no rule). Raises
    SelfposError for impossible values.
    """
    if classes < 2 or n_max < 1 or not 1 <= rho < np.inf:
        raise SelfposError(
            f"imbalance needs 2 classes or more, n_max ≥ 1 and rho ≥ 1; found {classes} classes, n_max "
            f"{n_max}, rho {rho:g}"
        )
    if (profile == "step") != (mu is not None):
        raise SelfposError(
            f"mu belongs to profile step, and step needs it; found profile {profile} with mu {mu}"
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
    """How many classes form the minority group: round(mu · classes); without `mu` (linear, exp) the smaller
    half.
    """
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
    """All classes, those that become small first. With one seed the minorities of different `mu` are nested.

    random: a permutation drawn from `seed`, in which the `scarce` classes (those too small to be of the
    majority) come first; lowest / highest: by label; a list: these first, then the others by label.
    """
    if isinstance(minority, str):
        if minority == "random":
            drawn = np.random.default_rng([seed, 0]).permutation(classes)
            first = np.isin(drawn, scarce if scarce is not None else [])
            return np.concatenate([drawn[first], drawn[~first]])
        ascending = np.arange(classes)
        return ascending if minority == "lowest" else ascending[::-1].copy()
    given = [int(label) for label in minority]
    if len(set(given)) != len(given) or any(not 0 <= label < classes for label in given):
        raise SelfposError(
            f"the list of minority classes must hold different labels from 0 to {classes - 1}, found {given}"
        )
    return np.array(given + [label for label in range(classes) if label not in given], dtype=np.int64)


def sizes_by_class(sizes: Ints, order: Ints) -> Ints:
    """Class sizes by label: the class order[i] gets the i-th smallest of `sizes`."""
    counts = np.empty_like(sizes)
    counts[order] = sizes
    return counts


def class_permutations(labels: Ints, classes: int, seed: int) -> list[Ints]:
    """For every class its examples' positions in an order drawn from `seed`: prefixes are subsets, nested
    over all ratios.
    """
    return [
        np.random.default_rng([seed, 1, label]).permutation(np.flatnonzero(labels == label))
        for label in range(classes)
    ]


def subset(permutations: Sequence[Ints], counts: Ints, *, reserve: int = 0) -> Ints:
    """Positions of the first counts[c] examples of every class c, class by class.

    The last `reserve` examples of each class are kept back for validation. Raises SelfposError when a class
    has too few.
    """
    refuse_scarcity(np.array([len(members) for members in permutations]), counts, reserve)
    return np.concatenate([members[:count] for members, count in zip(permutations, counts, strict=True)])


def refuse_scarcity(available: Ints, counts: Ints, reserve: int) -> None:
    """Raise SelfposError when a class has fewer examples than its count and `reserve` for validation."""
    for label, (found, count) in enumerate(zip(available, counts, strict=True)):
        if found - reserve < count:
            raise SelfposError(
                f"class {label} has {found} training examples, but {count} and {reserve} for validation were "
                "asked; lower n_max or validation"
            )


def validation_subset(permutations: Sequence[Ints], reserve: int) -> Ints:
    """The last `reserve` examples of every class, which `subset` with the same reserve never touches."""
    return np.concatenate([members[len(members) - reserve :] for members in permutations])
