"""A convolution and its pooling as one layer must be torch's two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfpos.imbalance.study.batch_last import ConvPool, join_pooling
from selfpos.imbalance.study.networks import build
from selfpos.imbalance.study.recipe import TrainingSettings
from selfpos.imbalance.study.trainer import fit
from tests.helpers.threads import one_thread

__all__ = ["one_thread"]


def passes(layer: nn.Module, weighted: nn.Module, images: Tensor) -> list[Tensor]:
    """The layer's outputs, and the gradients of a loss by the images, the weights and the biases."""
    images = images.clone().requires_grad_()
    out = layer(images)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return [out, *torch.autograd.grad((out * upstream).sum(), [images, weighted.weight, weighted.bias])]


@pytest.mark.parametrize(
    ("channels", "kernel", "shape"),
    [(1, 5, (28, 28)), (3, 5, (12, 12)), (1, (3, 2), (9, 6)), (4, 3, (9, 12))],
)
def test_equals_convolution_and_pooling(channels: int, kernel: int, shape: tuple[int, int]) -> None:
    conv = nn.Conv2d(channels, 6, kernel).double()
    ours = ConvPool(conv)
    for batch in (7, 2):
        images = torch.rand(batch, channels, *shape, dtype=torch.float64)
        expected = passes(nn.Sequential(conv, nn.MaxPool2d(2)), conv, images)
        for value, other in zip(passes(ours, ours, images), expected, strict=True):
            torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_first_of_equal_values_is_the_maximum(channels: int) -> None:
    conv = nn.Conv2d(channels, 4, 3)
    with torch.no_grad():
        conv.weight.copy_(torch.randint(-1, 2, conv.weight.shape))
        conv.bias.zero_()
    images = torch.randint(2, (5, channels, 8, 8)).float()  # whole numbers, so that many windows have ties
    values = conv(images).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert ((values == values.amax(-1, keepdim=True)).sum(-1) > 1).float().mean() > 0.2
    ours = ConvPool(conv)
    expected = passes(nn.Sequential(conv, nn.MaxPool2d(2)), conv, images)
    for value, other in zip(passes(ours, ours, images), expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-5)


def test_only_what_it_computes_is_replaced() -> None:
    conv, pool = nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)
    assert ConvPool.replaces(conv, pool)
    for other in (
        nn.Conv2d(1, 2, 3, padding=1),
        nn.Conv2d(1, 2, 3, stride=2),
        nn.Conv2d(1, 2, 3, bias=False),
    ):
        assert not ConvPool.replaces(other, pool)
    for other in (nn.MaxPool2d(3, 2), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2), nn.ReLU()):
        assert not ConvPool.replaces(conv, other)
    trunk = join_pooling(build("lenet", 10, 0)).trunk
    names = ["ConvPool", "Identity", "ConvPool", "Identity", "Dense", "ReLU"]
    assert [type(layer).__name__ for layer in trunk] == names
    for name in ("all-cnn", "cifar-quick", "resnet-10"):
        assert not any(isinstance(layer, ConvPool) for layer in join_pooling(build(name, 10, 0)).modules())


# In float32, rounding turns a maximum over to its neighbour now and then, or a ReLU's sign.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-2)])
def test_training_is_plain_torch(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    data = []
    for _ in range(6):
        images = torch.rand(32, 1, 1, 28, 28, generator=generator, dtype=dtype)
        data.append((images, torch.randint(10, (32, 1), generator=generator)))
    network, reference, start = (build("lenet", 10, 0).to(dtype) for _ in range(3))
    counts = np.ones((1, 10), np.int64)
    fit([network], iter(data), counts, TrainingSettings(), rate=0.01, iterations=len(data))
    optimiser = torch.optim.SGD(reference.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for images, targets in data:
        optimiser.zero_grad()
        nn.functional.cross_entropy(reference(images[:, 0]), targets[:, 0]).backward()
        optimiser.step()
    for ours, theirs, before in zip(
        network.parameters(), reference.parameters(), start.parameters(), strict=True
    ):
        assert (ours - theirs).norm() < tolerance * (theirs - before).norm()
