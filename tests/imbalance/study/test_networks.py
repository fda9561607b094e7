from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from selfpos.imbalance.study.networks import NETWORKS, Dense, build, initialise, seeded, use_cosine_head
from selfpos.imbalance.study.recipe import ImbalanceRecipe, ScheduleSettings


def test_a_recipe_takes_the_networks_that_can_be_built() -> None:
    names = get_args(ImbalanceRecipe.model_fields["network"].annotation)
    assert sorted(names) == sorted([*NETWORKS, "head", "encoder"])


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("lenet", 10, 431_080),
        ("all-cnn", 10, 1_369_738),
        ("cifar-quick", 10, 145_578),
        ("resnet-10", 1000, 5_413_096),
    ],
)
def test_parameter_counts_of_the_reference(name: str, classes: int, count: int) -> None:
    weighted = [layer for layer in build(name, classes, 0).modules() if isinstance(layer, nn.Conv2d | Dense)]
    assert sum(parameter.numel() for layer in weighted for parameter in layer.parameters()) == count


@pytest.mark.parametrize(
    ("name", "shape", "features"),
    [
        ("lenet", (1, 28, 28), (500, 1, 1)),
        ("all-cnn", (3, 32, 32), (192, 6, 6)),
        ("cifar-quick", (3, 32, 32), (64, 1, 1)),
        ("resnet-10", (3, 224, 224), (512, 1, 1)),
    ],
)
def test_shapes(name: str, shape: tuple, features: tuple) -> None:
    network = build(name, 10, 0).eval()
    images = torch.rand(2, *shape)
    assert network.trunk(images).shape == (2, *features)
    assert network(images).shape == (2, 10)


def test_resnet_maps_halve_as_in_caffe() -> None:
    trunk = build("resnet-10", 10, 0).eval().trunk
    x, sizes = torch.rand(1, 3, 224, 224), []
    for layer in trunk:
        x = layer(x)
        sizes.append(x.shape[-1])
    assert [size for before, size in zip([224, *sizes], sizes, strict=False) if size != before] == [
        112,
        56,
        28,
        14,
        7,
        1,
    ]


def test_lenet_has_no_relu_behind_its_convolutions() -> None:
    kinds = [type(layer).__name__ for layer in build("lenet", 10, 0).trunk]
    assert kinds == ["Conv2d", "MaxPool2d", "Conv2d", "MaxPool2d", "Dense", "ReLU"]


@pytest.mark.parametrize("name", ["lenet", "all-cnn"])
def test_xavier_is_caffes(name: str) -> None:
    for layer in build(name, 10, 0).modules():
        if isinstance(layer, nn.Conv2d | Dense):
            bound = (3 / layer.weight[0].numel()) ** 0.5
            assert layer.weight.abs().max() <= bound
            assert layer.weight.abs().max() > 0.9 * bound
            assert not layer.bias.any()


def test_msra_of_resnet() -> None:
    network = build("resnet-10", 1000, 0)
    stem = network.trunk[1]
    assert stem.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
    body = network.trunk[8].body[0]
    assert body.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_same_seed_same_network_and_torch_untouched() -> None:
    before = torch.random.get_rng_state()
    first, second, other = build("lenet", 10, 4), build("lenet", 10, 4), build("lenet", 10, 5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.trunk[0].weight, second.trunk[0].weight)
    assert not torch.equal(first.trunk[0].weight, other.trunk[0].weight)
    with seeded(8):
        initialise(second.head)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.trunk[0].weight, second.trunk[0].weight)
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


@pytest.mark.parametrize(
    ("name", "shape"), [("lenet", (1, 28, 28)), ("all-cnn", (3, 32, 32)), ("cifar-quick", (3, 32, 32))]
)
def test_cosine_head_is_the_scaled_cosine(name: str, shape: tuple) -> None:
    network = build(name, 10, 0).eval()
    use_cosine_head(network, 0)
    images = torch.rand(3, *shape)
    before = nn.Sequential(*list(network.head)[:-1])(network.trunk(images)).flatten(1)
    expected = 30 * nn.functional.cosine_similarity(
        before[:, None], network.classifier.weight.flatten(1)[None], dim=2
    )
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


def test_schedules() -> None:
    inverse = ScheduleSettings(policy="inv").over(1)
    assert 0.01 * inverse(0) == 0.01
    assert 0.01 * inverse(10_000) == pytest.approx(0.01 * 2**-0.75)
    multistep = ScheduleSettings(policy="multistep", drops=[0.571429, 0.714286, 0.857143]).over(70_000)
    assert [multistep(t) for t in (39_999, 40_000, 50_000, 60_000)] == pytest.approx([1, 0.1, 0.01, 0.001])
    line = ScheduleSettings(policy="poly", power=1).over(320_000)
    assert [line(0), line(160_000), line(320_000)] == [1, 0.5, 0]
    assert np.allclose([ScheduleSettings().over(100)(t) for t in (0, 99)], 1)
