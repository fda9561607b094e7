"""Gradient products and the conflict measured from them, on gradients that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfpos.analysis.gradients import gradient_products, pair_conflicts, passes, task_gradients
from selfpos.errors import SelfposError


def quadratics(count: int = 5) -> tuple[dict[str, nn.Parameter], list, list[dict[str, np.ndarray]]]:
    """Losses ½‖a − A‖² + ½‖b − B‖² with random targets; their gradients a − A and b − B; tensor c is reached
    by none.
    """
    generator = torch.Generator().manual_seed(0)
    parameters = {
        "a": nn.Parameter(torch.randn(3, 4, generator=generator)),
        "b": nn.Parameter(torch.randn(7, generator=generator)),
        "c": nn.Parameter(torch.zeros(2)),
    }
    targets = [
        {key: torch.randn(parameters[key].shape, generator=generator) for key in "ab"} for _ in range(count)
    ]

    def loss_of(target: dict[str, Tensor]):
        return lambda: sum(0.5 * (parameters[key] - value).square().sum() for key, value in target.items())

    known = [
        {key: (parameters[key] - value).detach().double().numpy().ravel() for key, value in target.items()}
        for target in targets
    ]
    return parameters, [loss_of(target) for target in targets], known


@pytest.mark.parametrize("memory", [4, 40, 100, 1 << 20])
def test_products_are_those_of_the_known_gradients_whatever_the_memory(memory: int) -> None:
    parameters, losses, known = quadratics()
    calls: list[int] = []
    found = gradient_products(parameters, losses, memory=memory, after_pass=lambda: calls.append(1))
    for key in "ab":
        rows = np.stack([gradient[key] for gradient in known])
        np.testing.assert_allclose(found[key], rows @ rows.T, rtol=1e-5)
    assert not found["c"].any()
    assert len(calls) == 5 * len(passes({"a": 12, "b": 7, "c": 2}, 5, memory))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in parameters.values())


def test_passes_hold_no_more_than_the_memory_and_cover_everything() -> None:
    found = passes({"a": 12, "b": 7, "c": 2}, 5, 100)
    assert found == [
        [("a", 0, 5)],
        [("a", 5, 10)],
        [("a", 10, 12), ("b", 0, 3)],
        [("b", 3, 7), ("c", 0, 1)],
        [("c", 1, 2)],
    ]
    assert all(sum(4 * 5 * (stop - start) for _, start, stop in parts) <= 100 for parts in found)


def test_a_loss_that_is_not_finite_is_named() -> None:
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(SelfposError, match="a loss is nan"):
        gradient_products({"w": weight}, [lambda: weight.sum() * torch.nan])


def batches(
    cosine: float, noise: float, count: int, seed: int, size: int = 400
) -> tuple[np.ndarray, list[str]]:
    """Inner products of noisy batches of two tasks whose unit gradients have the cosine asked for."""
    draw = np.random.default_rng(seed)
    first, second = np.zeros(size), np.zeros(size)
    first[0], second[0], second[1] = 1, cosine, np.sqrt(1 - cosine**2)
    rows = np.stack(
        [
            gradient + noise * draw.standard_normal(size) / np.sqrt(size)
            for gradient in (first, second)
            for _ in range(count)
        ]
    )
    return rows @ rows.T, ["first"] * count + ["second"] * count


def test_without_noise_the_cosine_is_exact() -> None:
    (pair,) = pair_conflicts(*batches(-0.5, 0, 3, 0))
    assert pair.cosine == pytest.approx(-0.5)
    assert pair.raw_cosine == pytest.approx(-0.5)
    assert (pair.share, pair.conflicting) == (1.0, True)
    assert (pair.low, pair.high) == (pytest.approx(-0.5), pytest.approx(-0.5))


def test_noise_shrinks_the_raw_cosine_but_not_the_estimate() -> None:
    found = [pair_conflicts(*batches(-0.5, 2, 8, seed))[0] for seed in range(100)]
    # each squared length is 1 + 4/8, so the raw cosine is −0.5/1.5
    assert np.mean([pair.raw_cosine for pair in found]) == pytest.approx(-1 / 3, abs=0.02)
    assert np.mean([pair.cosine for pair in found]) == pytest.approx(-0.5, abs=0.03)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = [
        pair.low <= -0.3 <= pair.high
        for seed in range(200)
        for pair in pair_conflicts(*batches(-0.3, 1.5, 8, seed))
    ]
    assert 0.88 <= np.mean(held) <= 1.0


def test_independent_tasks_are_rarely_called_conflicting() -> None:
    assert (
        np.mean([pair_conflicts(*batches(0.0, 1.5, 8, seed))[0].conflicting for seed in range(200)]) <= 0.06
    )


def test_strength_and_signal_of_a_gradient() -> None:
    found = [task_gradients(*batches(0.2, 2, 8, seed))["second"] for seed in range(100)]
    assert np.mean([one.norm for one in found]) == pytest.approx(1, abs=0.05)
    assert np.mean([one.signal for one in found]) == pytest.approx(1 / 5, abs=0.02)


def test_a_gradient_lost_in_noise_gives_no_cosine() -> None:
    gram = np.eye(4)
    gram[0, 1] = gram[1, 0] = -0.1  # two batches of one task that point apart
    (pair,) = pair_conflicts(gram, ["a", "a", "b", "b"])
    assert (pair.cosine, pair.low, pair.conflicting) == (None, None, False)


def test_uneven_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="same number of batches"):
        pair_conflicts(np.eye(3), ["a", "a", "b"])
