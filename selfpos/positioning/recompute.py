"""Wide activations are made again when the backward pass asks for them, instead of being kept: much less memory for little time.

A step of positioning holds one model and no optimiser, so most of its memory is activations, and half of those of a layer are the two wide
ones of its MLP: what the activation function takes, which its own derivative needs, and what it gives, which the weight gradient of the product
behind it needs. The second follows from the first, elementwise; the first is a product of a narrow tensor with a weight. Either is made by
the same operation on the same numbers as before, so gradients keep their bits. (Whole layers made again, as in Chen et al., arXiv
1604.06174, would save more and cost a forward pass.)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FROM_THEIR_INPUT = {"GELU", "GELUActivation", "SiLU", "SiLUActivation"}
"""Activation functions whose derivative keeps what they take. Others keep what they give (tanh, relu), and nothing would be saved."""


@dataclass(frozen=True)
class _Origin:
    """How an output was made. `output` tells whether its memory is still its own, `version` how often that had been written to."""

    module: nn.Module
    taken: Tensor
    output: weakref.ref[Tensor]
    version: int


@dataclass(frozen=True)
class _Recipe:
    """What stands in the graph for a tensor of `shape` that is to be made again."""

    module: nn.Module
    taken: Tensor
    shape: torch.Size


class Recompute:
    """In a block `forgetting()`, the forward pass of `model` keeps no output of an activation function, or, with `products`, of a widening linear layer.

    `products` is for models whose weights have no gradient, where no output of an activation function is kept anyway. Outputs are made
    again in the context `autocast`, which is the forward pass's.
    """

    def __init__(
        self, model: nn.Module, *, products: bool, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._autocast = autocast
        self._origins: dict[int, _Origin] = {}
        self._on = False
        for module in model.modules():
            widening = isinstance(module, nn.Linear) and module.out_features > module.in_features
            if widening if products else type(module).__name__ in FROM_THEIR_INPUT:
                module.register_forward_hook(self._remember)

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """A block for a forward pass. The backward pass may come after it."""
        self._on = True
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
                yield
        finally:
            self._on = False
            self._origins.clear()

    def _remember(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not self._on:
            return
        place, taken = output.untyped_storage().data_ptr(), inputs[0].detach()
        if place == taken.untyped_storage().data_ptr():  # done in place: what it took is gone
            return
        # an output that dies gives its memory away, and what it was made from must not outlive it
        gone = weakref.ref(output, lambda _: self._origins.pop(place, None))
        self._origins[place] = _Origin(module, taken, gone, output._version)

    def _pack(self, tensor: Tensor) -> Tensor | _Recipe:
        origin = self._origins.get(tensor.untyped_storage().data_ptr())
        output = origin.output() if origin else None
        if origin is None or output is None or output._version != origin.version:
            # without its node: a result that its own node keeps would hold that node, and both stay where no backward pass comes by (a pooler's)
            return tensor.detach()
        whole = output.numel() == tensor.numel() and output.is_contiguous() and tensor.is_contiguous()
        return _Recipe(origin.module, origin.taken, tensor.shape) if whole else tensor.detach()

    @torch.no_grad()
    def _unpack(self, packed: Tensor | _Recipe) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        with self._autocast():
            again: Tensor = packed.module(packed.taken)
        return again.view(packed.shape)
