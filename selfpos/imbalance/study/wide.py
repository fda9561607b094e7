"""Many networks of one architecture as a single one: convolutions become grouped, a group per network.

Images (B, S·C, H, W) go in, network s sees its C channels, logits (B, S·K) come out. No weight touches
another network's, so a training step of the wide network is a step of each of its S parts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

COSINE_SCALE = 30.0


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

    def __init__(self, features: int, classes: int, size: int = 1) -> None:
        super().__init__()
        self.groups = 1
        weight = torch.empty(classes, features, size, size).uniform_(-1, 1)
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
