"""Activations made again: the same gradients to the bit, and less that is kept."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from selfpos.errors import SelfposError
from selfpos.positioning.draws import Draws, split_probe
from selfpos.positioning.live import LiveModel
from selfpos.positioning.lowrank import LowRankModel
from selfpos.positioning.problem import Problem
from selfpos.positioning.recompute import Recompute
from selfpos.recipe import PositioningSettings
from selfpos.storage.model_folder import open_model
from selfpos.vectors import open_vectors
from tests.helpers.adapters import make_adapter
from tests.helpers.stand_ins import graded, pairs


def never(model: nn.Module, **options: object) -> Recompute:
    """A recomputation of nothing."""
    return Recompute(nn.Module(), **options)


@pytest.mark.parametrize("kind", [LiveModel, LowRankModel])
def test_gradients_keep_their_bits(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[LiveModel],
) -> None:
    sources = tiny_specialists[:2]
    if kind is LowRankModel:
        sources = [tmp_path / "one", tmp_path / "two"]
        for seed, path in enumerate(sources):
            make_adapter(tiny_base, path, seed=seed, r=4, target_modules="all-linear")
    folder = open_model(tiny_base)
    search, _ = split_probe({"pairs": pairs(), "graded": graded()}, 0.0, 0, 0.1)
    batches = Draws(search, 12, 0).next()
    found = []
    for again in (True, False):
        if not again:
            monkeypatch.setattr("selfpos.positioning.live.Recompute", never)
            monkeypatch.setattr("selfpos.positioning.lowrank.Recompute", never)
        live = kind(folder, open_vectors(folder, sources))
        problem = Problem(
            live, search, PositioningSettings(search="sgd", normalise="none", granularity="layer")
        )
        found.append(problem.gradient(problem.start, batches)[1])
    assert found[0].abs().max() > 1e-3
    assert torch.equal(*found)


class Layer(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.up, self.activation, self.down = nn.Linear(8, 64), activation, nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.activation(self.up(x)))


def kept(model: nn.Module, x: torch.Tensor, **options: object) -> tuple[int, list[torch.Tensor]]:
    """Bytes of distinct wide tensors that the graph of a forward pass keeps alive, and the gradients it
    leads to."""
    memory: dict[int, int] = {}
    recompute = Recompute(model, autocast=lambda: torch.autocast("cpu", enabled=False), **options)
    original = recompute._pack

    def watched(tensor: torch.Tensor) -> object:
        packed = original(tensor)
        held = packed.input if hasattr(packed, "input") else packed.tensor
        if held.shape[-1] == 64 and held.numel() > 64 * 8:
            memory[held.untyped_storage().data_ptr()] = held.numel()
        return packed

    recompute._pack = watched  # type: ignore[method-assign]
    with recompute.forgetting():
        y = model(x)
    leaves = [x, *(p for p in model.parameters() if p.requires_grad)]
    return sum(memory.values()), list(torch.autograd.grad(y.square().sum(), leaves))


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.ReLU(), nn.Tanh()])
def test_one_wide_tensor_a_layer_is_kept_and_none_where_weights_stand_still(activation: nn.Module) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Layer(activation), Layer(activation)), torch.randn(32, 8, requires_grad=True)
    expected = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
    size, found = kept(model, x, products=False)
    assert size == 2 * 32 * 64
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    model.requires_grad_(False)
    size, found = kept(model, x, products=True)
    if isinstance(activation, (nn.GELU, nn.SiLU)):
        assert size == 0
    assert torch.equal(found[0], expected[0])


def test_an_activation_done_in_place_is_left_alone() -> None:
    torch.manual_seed(0)
    model, x = Layer(nn.SiLU(inplace=True)), torch.randn(32, 8, requires_grad=True)
    expected = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
    _, found = kept(model, x, products=False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_branch_that_no_backward_pass_visits_is_freed() -> None:
    class Pooled(nn.Module):
        """As BERT: what its pooler gives is asked for by nobody."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.pooler = Layer(nn.GELU()), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.layer(x)
            return found, torch.tanh(self.pooler(found))

    model = Pooled()
    recompute = Recompute(model, products=False, autocast=nullcontext)
    with recompute.forgetting():
        found, pooled = model(torch.ones(3, 8))
    found.sum().backward()
    gone = [weakref.ref(found), weakref.ref(pooled)]
    del found, pooled
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_kept_tensor_that_is_changed_in_place_is_noticed() -> None:
    start = torch.ones(3, requires_grad=True)
    recompute = Recompute(torch.nn.Identity(), products=False, autocast=nullcontext)
    with recompute.forgetting():
        half = start * 0.5
        value = half.log1p()
        half.add_(1)
    with pytest.raises(SelfposError, match="changes a tensor in place"):
        value.sum().backward()
