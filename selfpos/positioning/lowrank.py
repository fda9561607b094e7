"""The low-rank path: when every task vector is a LoRA adapter, no weight is merged or has a gradient.

The N adapters of a layer run beside it as one pair of products with the coefficients as a diagonal in
between,

    y = W x + [s_1 B_1 … s_N B_N] · diag(c_1 … c_1, …, c_N … c_N) · [A_1; …; A_N] x,

so ∂L/∂c falls out of the backward pass over activations alone. Memory: the base once, the factors, and the
activations of a batch: by count, for a base of 7·10⁹ weights with eight adapters of rank 16 and batches of 8
texts of 512 tokens 61 GB (`benchmarks/results/positioning.md`). With `chunk: 8` any batch needs no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from selfpos.errors import SelfposError
from selfpos.positioning.live import LiveModel, check_finite
from selfpos.positioning.recompute import Recompute

if TYPE_CHECKING:
    from selfpos.storage.model_folder import ModelFolder
    from selfpos.vectors import TaskVector


def is_low_rank(vectors: Sequence[TaskVector]) -> bool:
    """Whether the vectors move weights by low-rank factors only; a module saved unchanged does not count."""
    from selfpos.vectors.parts import LowRank

    def is_factored(vector: TaskVector, key: str) -> bool:
        return isinstance(vector.parts[key], LowRank) or not vector.values(key).any()

    # cheap first: adapters have few tensors, and a fine-tuned model's first weight settles the matter
    if not any(isinstance(part, LowRank) for vector in vectors for part in vector.parts.values()):
        return False
    return all(vector.parts and all(is_factored(vector, key) for key in vector.parts) for vector in vectors)


class _Added(torch.autograd.Function):
    """output (…, d) + narrow (…, R) leftᵀ, with left (d, R), in place to save a tensor of its size."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, narrow: Tensor, left: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        ctx.save_for_backward(left)
        output.view(-1, output.shape[-1]).addmm_(narrow.reshape(-1, narrow.shape[-1]), left.T)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (left,) = ctx.saved_tensors
        return gradient, gradient @ left, None


class LowRankModel(LiveModel):
    """A live model with the coefficients between LoRA factors. `keys` are the tensors an adapter moves."""

    def __init__(self, base: ModelFolder, vectors: Sequence[TaskVector], **options: Any) -> None:
        super().__init__(base, vectors, **{**options, "vectors_in": "disk"})
        self.model.requires_grad_(False)
        factors = {key: [_factors(vector, key) for vector in self.vectors] for key in self.parameters}
        moved = [key for key, pairs in factors.items() if any(pair is not None for pair in pairs)]
        if not moved:
            raise SelfposError(
                "no tensor that the adapters move is left to position: "
                f"the patterns {', '.join(options['exclude'])} exclude them all"
            )
        self.parameters = {key: self.parameters[key] for key in moved}
        self.keys = moved
        dtype = next(self.model.parameters()).dtype
        self._table = nn.Parameter(torch.zeros(len(moved), len(vectors), dtype=dtype, device=self.device))
        owners: dict[int, nn.Module] = {}
        for module in self.model.modules():
            owners.update((id(parameter), module) for parameter in module.parameters(recurse=False))
        for row, key in enumerate(self.keys):
            pairs = [(index, *pair) for index, pair in enumerate(factors[key]) if pair is not None]
            left = torch.cat([pair[1] for pair in pairs], 1).to(self.device, dtype)
            right = torch.cat([pair[2] for pair in pairs], 0).to(self.device, dtype)
            vector_of_rank = [index for index, _, factor in pairs for _ in range(len(factor))]
            which = torch.tensor(vector_of_rank, device=self.device)
            self._run_beside(owners[id(self.parameters[key])], key, row, left, right, which)
        # after the adapters' hooks, so that what it keeps includes their products
        self.recompute = Recompute(self.model, products=True, autocast=self.autocasting)

    def _run_beside(
        self, module: nn.Module, key: str, row: int, left: Tensor, right: Tensor, which: Tensor
    ) -> None:
        """Add the adapters' products to the output of `module`."""

        def linear(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            narrow = nn.functional.linear(inputs[0], right) * self._table[row, which]
            return _Added.apply(output, narrow.to(output.dtype), left.to(output.dtype))

        def embedding(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + (nn.functional.embedding(inputs[0], left) * self._table[row, which]) @ right

        if type(module) not in (nn.Linear, nn.Embedding):
            raise SelfposError(
                f"adapters move {key}, a weight of {type(module).__name__}, beside which they cannot run; "
                "set 'low_rank: false' to merge them"
            )
        module.register_forward_hook(linear if type(module) is nn.Linear else embedding)

    @torch.no_grad()
    def set_coefficients(self, table: Tensor) -> None:
        """Set the coefficients (T, N); nothing else changes."""
        check_finite(table)
        self._table.copy_(table)

    @contextmanager
    def collect(self) -> Iterator[Tensor]:
        """A block whose backward passes add to the table (T, N) that it yields, filled in when it ends."""
        self._table.grad = None
        gradient = torch.zeros(self._table.shape, dtype=torch.float64, device=self.device)
        yield gradient
        if self._table.grad is not None:
            gradient += self._table.grad
            self._table.grad = None


def _factors(vector: TaskVector, key: str) -> tuple[Tensor, Tensor] | None:
    part = vector.parts.get(key)
    if part is None or not hasattr(part, "factors"):
        return None
    left, right = part.factors()
    return torch.from_numpy(left), torch.from_numpy(right)
