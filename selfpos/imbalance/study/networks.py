"""The study's three networks and a small one for CIFAR on a CPU, with Caffe's initialisers.

Each is a `trunk` that ends in features and a `head` that is the last layer.

Every layer with weights is a convolution, a `Dense` or a batch normalisation, which is what lets `wide.widen`
join many networks into one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from selfpos.errors import unknown
from selfpos.imbalance.study.wide import CosineHead, Dense


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


def caffe_xavier(layer: nn.Conv2d | Dense) -> None:
    """Caffe's "xavier" (FAN_IN): weights uniform in ±√(3 / fan_in), biases zero.

    Not torch's xavier_uniform_, which also counts fan_out.
    """
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def caffe_msra(layer: nn.Conv2d | Dense, mode: str = "fan_in") -> None:
    """Caffe's "msra": weights normal with variance 2 / fan, biases zero."""
    nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")  # type: ignore[arg-type]
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def initialise(module: nn.Module, filler: Callable[[nn.Conv2d | Dense], None]) -> None:
    """Fill every convolution and fully connected layer of `module`."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | Dense):
            filler(layer)


def lenet(classes: int = 10) -> Network:
    """LeNet-5 as Caffe's BVLC has it (the paper's Table 2): no ReLU behind the convolutions. 28×28×1; 431,080
    parameters for 10 classes.
    """
    trunk = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), Dense(50, 500, 4), nn.ReLU()
    )  # fmt: skip
    network = Network(trunk, nn.Sequential(Dense(500, classes)))
    initialise(network, caffe_xavier)
    return network


def all_cnn(classes: int = 10) -> Network:
    """All-CNN-C (Springenberg et al. 2015; the paper's Table 3). 32×32×3; 1,369,738 parameters for 10
    classes.

    The ReLU behind the last convolution is the original's. A network whose logits it makes all zero has died;
    its AUC is 50.
    """

    def block(inputs: int, maps: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for index in range(3):
            layers += [
                nn.Conv2d(inputs if index == 0 else maps, maps, 3, stride=2 if index == 2 else 1, padding=1),
                nn.ReLU(),
            ]
        return layers

    trunk = nn.Sequential(
        nn.Dropout(0.2), *block(3, 96), nn.Dropout(0.5), *block(96, 192), nn.Dropout(0.5), nn.Conv2d(192, 192, 3), nn.ReLU()
    )  # fmt: skip
    head = nn.Sequential(
        nn.Conv2d(192, 192, 1), nn.ReLU(), nn.Conv2d(192, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    network = Network(trunk, head)
    initialise(network, caffe_xavier)
    return network


def cifar_quick(classes: int = 10) -> Network:
    """Caffe's cifar10_quick, which the paper does not have: some twenty times as fast as All-CNN-C on a CPU.
    32×32×3; 145,578 parameters.

    Its layers are those of BVLC's cifar10_quick_train_test.prototxt, pooling with overlap included; its
    weights start as all others here, by "xavier", where the original's have hand-set deviations.
    """
    trunk = nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(),
        nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True),
        Dense(64, 64, 4),
    )  # fmt: skip
    network = Network(trunk, nn.Sequential(Dense(64, classes)))
    initialise(network, caffe_xavier)
    return network


class PreActivation(nn.Module):
    """Two 3×3 convolutions with batch normalisation before them; the projection starts behind the first ReLU.

    `first`: no BN at the entry.
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


def resnet10(classes: int = 1000) -> Network:
    """ResNet-10, pre-activation, blocks [1, 1, 1, 1] (Simon, Rodner, Denzler 2016, "cnn-models"). 224×224×3.

    5,413,096 convolution and head parameters for 1,000 classes. The batch normalisation of the input takes
    the place of mean subtraction.
    """
    stem = nn.Conv2d(3, 64, 7, 2, 3)
    trunk = nn.Sequential(
        nn.BatchNorm2d(3), stem, nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        PreActivation(64, 64, first=True), PreActivation(64, 128), PreActivation(128, 256), PreActivation(256, 512),
        nn.BatchNorm2d(512), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    )  # fmt: skip
    network = Network(trunk, nn.Sequential(Dense(512, classes)))
    initialise(network, caffe_msra)
    caffe_msra(stem, "fan_out")
    return network


NETWORKS: dict[str, Callable[[int], Network]] = {
    "lenet": lenet,
    "all-cnn": all_cnn,
    "cifar-quick": cifar_quick,
    "resnet-10": resnet10,
}


def build(name: str, classes: int, seed: int) -> Network:
    """The network `name` with weights drawn from `seed`; torch's own random state is left as it was."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name](classes)


def init_head(network: Network, seed: int) -> None:
    """Draw the head's weights anew from `seed` with Caffe's xavier (cRT's re-initialisation)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise(network.head, caffe_xavier)


def use_cosine_head(network: Network, seed: int) -> None:
    """Replace the classifier by a `CosineHead` of the same shape, as LDAM asks.

    Layers behind it (All-CNN's last ReLU) are dropped.
    """
    old = network.classifier
    classes, features, size = old.weight.shape[0], old.weight.shape[1], old.weight.shape[2]
    before = list(network.head)[: list(network.head).index(old)]
    pool = [nn.AdaptiveAvgPool2d(1)] if isinstance(old, nn.Conv2d) else []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.head = nn.Sequential(*before, *pool, CosineHead(features, classes, size))
