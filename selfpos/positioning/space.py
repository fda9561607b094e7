"""The spaces of Self Positioning: how a few free parameters become the coefficients c_i of V_p = Σ c_i V_i.

Every space maps rows of parameters, float64 (G, P), one row for each group of tensors, and the Gram matrices of the task vectors over
those groups, (G, N, N), to coefficients (G, N), and is differentiable in the parameters. Nothing here touches a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfpos.errors import unknown

SMALLEST = 1e-3  # length below which vectors have cancelled each other, and nothing is divided by it
NEARLY_PARALLEL = 0.9995  # |cos| beyond which a SLERP becomes a LERP: sin α is then below .032 and divides


def chain(a: Tensor, gram: Tensor, *, through_angle: bool = True) -> Tensor:
    """Coefficients (…, N) of V_(1..N), the paper's chain of SLERPs (arXiv 2410.15035, equations 4 and 9), from a (…, N) and Gram (…, N, N).

    V_(1..n) = [sin(a_n/(ā+a_n)·α)·V_(1..n−1) + sin(ā/(ā+a_n)·α)·V_n] / sin α, where ā is the mean of a_1..a_{n−1} and α the angle between
    V_(1..n−1) and V_n; the vectors are not normalised, and the index order is the printed one: a larger a_n takes weight from V_n.
    α = arccos follows from the Gram matrix and the coefficients so far. A pair with |cos α| > .9995, or with a vector of length zero,
    is interpolated linearly by the same shares. `through_angle` decides whether α is differentiated too, or held fixed.
    """
    c = torch.ones_like(a[..., :1])
    for n in range(1, a.shape[-1]):
        left, right = a[..., :n].mean(-1), a[..., n]
        share = right / (left + right)
        inner = (c * gram[..., :n, n]).sum(-1)
        squared = torch.einsum("...i,...ij,...j->...", c, gram[..., :n, :n], c) * gram[..., n, n]
        empty = squared <= 0
        cosine = torch.where(
            empty,
            torch.zeros_like(squared),
            inner / torch.where(empty, torch.ones_like(squared), squared).sqrt(),
        )
        straight = empty | (cosine.abs() > NEARLY_PARALLEL)
        if not through_angle:
            cosine = cosine.detach()
        # where() passes gradients of both branches, so the branch not taken must be finite: a right angle stands in.
        angle = torch.arccos(torch.where(straight, torch.zeros_like(cosine), cosine))
        sine = torch.sin(angle)
        kept = torch.where(straight, share, torch.sin(share * angle) / sine)
        new = torch.where(straight, 1 - share, torch.sin((1 - share) * angle) / sine)
        c = torch.cat([c * kept.unsqueeze(-1), new.unsqueeze(-1)], -1)
    return c


def length(c: Tensor, gram: Tensor) -> Tensor:
    """λ of coefficients (…, N): sqrt(cᵀRc), R the cosines of the task vectors; the length of V_p counted in lengths of its parts.

    For orthogonal vectors it is the λ of the paper's spherical form, and like the coefficients it does not change when a vector is stretched.
    """
    norms = torch.diagonal(gram, dim1=-2, dim2=-1).clamp_min(0).sqrt()
    scaled = c * (norms > 0)
    safe = torch.where(norms > 0, norms, torch.ones_like(norms))
    cosines = gram / (safe.unsqueeze(-1) * safe.unsqueeze(-2))
    squared = torch.einsum("...i,...ij,...j->...", scaled, cosines, scaled)
    return torch.where(
        squared > 0,
        torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt(),
        torch.zeros_like(squared),
    )


@dataclass(frozen=True)
class Space:
    """One space: its parameters at the start, its map to coefficients, and the scale λ that the penalty μ·λ acts on."""

    name: str
    labels: Callable[[list[str]], list[str]]
    start: Callable[[Tensor], Tensor]
    coefficients: Callable[[Tensor, Tensor], Tensor]
    scale: Callable[[Tensor, Tensor], Tensor]
    positive: bool  # whether the parameters a_i only make sense above zero


def _ones_and_scale(gram: Tensor) -> Tensor:
    return torch.ones(1, gram.shape[-1] + 1, dtype=torch.float64)


def spherical(*, through_angle: bool = True, order: Sequence[int] | None = None) -> Space:
    """The paper's space: a_1..a_N and λ, V_p = λ·V_(1..N) (equations 9 and 10); all ones at the start."""

    def coefficients(rows: Tensor, gram: Tensor) -> Tensor:
        a, scale = rows[..., :-1], rows[..., -1:]
        if order is None:
            return scale * chain(a, gram, through_angle=through_angle)
        taken = torch.as_tensor(order)
        c = chain(a[..., taken], gram[..., taken, :][..., taken], through_angle=through_angle)
        return scale * c[..., torch.argsort(taken)]

    return Space(
        "spherical",
        lambda names: [*(f"a[{name}]" for name in names), "lambda"],
        _ones_and_scale,
        coefficients,
        lambda rows, gram: rows[..., -1],
        positive=True,
    )


def polar() -> Space:
    """The spherical space without the chain's order: c = λ·a / sqrt(aᵀRa), R the cosines. For N = 2 and a = 1 it equals the chain."""

    def coefficients(rows: Tensor, gram: Tensor) -> Tensor:
        direction = rows[..., :-1]
        size = length(direction, gram)
        return (
            rows[..., -1:]
            * direction
            / torch.where(size > SMALLEST, size, torch.ones_like(size)).unsqueeze(-1)
        )

    return Space(
        "polar",
        lambda names: [*(f"a[{name}]" for name in names), "lambda"],
        _ones_and_scale,
        coefficients,
        lambda rows, gram: rows[..., -1],
        positive=False,
    )


def linear() -> Space:
    """Free coefficients c_i of any sign; at the start all equal with λ = 1 (`polar` at a = 1), .5 each for four orthogonal vectors."""

    def start(gram: Tensor) -> Tensor:
        ones = torch.ones(1, gram.shape[-1], dtype=torch.float64)
        size = length(ones, gram)
        return ones / size.unsqueeze(-1) if float(size) > SMALLEST else ones / gram.shape[-1]

    return Space(
        "linear",
        lambda names: [f"c[{name}]" for name in names],
        start,
        lambda rows, gram: rows,
        length,
        positive=False,
    )


def simplex() -> Space:
    """Shares of one: c = softmax(a), all positive, Σ c_i = 1; an average at the start."""

    def start(gram: Tensor) -> Tensor:
        return torch.zeros(1, gram.shape[-1], dtype=torch.float64)

    def coefficients(rows: Tensor, gram: Tensor) -> Tensor:
        return torch.softmax(rows, -1)

    def scale(rows: Tensor, gram: Tensor) -> Tensor:
        return length(torch.softmax(rows, -1), gram)

    return Space(
        "simplex", lambda names: [f"a[{name}]" for name in names], start, coefficients, scale, positive=False
    )


def get_space(name: str, *, through_angle: bool = True, order: Sequence[int] | None = None) -> Space:
    """The space called `name`: spherical, polar, linear or simplex. `order` is the one in which the chain takes the vectors, if not theirs."""
    spaces: dict[str, Callable[[], Space]] = {
        "spherical": lambda: spherical(through_angle=through_angle, order=order),
        "polar": polar,
        "linear": linear,
        "simplex": simplex,
    }
    if name not in spaces:
        raise unknown("space", name, spaces)
    return spaces[name]()


def chain_order(gram: Tensor, order: str) -> list[int] | None:
    """The order of the chain by name: `given`, or by the vectors' lengths, `longest-first` or `shortest-first`."""
    if order == "given":
        return None
    lengths = torch.diagonal(gram).tolist()
    return sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=order == "longest-first")
