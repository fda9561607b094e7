"""Wide activations are computed again in the backward pass instead of being kept: less memory, little time.

Most memory of a step is activations, and half of a layer's are the two wide ones of its MLP: the input of the
activation function, which its derivative needs, and its output, which the weight gradient of the next product
needs. Both follow cheaply from what is kept, by the same operation on the same numbers, so gradients keep
their bits. Recomputing whole layers (Chen et al., arXiv 1604.06174) would cost a forward pass.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selfpos.errors import SelfposError

# activation functions whose derivative keeps the input; for others (tanh, relu) there is nothing to save
FROM_INPUT = {"GELU", "GELUActivation", "SiLU", "SiLUActivation"}


@dataclass(frozen=True)
class _Origin:
    """How an output was computed. `output` and `version` tell whether its memory still holds it unchanged."""

    module: nn.Module
    input: Tensor
    output: weakref.ref[Tensor]
    version: int


@dataclass(frozen=True)
class _Recipe:
    """Kept in the graph in place of a tensor of `shape` that is computed again."""

    module: nn.Module
    input: Tensor
    shape: torch.Size


@dataclass(frozen=True)
class _Kept:
    """Kept in the graph as it is, and at which version of its memory."""

    tensor: Tensor
    version: int


class Recompute:
    """In a block `forgetting()`, a forward pass of `model` does not keep the outputs of activation functions.

    With `products` it drops the outputs of widening linear layers instead: for models whose weights have no
    gradient. Outputs are computed again in the context `autocast`, that of the forward pass.
    """

    def __init__(
        self, model: nn.Module, *, products: bool, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._autocast = autocast
        self._origins: dict[int, _Origin] = {}
        self._on = False
        for module in model.modules():
            widening = isinstance(module, nn.Linear) and module.out_features > module.in_features
            if widening if products else type(module).__name__ in FROM_INPUT:
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
        address, source = output.untyped_storage().data_ptr(), inputs[0].detach()
        if address == source.untyped_storage().data_ptr():  # computed in place: the input is gone
            return
        # the memory of an output that is freed is used again, so its entry must not outlive it
        reference = weakref.ref(output, lambda _: self._origins.pop(address, None))
        self._origins[address] = _Origin(module, source, reference, output._version)

    def _pack(self, tensor: Tensor) -> _Kept | _Recipe:
        origin = self._origins.get(tensor.untyped_storage().data_ptr())
        output = origin.output() if origin else None
        if origin is None or output is None or output._version != origin.version:
            # detached: a result that its own node keeps would hold that node, and both would stay where no
            # backward pass comes by (a pooler's)
            return _Kept(tensor.detach(), tensor._version)
        whole = output.numel() == tensor.numel() and output.is_contiguous() and tensor.is_contiguous()
        if not whole:
            return _Kept(tensor.detach(), tensor._version)
        return _Recipe(origin.module, origin.input, tensor.shape)

    @torch.no_grad()
    def _unpack(self, packed: _Kept | _Recipe) -> Tensor:
        if isinstance(packed, _Kept):
            if packed.tensor._version != packed.version:  # which torch does not see where hooks keep it
                raise SelfposError(
                    "the model changes a tensor in place that its gradient needs; use the default search of "
                    "method self-positioning, which takes no gradient"
                )
            return packed.tensor
        with self._autocast():
            again: Tensor = packed.module(packed.input)
        return again.view(packed.shape)
