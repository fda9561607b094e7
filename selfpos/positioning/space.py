"""The spaces of Self Positioning: how a few free parameters become the coefficients c_i of V_p = Σ c_i V_i.

A space maps rows of parameters, float64 (G, P), one row for each group of tensors, and the Gram matrix of the
task vectors, (N, N), to coefficients (G, N), differentiably. Nothing here touches a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from selfpos.errors import unknown

SMALLEST = 1e-3  # length below which vectors have cancelled each other, and nothing is divided by it
NEARLY_PARALLEL = 0.9995  # |cos α| beyond which a SLERP becomes a LERP: sin α is then below .032 and divides


def chain(a: Tensor, gram: Tensor) -> Tensor:
    """Coefficients (…, N) of the paper's chain of SLERPs, from a (…, N) and the Gram matrix (…, N, N).

    V_(1..n) = [sin(a_n/(ā+a_n)·α)·V_(1..n−1) + sin(ā/(ā+a_n)·α)·V_n] / sin α (arXiv 2410.15035, equations 4
    and 9), where ā is the mean of a_1..a_{n−1} and α, differentiated as well, the angle between V_(1..n−1)
    and V_n. The index order is the printed one: a larger a_n takes weight from V_n. A pair with |cos α| >
    .9995, or with a vector of length zero, is interpolated linearly by the same shares.
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
        # where() passes gradients of both branches, so the unused one must be finite: a right angle stands in
        angle = torch.arccos(torch.where(straight, torch.zeros_like(cosine), cosine))
        sine = torch.sin(angle)
        kept = torch.where(straight, share, torch.sin(share * angle) / sine)
        new = torch.where(straight, 1 - share, torch.sin((1 - share) * angle) / sine)
        c = torch.cat([c * kept.unsqueeze(-1), new.unsqueeze(-1)], -1)
    return c


def length(c: Tensor, gram: Tensor) -> Tensor:
    """λ of coefficients (…, N): sqrt(cᵀRc), R the cosines of the task vectors.

    It counts the length of V_p in lengths of its parts. For orthogonal vectors it is the λ of the paper's
    spherical form; like the coefficients it does not change when a vector is stretched.
    """
    norms = torch.diagonal(gram, dim1=-2, dim2=-1).clamp_min(0).sqrt()
    scaled = c * (norms > 0)
    safe = torch.where(norms > 0, norms, torch.ones_like(norms))
    cosines = gram / (safe.unsqueeze(-1) * safe.unsqueeze(-2))
    squared = torch.einsum("...i,...ij,...j->...", scaled, cosines, scaled)
    # the root of zero has no gradient, so it is never taken
    root = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt()
    return torch.where(squared > 0, root, torch.zeros_like(squared))


@dataclass(frozen=True)
class Space:
    """One space: its start, its map to coefficients, and the scale λ that the penalty μ·λ acts on."""

    labels: Callable[[list[str]], list[str]]
    start: Callable[[Tensor], Tensor]
    coefficients: Callable[[Tensor, Tensor], Tensor]
    scale: Callable[[Tensor, Tensor], Tensor]


def _linear_start(gram: Tensor) -> Tensor:
    """Equal coefficients with λ = 1: .5 for four orthogonal vectors; an average if vectors cancel."""
    ones = torch.ones(1, gram.shape[-1], dtype=torch.float64)
    size = length(ones, gram)
    if float(size) > SMALLEST:
        return ones / size.unsqueeze(-1)
    return ones / gram.shape[-1]


SPACES = {
    # the paper's: a_1..a_N and λ, V_p = λ·V_(1..N) (equations 9 and 10), from all ones
    "spherical": Space(
        labels=lambda names: [*(f"a[{name}]" for name in names), "lambda"],
        start=lambda gram: torch.ones(1, gram.shape[-1] + 1, dtype=torch.float64),
        coefficients=lambda rows, gram: rows[..., -1:] * chain(rows[..., :-1], gram),
        scale=lambda rows, gram: rows[..., -1],
    ),
    # free coefficients of any sign
    "linear": Space(
        labels=lambda names: [f"c[{name}]" for name in names],
        start=_linear_start,
        coefficients=lambda rows, gram: rows,
        scale=length,
    ),
}


def get_space(name: str) -> Space:
    """The space called `name`: spherical or linear."""
    if name not in SPACES:
        raise unknown("space", name, SPACES)
    return SPACES[name]
