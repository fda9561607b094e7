"""∂L/∂c by inner products, against autograd through the merge and against finite differences, in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfpos.positioning.deltas import nonzero_ranges
from selfpos.positioning.draws import Draws, split_probe
from selfpos.positioning.objective import losses_of, texts_of
from selfpos.positioning.problem import Problem
from selfpos.positioning.processes import Processes
from selfpos.recipe import PositioningSettings
from tests.helpers.stand_ins import graded, make_live, pairs


def make_problem(
    base: Path, sources: list[Path], *, vectors_in: str = "auto", **options: object
) -> tuple[Problem, list]:
    settings = PositioningSettings(**{"search": "sgd", "penalty": 0.03, **options})
    live = make_live(base, sources, dtype=torch.float64, vectors_in=vectors_in)
    search, _ = split_probe({"pairs": pairs(), "graded": graded()}, 0.0, 0, 0.1)
    problem, draws = Problem(live, search, settings), Draws(search, 12, 0)
    problem.measure_base(draws.fixed(12))
    return problem, draws.next()


def through_the_merge(
    problem: Problem, batches: list, parameters: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient with a graph over the merge: functional_call with weights that depend on the
    parameters."""
    live = problem.live
    variable = parameters.clone().requires_grad_(True)
    table = problem.table(variable)
    inside = {id(p): name for name, p in live.model.named_parameters()}
    weights = {}
    for t, key in enumerate(live.keys):
        merged = live.base.read(key).double()
        for i, vector in enumerate(live.vectors):
            merged = merged + table[t, i] * vector.delta(key).double()
        weights[inside[id(live.parameters[key])]] = merged
    embeddings = torch.cat(
        [
            torch.func.functional_call(live.model, weights, (live.model.preprocess([text]),))[
                "sentence_embedding"
            ]
            for text in texts_of(batches)
        ]
    )
    loss = problem.balance(losses_of(problem.tasks, batches, embeddings)) + problem.penalty(variable)
    return loss.detach(), torch.autograd.grad(loss, variable)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"space": "spherical"},
        {"space": "linear"},
        {"space": "linear", "granularity": "layer"},
        {"space": "linear", "granularity": "tensor"},
        {"space": "spherical", "granularity": "tensor"},
        {"normalise": "none"},
        {"ratios": {"graded": 3.0}},
        {"space": "spherical", "chunk": 7},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_gradient_equals_autograd_through_the_merge(
    tiny_base: Path, tiny_specialists: list[Path], options: dict
) -> None:
    problem, batches = make_problem(tiny_base, tiny_specialists, **options)
    generator = torch.Generator().manual_seed(3)
    parameters = problem.start + 0.1 * torch.rand(
        problem.start.shape, dtype=torch.float64, generator=generator
    )
    losses, gradient = problem.gradient(parameters, batches)
    loss, expected = through_the_merge(problem, batches, parameters)
    assert problem.value(parameters, losses) == pytest.approx(float(loss), rel=1e-9)
    assert gradient.abs().max() > 1e-4
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("options", [{"space": "spherical"}, {"space": "linear", "granularity": "layer"}])
def test_gradient_equals_finite_differences(
    tiny_base: Path, tiny_specialists: list[Path], options: dict
) -> None:
    problem, batches = make_problem(tiny_base, tiny_specialists, **options)
    parameters = problem.start + 0.05

    def value(at: torch.Tensor) -> float:
        return problem.value(at, problem.losses(at, batches))

    _, gradient = problem.gradient(parameters, batches)
    for place in [(0, 0), (0, parameters.shape[1] - 1), (parameters.shape[0] - 1, 1)]:
        step = torch.zeros_like(parameters)
        step[place] = 1e-5
        difference = (value(parameters + step) - value(parameters - step)) / 2e-5
        assert float(gradient[place]) == pytest.approx(difference, rel=1e-5, abs=1e-8)


def test_no_more_texts_than_a_chunk_have_their_activations_in_memory(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, batches = make_problem(tiny_base, tiny_specialists, chunk=7)
    counts, forward = [], problem.live.forward

    def counted(texts: list[str]) -> torch.Tensor:
        counts.append(len(texts))
        return forward(texts)

    monkeypatch.setattr(problem.live, "forward", counted)
    problem.gradient(problem.start, batches)
    assert max(counts) == 7
    assert sum(counts) == len(texts_of(batches))


def test_of_the_rows_of_all_processes_each_gets_the_gradient_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Number 1 of two processes, which has the second and the fourth of four chunks."""
    theirs = torch.arange(6.0).view(3, 2)
    monkeypatch.setattr("accelerate.utils.gather", lambda rows: torch.cat([theirs, rows]))
    mine = [torch.full((1, 2), 7.0, requires_grad=True), torch.full((2, 2), 8.0, requires_grad=True)]
    found = torch.cat(Processes(1, 2).gather(mine, [2, 1, 1, 2]))
    assert found[:, 0].tolist() == [0, 2, 7, 4, 8, 8]
    weights = torch.arange(12.0).view(6, 2)
    (weights * found).sum().backward()
    assert mine[0].grad is not None and mine[0].grad.tolist() == weights[2:3].tolist()
    assert mine[1].grad is not None and mine[1].grad.tolist() == weights[4:6].tolist()


def test_no_gradient_is_kept(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    problem, batches = make_problem(tiny_base, tiny_specialists)
    problem.gradient(problem.start, batches)
    assert all(parameter.grad is None for parameter in problem.live.model.parameters())


def test_excluded_tensors_stay_at_the_base(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    live = make_live(tiny_base, tiny_specialists[:1], exclude=["*embeddings*"])
    live.set_coefficients(torch.ones(len(live.keys), 1, dtype=torch.float64))
    words = next(p for name, p in live.model.named_parameters() if name.endswith("word_embeddings.weight"))
    dense = next(p for name, p in live.model.named_parameters() if name.endswith("linear.weight"))
    assert torch.equal(words, live.base.read("embeddings.word_embeddings.weight"))
    assert not torch.equal(dense, live.base.read("2_Dense/linear.weight"))
    assert not any("embeddings" in key for key in live.keys)
    assert any(key.startswith("2_Dense/") for key in live.keys)


@pytest.mark.parametrize("where", ["disk", "float32"])
def test_the_weights_set_are_base_plus_vectors(
    tiny_base: Path, tiny_specialists: list[Path], where: str
) -> None:
    problem, _ = make_problem(tiny_base, tiny_specialists, vectors_in=where)
    table = torch.rand(len(problem.live.keys), 3, dtype=torch.float64)
    problem.live.set_coefficients(table)
    for t, (key, parameter) in enumerate(problem.live.parameters.items()):
        expected = problem.live.base.read(key).double()
        for i, vector in enumerate(problem.live.vectors):
            expected = expected + table[t, i] * vector.delta(key).double()
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(30_000, 50), (7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_no_part_of_a_gradient_is_missed(shape: tuple[int, ...], share: float) -> None:
    gradient = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    gradient[torch.rand(shape[0], generator=torch.Generator().manual_seed(1)) > share] = 0
    ranges = nonzero_ranges(gradient.numpy())
    flat = gradient.flatten()
    covered = torch.zeros_like(flat)
    for start, stop in ranges:
        covered[start:stop] += 1
    assert covered.max() <= 1
    assert flat[covered == 0].abs().sum() == 0
    if shape[0] == 30_000 and share == 0.01:
        assert covered.mean() < 0.02


@pytest.mark.parametrize("where", ["float32", "bf16"])
def test_vectors_on_the_device_give_the_same_gradient(
    tiny_base: Path, tiny_specialists: list[Path], where: str
) -> None:
    gradients = []
    for place in ("disk", where):
        problem, batches = make_problem(tiny_base, tiny_specialists, vectors_in=place)
        gradients.append(problem.gradient(problem.start, batches)[1])
    torch.testing.assert_close(
        *gradients, rtol=1e-6 if where == "float32" else 0.05, atol=1e-7 if where == "float32" else 2e-3
    )
