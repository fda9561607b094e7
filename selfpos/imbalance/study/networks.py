"""The study's networks, and many of one architecture as a single wide one.

A network is a `trunk` that ends in features and a `head` with the class weights. Its layers with weights are
convolutions, `Dense` or batch normalisations, which `widen` joins: convolutions become grouped, a group per
network. Images (B, S·C, H, W) go in, network s sees its C channels, logits (B, S·K) come out. No weight
touches another network's, so a training step of the wide network is a step of each of its S parts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

COSINE_SCALE = 30.0
# Caffe's "xavier" (FAN_IN) is uniform in ±√(3 / fan_in); torch's xavier_uniform_ also counts fan_out.
XAVIER = partial(nn.init.kaiming_uniform_, nonlinearity="linear")
# Caffe's "msra" is normal with variance 2 / fan_in.
MSRA = partial(nn.init.kaiming_normal_, nonlinearity="relu")


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Torch draws from `seed` in the block; then its state, on the CPU and on `device`, is as before."""
    with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class Dense(nn.Module):
    """A fully connected layer over the whole map (Caffe's InnerProduct), for `groups` networks at once.

    Features (B, groups·F, k, k) → (B, groups·out, 1, 1). Weights (groups·out, F, k, k), laid out as a
    convolution's. They are multiplied as matrices: on a CPU twice as fast as a grouped convolution.
    """

    def __init__(self, features: int, outputs: int, size: int = 1) -> None:
        super().__init__()
        self.groups = 1
        self.weight = nn.Parameter(torch.empty(outputs, features, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1:
            return nn.functional.linear(x.flatten(1), self.weight.flatten(1), self.bias)[..., None, None]
        return _grouped(x, self.weight, self.bias, self.groups)


class CosineHead(nn.Module):
    """logits = s · cosine of feature and class weight, s = 30 (Cao et al. 2019); shapes as of `Dense`."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.groups = 1
        weight = torch.empty(classes, features, 1, 1).uniform_(-1, 1)
        self.weight = nn.Parameter(nn.functional.normalize(weight, dim=1))

    def forward(self, x: Tensor) -> Tensor:
        directions = nn.functional.normalize(self.weight.flatten(1), dim=1)
        parts = nn.functional.normalize(x.reshape(x.shape[0], self.groups, -1), dim=2)
        return COSINE_SCALE * _grouped(parts, directions, None, self.groups)


def _grouped(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Each group's inputs times its weights: (B, groups, F) by (groups·out, F) → (B, groups·out, 1, 1)."""
    inputs = x.reshape(x.shape[0], groups, -1).transpose(0, 1)
    out = inputs @ weight.reshape(groups, -1, inputs.shape[-1]).mT
    out = out.transpose(0, 1).reshape(x.shape[0], -1)
    return (out if bias is None else out + bias)[..., None, None]


def widen(networks: Sequence[nn.Module]) -> nn.Module:
    """One module that computes all `networks` (same architecture) side by side; a copy of a single one.

    On a CPU its convolutions are laid out channels last: they and the pooling run several times as fast.
    """
    wide = copy.deepcopy(networks[0])
    if len(networks) > 1:
        parts = [dict(network.named_modules()) for network in networks]
        for name, layer in list(wide.named_modules()):
            _widen_layer(layer, len(networks))
            for key in _state(layer):
                joined = torch.cat([_state(part[name])[key] for part in parts])
                if key in layer._buffers:
                    layer._buffers[key] = joined
                else:
                    trained = layer.get_parameter(key).requires_grad
                    layer._parameters[key] = nn.Parameter(joined, requires_grad=trained)
    for layer in wide.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.device.type == "cpu":
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return wide


def copy_back(wide: nn.Module, networks: Sequence[nn.Module]) -> None:
    """Write the weights and running statistics of `wide` into the networks that it joins."""
    targets = [dict(_tensors(network)) for network in networks]
    with torch.no_grad():
        for name, tensor in _tensors(wide):
            for part, target in zip(tensor.chunk(len(networks)), targets, strict=True):
                target[name].copy_(part)


def _widen_layer(layer: nn.Module, count: int) -> None:
    if isinstance(layer, nn.Conv2d):
        layer.in_channels *= count
        layer.out_channels *= count
        layer.groups *= count
    elif isinstance(layer, nn.BatchNorm2d):
        layer.num_features *= count
    elif isinstance(groups := getattr(layer, "groups", None), int):
        layer.groups = groups * count  # type: ignore[assignment]  # our layers, such as Dense
    elif _state(layer) and type(layer).__module__.startswith("torch."):
        raise TypeError(f"no rule for widening a {type(layer).__name__}")


def _state(layer: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of this layer that have one row per channel: not batch norm's counter."""
    tensors = {**layer._parameters, **layer._buffers}
    return {key: tensor for key, tensor in tensors.items() if tensor is not None and tensor.ndim > 0}


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, layer in module.named_modules():
        for key, tensor in _state(layer).items():
            yield f"{name}.{key}", tensor


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
    """LeNet-5 as Caffe's BVLC has it (the paper's Table 2): no ReLU behind the convolutions; 28×28×1."""
    trunk = [nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)]
    trunk += [Dense(50, 500, 4), nn.ReLU()]
    return Network(nn.Sequential(*trunk), nn.Sequential(Dense(500, classes)))


def all_cnn(classes: int) -> Network:
    """All-CNN-C (Springenberg et al. 2015; the paper's Table 3); 32×32×3, 1,369,738 parameters.

    A network whose logits the original's last ReLU makes all zero has died; its AUC is 50.
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

    32×32×3; layers are those of BVLC's cifar10_quick_train_test.prototxt, weights start by "xavier".
    """
    trunk = [nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU()]
    for inputs, maps in ((32, 32), (32, 64)):
        trunk += [nn.Conv2d(inputs, maps, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)]
    return Network(nn.Sequential(*trunk, Dense(64, 64, 4)), nn.Sequential(Dense(64, classes)))


class PreActivation(nn.Module):
    """Two 3×3 convolutions, each after batch normalisation, but for the `first` block's; and a shortcut."""

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

    224×224×3; batch normalisation of the input takes the place of mean subtraction.
    """
    stem = [nn.BatchNorm2d(3), nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU()]
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    blocks = [PreActivation(64, 64, first=True)]
    blocks += [PreActivation(inputs, 2 * inputs) for inputs in (64, 128, 256)]
    end = [nn.BatchNorm2d(512), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return Network(nn.Sequential(*stem, pool, *blocks, *end), nn.Sequential(Dense(512, classes)))


NETWORKS = {"lenet": lenet, "all-cnn": all_cnn, "cifar-quick": cifar_quick, "resnet-10": resnet10}


def build(name: str, classes: int, seed: int) -> Network:
    """The network `name` with weights drawn from `seed`; torch's random state does not change."""
    with seeded(seed):
        network = NETWORKS[name](classes)
        initialise(network, MSRA if name == "resnet-10" else XAVIER)
        if name == "resnet-10":
            initialise(network.trunk[1], partial(MSRA, mode="fan_out"))
    return network


def use_cosine_head(network: Network, seed: int) -> None:
    """Replace the classifier, and what is behind it, by a `CosineHead` of the same shape, for LDAM."""
    old = network.classifier
    classes, features = old.weight.shape[:2]
    before = list(network.head)[: list(network.head).index(old)]
    pool = [nn.AdaptiveAvgPool2d(1)] if isinstance(old, nn.Conv2d) else []
    with seeded(seed):
        network.head = nn.Sequential(*before, *pool, CosineHead(features, classes))
