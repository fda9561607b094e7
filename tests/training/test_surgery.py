from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfpos.recipe import MixtureSettings, TrainingSettings
from selfpos.training.surgery import Surgery, inner_products, pcgrad_weights
from tests.helpers.trainings import run


def brute_force(gradients: np.ndarray, orders: list[list[int]]) -> np.ndarray:
    """Algorithm 1 of Yu et al., on whole vectors in float64."""
    total = np.zeros(gradients.shape[1])
    for task, order in enumerate(orders):
        own = gradients[task].copy()
        for other in order:
            if other != task and own @ gradients[other] < 0:
                own -= own @ gradients[other] / (gradients[other] @ gradients[other]) * gradients[other]
        total += own
    return total


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 10**6))
def test_the_weights_make_the_sum_that_projecting_whole_vectors_makes(
    tasks: int, size: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    gradients = draw.normal(size=(tasks, size)) + draw.normal(size=size) * draw.choice([0, 1])
    orders = [draw.permutation(tasks).tolist() for _ in range(tasks)]
    weights = pcgrad_weights(gradients @ gradients.T, orders)
    np.testing.assert_allclose(
        weights @ gradients, brute_force(gradients, orders), atol=1e-8 * (1 + np.abs(gradients).sum())
    )


def test_closed_forms() -> None:
    a, b = np.array([1.0, 0.0]), np.array([-1.0, 1.0])
    apart = np.stack([a, b]) @ np.stack([a, b]).T
    # a − ⟨a,b⟩/‖b‖² b = (½, ½), b − ⟨b,a⟩ a = (0, 1)
    np.testing.assert_allclose(pcgrad_weights(apart, [[1], [0]]) @ np.stack([a, b]), [0.5, 1.5])
    np.testing.assert_array_equal(pcgrad_weights(np.eye(3), [[0, 1, 2]] * 3), [1, 1, 1])  # nothing conflicts
    np.testing.assert_array_equal(
        pcgrad_weights(np.array([[1.0, -1.0], [-1.0, 1.0]]), [[1], [0]]), [2, 2]
    )  # opposite: g − (−1)·(−g) twice, 0
    np.testing.assert_array_equal(pcgrad_weights(np.zeros((2, 2)), [[1], [0]]), [1, 1])  # no gradient at all


def test_gradients_are_gathered_over_parameters_that_some_tasks_do_not_touch() -> None:
    parameters = [
        torch.nn.Parameter(torch.zeros(2)),
        torch.nn.Parameter(torch.zeros(2, 2)),
        torch.nn.Parameter(torch.zeros(1)),
    ]
    given_gradients: list[list[torch.Tensor | None]] = [
        [torch.tensor([1.0, -2.0]), None, None],
        [torch.tensor([-1.0, 1.0]), torch.tensor([[1.0, 0.0], [0.5, 1.0]]), None],
        [None, torch.tensor([[-3.0, 1.0], [0.0, -1.0]]), None],
    ]
    flat = np.stack(
        [
            np.concatenate(
                [
                    np.zeros(size) if g is None else g.double().numpy().ravel()
                    for g, size in zip(task, (2, 4, 1), strict=True)
                ]
            )
            for task in given_gradients
        ]
    )
    np.testing.assert_allclose(inner_products(given_gradients), flat @ flat.T)
    surgery = Surgery(parameters, seed=4)
    for number, task in enumerate(given_gradients):
        for parameter, gradient in zip(parameters, task, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        if number < 2:
            surgery.set_aside()
            assert all(parameter.grad is None for parameter in parameters)
    surgery.operate(step=7)
    found = np.concatenate(
        [np.zeros(p.numel()) if p.grad is None else p.grad.numpy().ravel() for p in parameters]
    )
    every_order = [
        brute_force(flat, list(orders))
        for orders in itertools.product(map(list, itertools.permutations(range(3))), repeat=3)
    ]
    assert min(np.abs(found - expected).max() for expected in every_order) < 1e-6
    assert parameters[2].grad is None


def test_a_step_of_a_joint_training_is_that_of_projected_gradients(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients that the optimizer sees, against those of each task's own batch put together by hand in
    float64."""
    from selfpos.training.trainer import Trainer

    tasks = ("retrieval", "classification", "sts")
    seen: list[np.ndarray] = []
    inside = Trainer.training_step

    def flat(model: torch.nn.Module) -> np.ndarray:
        return np.concatenate(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).double().numpy().ravel()
                for p in model.parameters()
            ]
        )

    def spy(self: Trainer, model: torch.nn.Module, inputs: dict, *args: object) -> torch.Tensor:
        single: list[np.ndarray] = []
        take = Surgery._take

        def noting(surgery: Surgery) -> list:
            single.append(flat(model))
            return take(surgery)

        if not alone:
            model.train()
            state = torch.get_rng_state()
            loss = self.compute_loss(model, dict(self._prepare_inputs(inputs)))
            parts = torch.autograd.grad(
                loss, list(model.parameters()), allow_unused=True, materialize_grads=True
            )
            alone.append(np.concatenate([part.double().numpy().ravel() for part in parts]))
            torch.set_rng_state(state)
        with monkeypatch.context() as patch:
            patch.setattr(Surgery, "_take", noting)
            loss = inside(self, model, inputs, *args)
        seen.extend(single)
        if len(seen) == 3:
            results.append(flat(model))
        return loss

    results: list[np.ndarray] = []
    alone: list[np.ndarray] = []
    monkeypatch.setattr(Trainer, "training_step", spy)
    settings = TrainingSettings(steps=1, batch_size=4)
    result = run(
        tiny_base, tmp_path / "out", *tasks, settings=settings, mixture=MixtureSettings(surgery="pcgrad")
    )
    assert (result.steps, result.samples) == (1, 12)
    gradients = np.stack(seen)
    assert (gradients @ gradients.T - np.diag(np.diag(gradients @ gradients.T)) < 0).any(), (
        "no conflict: the test shows nothing"
    )
    rng = random.Random("surgery 5 0")
    orders = [rng.sample(range(3), 3) for _ in range(3)]
    np.testing.assert_allclose(results[0], brute_force(gradients, orders), atol=1e-7)
    np.testing.assert_allclose(
        seen[0], alone[0] / 3, atol=1e-5
    )  # so that the step is that of the mean loss where nothing conflicts
