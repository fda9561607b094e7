"""The spaces against closed forms in float64, and against SLERP carried out on real vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpos.errors import SelfposError
from selfpos.positioning.space import chain, get_space, length


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def slerp_as_printed(vi: np.ndarray, vj: np.ndarray, ai: float, aj: float) -> np.ndarray:
    """Equation 4, on vectors, with the LERP fallback."""
    cosine = vi @ vj / np.linalg.norm(vi) / np.linalg.norm(vj)
    if abs(cosine) > 0.9995:
        return aj / (ai + aj) * vi + ai / (ai + aj) * vj
    angle = np.arccos(cosine)
    return (np.sin(aj / (ai + aj) * angle) * vi + np.sin(ai / (ai + aj) * angle) * vj) / np.sin(angle)


def chain_as_printed(vectors: np.ndarray, a: list[float]) -> np.ndarray:
    """Equation 9, on vectors."""
    merged = vectors[0]
    for n in range(1, len(a)):
        merged = slerp_as_printed(merged, vectors[n], float(np.mean(a[:n])), a[n])
    return merged


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, [0.5**0.5] * 2), (3, [0.5, 0.5, 0.5**0.5]), (4, [0.125**0.5, 0.125**0.5, 0.5, 0.5**0.5])],
)
def test_orthonormal_vectors_at_the_start(count: int, expected: list[float]) -> None:
    c = chain(torch.ones(count, dtype=torch.float64), torch.eye(count, dtype=torch.float64))
    assert c.tolist() == pytest.approx(expected, abs=1e-12)


def test_two_vectors_at_an_angle() -> None:
    # |V1| = 2, |V2| = 3, 60 degrees; a = (1, 2): shares 2/3 of the angle to V1's coefficient
    angle = math.pi / 3
    gram = torch.tensor([[4, 6 * math.cos(angle)], [6 * math.cos(angle), 9]], dtype=torch.float64)
    c = chain(f64(1, 2), gram)
    assert c.tolist() == pytest.approx(
        [math.sin(2 / 3 * angle) / math.sin(angle), math.sin(1 / 3 * angle) / math.sin(angle)], abs=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_chain_equals_slerp_of_vectors(count: int, seed: int, common: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 12)) * rng.uniform(0.5, 3, size=(count, 1)) + common * 3 * rng.normal(
        size=12
    )
    a = rng.uniform(0.2, 3, size=count)
    c = chain(torch.tensor(a), torch.tensor(vectors @ vectors.T))
    np.testing.assert_allclose(
        c.numpy() @ vectors, chain_as_printed(vectors, a.tolist()), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_parallel_vectors_are_interpolated_linearly(sign: float) -> None:
    vectors = np.array([[1.0, 0, 0], [sign, 0.01, 0]])
    a = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    c = chain(a, torch.tensor(vectors @ vectors.T))
    assert c.tolist() == pytest.approx([0.75, 0.25])
    c[0].backward()
    assert torch.isfinite(a.grad).all()


def test_zero_vector_does_not_spoil_the_rest() -> None:
    gram = torch.diag(f64(1, 0, 1))
    a = torch.ones(3, dtype=torch.float64, requires_grad=True)
    c = chain(a, gram)
    c.sum().backward()
    assert torch.isfinite(c).all()
    assert torch.isfinite(a.grad).all()
    assert c[1].item() == pytest.approx(0.5 * 0.5**0.5)


def test_solutions_read_off_the_papers_figures() -> None:
    # reference: direction a1/(a1+a2) and λ; English separate .566 / 1.06 is about .67 V_STS + .82 V_Ret,
    # Chinese .803 / 1.10 about .34 and 1.05
    space = get_space("spherical")
    for share, scale, expected in [(0.566, 1.06, (0.67, 0.82)), (0.803, 1.10, (0.34, 1.05))]:
        c = space.coefficients(f64(share, 1 - share, scale).unsqueeze(0), torch.eye(2, dtype=torch.float64))
        assert c[0].tolist() == pytest.approx(expected, abs=0.01)


def random_gram(count: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(count, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.4
    return vectors @ vectors.T


@pytest.mark.parametrize("name", ["spherical", "linear"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_derivatives_are_exact(name: str, count: int) -> None:
    space, gram = get_space(name), random_gram(count)
    rows = space.start(gram) + 0.3 * torch.rand(
        space.start(gram).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    rows.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: space.coefficients(x, gram), rows)
    assert torch.autograd.gradcheck(lambda x: space.scale(x, gram), rows)


def test_the_chain_depends_on_order() -> None:
    a, gram = torch.ones(3, dtype=torch.float64), random_gram(3)
    order = [2, 0, 1]
    assert not torch.allclose(chain(a[order], gram[order][:, order]), chain(a, gram)[order], atol=1e-3)


@pytest.mark.parametrize("count", [1, 2])
def test_both_spaces_start_at_one_point_for_one_and_two_vectors(count: int) -> None:
    gram = random_gram(count, seed=5)
    spherical = get_space("spherical")
    expected = spherical.coefficients(spherical.start(gram), gram)
    assert torch.allclose(get_space("linear").start(gram), expected, atol=1e-12)


def test_vectors_that_cancel_start_at_their_average() -> None:
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    assert get_space("linear").start(opposite).tolist() == [[0.5, 0.5]]


def test_length_is_lambda_and_ignores_how_long_vectors_are() -> None:
    gram = torch.diag(f64(1, 4, 9))
    space = get_space("spherical")
    c = space.coefficients(f64(0.3, 2, 1, 1.25).unsqueeze(0), torch.eye(3, dtype=torch.float64))
    assert length(c, gram).item() == pytest.approx(1.25)


def test_unknown_space_names_the_nearest() -> None:
    with pytest.raises(SelfposError, match="did you mean 'spherical'"):
        get_space("sphericl")
