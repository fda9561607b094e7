"""Adapters beside the base against adapters merged into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfpos.errors import SelfposError
from selfpos.positioning.draws import Draws, split_probe
from selfpos.positioning.live import LiveModel
from selfpos.positioning.lowrank import LowRankModel, is_low_rank
from selfpos.positioning.position import open_live
from selfpos.positioning.problem import Problem
from selfpos.recipe import PositioningSettings
from selfpos.storage.model_folder import open_model
from selfpos.vectors import open_vectors
from tests.helpers.adapters import make_adapter
from tests.helpers.stand_ins import graded, pairs


@pytest.fixture(scope="module")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    options = [
        {"r": 4, "target_modules": "all-linear"},
        {"r": 2, "lora_alpha": 3, "target_modules": ["query", "dense", "word_embeddings"]},
        {"r": 3, "use_rslora": True, "target_modules": ["value"]},
    ]
    for seed, chosen in enumerate(options):
        make_adapter(tiny_base, folder / f"adapter{seed}", seed=seed, **chosen)
    return [folder / f"adapter{seed}" for seed in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("granularity", ["model", "layer"])
def test_embeddings_losses_and_gradients_equal_the_dense_path(
    tiny_base: Path, adapters: list[Path], dtype: torch.dtype, granularity: str
) -> None:
    settings = PositioningSettings(search="sgd", normalise="none", granularity=granularity)
    search, _ = split_probe({"pairs": pairs(), "graded": graded()}, 0.0, 0, 0.1)
    batches = Draws(search, 12, 0).next()
    found = []
    for kind in (LiveModel, LowRankModel):
        folder = open_model(tiny_base)
        problem = Problem(kind(folder, open_vectors(folder, adapters), dtype=dtype), search, settings)
        start = torch.tensor([[0.4, 1.2, -0.3]], dtype=torch.float64)
        parameters = torch.cat([start, torch.zeros(len(problem.start) - 1, 3, dtype=torch.float64)])
        losses, gradient = problem.gradient(parameters, batches)
        with torch.no_grad():
            embeddings = problem.live.embed(batches[0].columns[0])
        rows = dict(zip(problem.rows, gradient, strict=True))
        found.append((embeddings, losses, rows))
    close = (
        1e-5 if dtype == torch.float32 else 1e-7
    )  # the factors are float32 products in both, summed in another order
    (dense, dense_losses, dense_rows), (low, low_losses, low_rows) = found
    torch.testing.assert_close(low, dense, rtol=close, atol=close)
    assert low_losses == pytest.approx(dense_losses, rel=10 * close)
    assert dense_rows["model"].abs().max() > 1e-3
    for name, row in low_rows.items():
        torch.testing.assert_close(row, dense_rows[name], rtol=20 * close, atol=20 * close)


def test_gradients_in_bfloat16_are_those_of_float32_within_its_precision(
    tiny_base: Path, adapters: list[Path]
) -> None:
    settings = PositioningSettings(search="sgd", normalise="none")
    search, _ = split_probe({"pairs": pairs(), "graded": graded()}, 0.0, 0, 0.1)
    batches = Draws(search, 12, 0).next()
    found = []
    for autocast in (None, torch.bfloat16):
        folder = open_model(tiny_base)
        problem = Problem(
            LowRankModel(folder, open_vectors(folder, adapters), autocast=autocast), search, settings
        )
        found.append(problem.gradient(problem.start, batches)[1])
    exact, rough = found
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.05 * float(exact.abs().max()))


def test_no_weight_of_the_base_has_a_gradient_or_changes(tiny_base: Path, adapters: list[Path]) -> None:
    live = open_live(tiny_base, adapters, PositioningSettings(), "cpu")
    assert isinstance(live, LowRankModel)
    assert not any(parameter.requires_grad for parameter in live.model.parameters())
    before = {name: parameter.clone() for name, parameter in live.model.named_parameters()}
    live.set_coefficients(torch.ones(len(live.keys), 3, dtype=torch.float64))
    assert all(torch.equal(before[name], parameter) for name, parameter in live.model.named_parameters())
    with pytest.raises(SelfposError, match="no longer finite"):
        live.set_coefficients(torch.full((len(live.keys), 3), torch.nan))


def test_a_pattern_that_excludes_all_that_adapters_move_is_one_sentence(
    tiny_base: Path, adapters: list[Path]
) -> None:
    with pytest.raises(SelfposError, match="no tensor that the adapters move is left to position"):
        open_live(tiny_base, adapters[2:], PositioningSettings(exclude=["*value*"]), "cpu")


def test_whole_models_take_the_dense_path(
    tiny_base: Path, tiny_specialists: list[Path], adapters: list[Path]
) -> None:
    folder = open_model(tiny_base)
    assert is_low_rank(open_vectors(folder, adapters))
    assert not is_low_rank(open_vectors(folder, [adapters[0], tiny_specialists[0]]))
    assert type(open_live(tiny_base, adapters, PositioningSettings(low_rank=False), "cpu")) is LiveModel
