"""The low-rank path: when every task vector is a LoRA adapter, nothing is merged and no weight has a gradient.

The N adapters of a layer run beside it as one pair of products with the coefficients as a diagonal in the middle,

    y = W x + [s_1 B_1 … s_N B_N] · diag(c_1 … c_1, …, c_N … c_N) · [A_1; …; A_N] x,

so ∂L/∂c falls out of the backward pass over activations alone. Memory: the base once, the factors, and the activations of a batch. On
paper, a base of 7·10⁹ weights takes 28 GB in float32, the casts to bf16 that its backward pass keeps 14, eight adapters of rank 16 on all
linear layers 1.3, activations of 8 texts of 512 tokens in bf16 17: 61 GB of the 80 that a large GPU has, counted part by part in
benchmarks/positioning_report.py. With `chunk: 8` any batch takes no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from selfpos.errors import SelfposError
from selfpos.positioning.live import LiveModel
from selfpos.positioning.recompute import Recompute

if TYPE_CHECKING:
    from selfpos.storage.model_folder import ModelFolder
    from selfpos.vectors import TaskVector


def is_low_rank(vectors: Sequence[TaskVector]) -> bool:
    """Whether there are low-rank factors, and all that the vectors move, they move by such. A module saved whole but unchanged does not count."""
    from selfpos.vectors.parts import LowRank

    def counts(vector: TaskVector, key: str) -> bool:
        return isinstance(vector.parts[key], LowRank) or not vector.values(key).any()

    # adapters have few pieces; a fine-tuned model's first weight settles the matter
    if not any(isinstance(piece, LowRank) for vector in vectors for piece in vector.parts.values()):
        return False  # models that stand still, for one
    return all(vector.parts and all(counts(vector, key) for key in vector.parts) for vector in vectors)


class _Added(torch.autograd.Function):
    """output + narrow leftᵀ, written into `output` (…, d): no further tensor of its size, and one pass over it less. narrow (…, R), left (d, R)."""

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
    """A live model whose coefficients are the diagonal between concatenated LoRA factors. `keys` are the tensors that an adapter moves."""

    def __init__(self, base: ModelFolder, vectors: Sequence[TaskVector], **options: Any) -> None:
        super().__init__(base, vectors, **{**options, "vectors_in": "disk"})
        self.model.requires_grad_(False)
        moved = {key: [self._factors(vector, key) for vector in self.vectors] for key in self.parameters}
        self.parameters = {
            key: self.parameters[key]
            for key, found in moved.items()
            if any(pair is not None for pair in found)
        }
        if not self.parameters:
            raise SelfposError(
                f"no tensor that the adapters move is left to position: the patterns {', '.join(options['exclude'])} exclude them all"
            )
        self.keys = list(self.parameters)
        dtype = next(self.model.parameters()).dtype
        self._table = nn.Parameter(
            torch.zeros(len(self.keys), len(self.vectors), dtype=dtype, device=self.device)
        )
        owners = {
            id(parameter): module
            for module in self.model.modules()
            for parameter in module.parameters(recurse=False)
        }
        for row, key in enumerate(self.keys):
            pairs = [(index, *pair) for index, pair in enumerate(moved[key]) if pair is not None]
            left = torch.cat([pair[1] for pair in pairs], 1).to(self.device, dtype)
            right = torch.cat([pair[2] for pair in pairs], 0).to(self.device, dtype)
            which = torch.tensor(
                [index for index, _, factor in pairs for _ in range(len(factor))], device=self.device
            )
            self._beside(owners[id(self.parameters[key])], key, row, left, right, which)
        self.recompute = Recompute(
            self.model, products=True, autocast=self._autocast
        )  # behind the adapters, whose products are in what it sees

    @staticmethod
    def _factors(vector: TaskVector, key: str) -> tuple[Tensor, Tensor] | None:
        piece = vector.parts.get(key)
        if piece is None or not hasattr(piece, "factors"):
            return None
        left, right = piece.factors()
        return torch.from_numpy(left), torch.from_numpy(right)

    def _beside(
        self, module: nn.Module, key: str, row: int, left: Tensor, right: Tensor, which: Tensor
    ) -> None:
        """Let `module` add its adapters' products to its output."""

        def linear(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            narrow = nn.functional.linear(inputs[0], right) * self._table[row, which]
            return _Added.apply(output, narrow.to(output.dtype), left.to(output.dtype))

        def embedding(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + (nn.functional.embedding(inputs[0], left) * self._table[row, which]) @ right

        if type(module) not in (nn.Linear, nn.Embedding):
            raise SelfposError(
                f"adapters move {key}, a weight of {type(module).__name__}, beside which they cannot run; set 'low_rank: false' to merge them"
            )
        module.register_forward_hook(linear if type(module) is nn.Linear else embedding)

    @torch.no_grad()
    def place(self, table: Tensor) -> None:
        """Set the coefficients (T, N); nothing else changes."""
        if not torch.isfinite(table).all():
            raise SelfposError(
                "the coefficients are no longer finite; lower the learning rate or use another space"
            )
        self._table.copy_(table)

    @contextmanager
    def collect(self) -> Iterator[Tensor]:
        """A block whose backward passes add to the float64 table (T, N) that it yields, which is filled in when the block ends."""
        self._table.grad = None
        found = torch.zeros(self._table.shape, dtype=torch.float64, device=self.device)
        yield found
        if self._table.grad is not None:
            found += self._table.grad
            self._table.grad = None
