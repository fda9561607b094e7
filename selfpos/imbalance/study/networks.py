"""The study's three networks and a small one for CIFAR on a CPU, with Caffe's initialisers.

Each is a `trunk` that ends in features and a `head` with the class weights. Layers with weights are
convolutions, `Dense` or batch normalisations, which `wide.widen` can join over many networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from selfpos.errors import unknown
from selfpos.imbalance.study.wide import CosineHead, Dense

# Caffe's "xavier" (FAN_IN) is uniform in ±√(3 / fan_in); torch's xavier_uniform_ also counts fan_out.
XAVIER = partial(nn.init.kaiming_uniform_, nonlinearity="linear")
# Caffe's "msra" is normal with variance 2 / fan_in.
MSRA = partial(nn.init.kaiming_normal_, nonlinearity="relu")


class Network(nn.Module):
    """trunk: images (B, C, H, W) → features (B, F, h, w); head: features → logits (B, classes, 1, 1)."""

    def __init__(self, trunk: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images)).flatten(1)

    @property
    def classifier(self) -> nn.Conv2d | Dense | CosineHead:
        """The layer whose rows are the classes' weights."""
        return classifier_of(self.head)


def classifier_of(head: nn.Sequential) -> nn.Conv2d | Dense | CosineHead:
    """The last layer of `head` that has class weights."""
    return [layer for layer in head if isinstance(layer, nn.Conv2d | Dense | CosineHead)][-1]


def initialise(module: nn.Module, fill: Callable[[Tensor], Any] = XAVIER) -> None:
    """Fill the weights of every convolution and fully connected layer; their biases become zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | Dense):
            fill(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def lenet(classes: int) -> Network:
    """LeNet-5 as Caffe's BVLC has it (the paper's Table 2): no ReLU behind the convolutions.

    28×28×1; 431,080 parameters for 10 classes.
    """
    convolutions = [nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)]
    return Network(
        nn.Sequential(*convolutions, Dense(50, 500, 4), nn.ReLU()), nn.Sequential(Dense(500, classes))
    )


def all_cnn(classes: int) -> Network:
    """All-CNN-C (Springenberg et al. 2015; the paper's Table 3).

    32×32×3; 1,369,738 parameters for 10 classes. The ReLU behind the last convolution is the original's. A
    network whose logits it makes all zero has died; its AUC is 50.
    """

    def block(inputs: int, maps: int) -> list[nn.Module]:
        first = nn.Conv2d(inputs, maps, 3, padding=1)
        second = nn.Conv2d(maps, maps, 3, padding=1)
        third = nn.Conv2d(maps, maps, 3, stride=2, padding=1)
        return [first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU()]

    trunk = [nn.Dropout(0.2), *block(3, 96), nn.Dropout(0.5), *block(96, 192), nn.Dropout(0.5)]
    trunk += [nn.Conv2d(192, 192, 3), nn.ReLU()]
    head = [nn.Conv2d(192, 192, 1), nn.ReLU(), nn.Conv2d(192, classes, 1), nn.ReLU()]
    return Network(nn.Sequential(*trunk), nn.Sequential(*head, nn.AdaptiveAvgPool2d(1)))


def cifar_quick(classes: int) -> Network:
    """Caffe's cifar10_quick, which the paper lacks: on a CPU twenty times as fast as All-CNN-C.

    32×32×3; 145,578 parameters. Layers, and pooling with overlap, are those of BVLC's
    cifar10_quick_train_test.prototxt. Weights start by "xavier"; the original has hand-set deviations.
    """
    trunk = [nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU()]
    for inputs, maps in ((32, 32), (32, 64)):
        trunk += [nn.Conv2d(inputs, maps, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)]
    return Network(nn.Sequential(*trunk, Dense(64, 64, 4)), nn.Sequential(Dense(64, classes)))


class PreActivation(nn.Module):
    """Two 3×3 convolutions, each after batch normalisation; the projection starts behind the first ReLU.

    `first`: no batch normalisation at the entry.
    """

    def __init__(self, inputs: int, maps: int, *, first: bool = False) -> None:
        super().__init__()
        stride = 1 if first else 2
        self.entry = nn.Identity() if first else nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(inputs, maps, 3, stride, 1, bias=False),
            nn.BatchNorm2d(maps),
            nn.ReLU(),
            nn.Conv2d(maps, maps, 3, 1, 1, bias=False),
        )
        self.shortcut = nn.Identity() if first else nn.Conv2d(inputs, maps, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        return self.body(x) + self.shortcut(x)


def resnet10(classes: int) -> Network:
    """ResNet-10, pre-activation, blocks [1, 1, 1, 1] (Simon, Rodner, Denzler 2016, "cnn-models").

    224×224×3; 5,413,096 convolution and head parameters for 1,000 classes. The batch normalisation of the
    input takes the place of mean subtraction.
    """
    stem = [nn.BatchNorm2d(3), nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU()]
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    blocks = [PreActivation(64, 64, first=True)]
    blocks += [PreActivation(inputs, 2 * inputs) for inputs in (64, 128, 256)]
    end = [nn.BatchNorm2d(512), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return Network(nn.Sequential(*stem, pool, *blocks, *end), nn.Sequential(Dense(512, classes)))


NETWORKS: dict[str, Callable[[int], Network]] = {
    "lenet": lenet,
    "all-cnn": all_cnn,
    "cifar-quick": cifar_quick,
    "resnet-10": resnet10,
}


def build(name: str, classes: int, seed: int) -> Network:
    """The network `name` with weights drawn from `seed`; torch's random state does not change."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NETWORKS[name](classes)
        initialise(network, MSRA if name == "resnet-10" else XAVIER)
        if name == "resnet-10":
            initialise(network.trunk[1], partial(MSRA, mode="fan_out"))
    return network


def init_head(network: Network, seed: int) -> None:
    """Draw the head's weights from `seed` with Caffe's xavier (cRT's re-initialisation)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise(network.head)


def use_cosine_head(network: Network, seed: int) -> None:
    """Replace the classifier by a `CosineHead` of the same shape, for LDAM.

    Layers behind it (All-CNN's last ReLU) are dropped.
    """
    old = network.classifier
    classes, features, size = old.weight.shape[:3]
    before = list(network.head)[: list(network.head).index(old)]
    pool = [nn.AdaptiveAvgPool2d(1)] if isinstance(old, nn.Conv2d) else []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.head = nn.Sequential(*before, *pool, CosineHead(features, classes, size))
