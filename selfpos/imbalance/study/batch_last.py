"""A convolution with the 2×2 max pooling behind it, for one network on a CPU: faster where maps are few.

Inside, maps are laid out (H, C, W, N), images innermost. There the input that one column of the kernel
meets for one row of outputs is a plain matrix (kernel rows · C, outputs · N) that needs no copy. So forward
and backward are matrix products of good shapes, and pooling compares long contiguous rows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

Scratch = tuple[Tensor, Tensor]


class ConvPool(nn.Module):
    """What `conv` and MaxPool2d(2) compute, (N, C, H, W) → (N, O, h, w); its parameters are named alike.

    As in torch, the first of equal values is the maximum. The bias is added behind the pooling.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert conv.bias is not None
        # Stored as (kernel column, O, kernel row, C): a product takes one column.
        stored = conv.weight.detach().permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)
        self.weight = nn.Parameter(stored, requires_grad=conv.weight.requires_grad)
        self.bias = nn.Parameter(conv.bias.detach(), requires_grad=conv.bias.requires_grad)
        self._scratch: Scratch | None = None

    @staticmethod
    def replaces(conv: nn.Module, pool: nn.Module) -> bool:
        """Whether the two layers are a convolution and a pooling that this layer can take the place of."""
        return (
            isinstance(conv, nn.Conv2d)
            and conv.bias is not None
            and (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1, 1), (0, 0), (1, 1), 1)
            and isinstance(pool, nn.MaxPool2d)
            and (pool.kernel_size, pool.stride, pool.padding, pool.dilation) == (2, 2, 0, 1)
            and not (pool.ceil_mode or pool.return_indices)
        )

    def forward(self, images: Tensor) -> Tensor:
        weight: Tensor = self.weight
        x = images.permute(2, 1, 3, 0).contiguous()
        if x.shape[1] == 1:  # a matrix of few rows for each kernel column: all columns as channels instead
            columns = x.shape[2] - weight.shape[3] + 1
            x = torch.cat([x[:, :, k : k + columns] for k in range(weight.shape[3])], 1)
            weight = weight.transpose(1, 3)
        maps, _, height, width = weight.shape
        rows, columns, batch = x.shape[0] - height + 1, x.shape[2] - width + 1, x.shape[3]
        rows, columns = rows - rows % 2, columns - columns % 2  # as torch, which pools no half windows
        shapes = (rows, maps, columns * batch), (rows // 2, 2, maps, columns // 2, batch)
        if self._scratch is None or (self._scratch[0].shape, self._scratch[0].dtype) != (shapes[0], x.dtype):
            self._scratch = x.new_empty(shapes[0]), x.new_empty(shapes[1])
        return _ConvPool.apply(x, weight, self.bias, self._scratch).permute(3, 1, 0, 2)


def join_pooling(network: nn.Module) -> nn.Module:
    """Put a `ConvPool` in the place of every convolution of `network` that it can replace with its pooling.

    For training on one thread of a CPU. Predictions of large batches do not gain.
    """
    for layers in list(network.modules()):
        if isinstance(layers, nn.Sequential):
            for index, (conv, pool) in enumerate(pairwise(layers)):
                if isinstance(conv, nn.Conv2d) and ConvPool.replaces(conv, pool):
                    layers[index], layers[index + 1] = ConvPool(conv), nn.Identity()
    return network


class _ConvPool(torch.autograd.Function):
    """(H, C, W, N) → (rows/2, O, columns/2, N). `scratch`, used within a call only, saves its allocation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scratch: Scratch) -> Tensor:
        full, half = scratch
        rows = len(full)
        kernels = weight.permute(3, 0, 2, 1).flatten(2)  # (kernel columns, O, kernel rows · C)
        torch.bmm(kernels[0].expand(rows, -1, -1), _windows(x, weight, 0, full), out=full)
        for k in range(1, len(kernels)):
            full.baddbmm_(kernels[k].expand(rows, -1, -1), _windows(x, weight, k, full))
        left, right = _pairs(full, half)
        # Numbers, not truth values, which torch multiplies by at a quarter of the speed.
        first = torch.ge(left, right, out=x.new_empty(left.shape))
        torch.maximum(left, right, out=half.view(left.shape))
        top, bottom = half.unbind(1)
        upper = torch.ge(top, bottom, out=x.new_empty(top.shape))
        ctx.save_for_backward(x, weight, first, upper)
        ctx.scratch = scratch
        return torch.maximum(top, bottom).add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, first, upper = ctx.saved_tensors
        full, half = ctx.scratch
        gradient = gradient.contiguous()
        top, bottom = half.unbind(1)
        torch.mul(gradient, upper, out=top)
        torch.sub(gradient, top, out=bottom)
        left, right = _pairs(full, half)
        pooled = half.view(left.shape)
        torch.mul(pooled, first, out=left)
        torch.sub(pooled, left, out=right)
        maps, channels, size, columns = weight.shape
        by_weight = full.new_empty(columns, len(full), maps, size * channels)
        for k in range(columns):
            torch.bmm(full, _windows(x, weight, k, full).mT, out=by_weight[k])
        by_weight = by_weight.sum(1).view(columns, maps, size, channels).permute(1, 3, 2, 0)
        by_input = None
        if ctx.needs_input_grad[0]:
            by_input, kernels = torch.zeros_like(x), weight.permute(3, 0, 2, 1).flatten(2).mT
            for k in range(columns):
                # The windows of neighbouring rows overlap, so they are added one by one.
                for window, row in zip(_windows(by_input, weight, k, full), full, strict=True):
                    window.addmm_(kernels[k], row)
        return by_input, by_weight, gradient.sum((0, 2, 3)), None


def _windows(x: Tensor, weight: Tensor, column: int, full: Tensor) -> Tensor:
    """What kernel column `column` meets: a view (rows, kernel rows · C, columns · N) of `x` (H, C, W, N)."""
    _, channels, width, batch = x.shape
    stride = width * batch
    shape = (full.shape[0], weight.shape[2] * channels, full.shape[2])
    return x[:, :, column:].as_strided(shape, (channels * stride, stride, 1))


def _pairs(full: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """The left and the right of each two columns of `full`: views (rows, O, columns/2, N)."""
    _, _, maps, columns, batch = half.shape
    left, right = full.view(len(full), maps, columns, 2, batch).unbind(3)
    return left, right
