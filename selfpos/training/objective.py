"""The loss of each task under the settings: in chunks of a large batch, at several dimensions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from torch import Tensor, nn

from selfpos.errors import SelfposError
from selfpos.tasks.losses import Embedded

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from selfpos.recipe import TrainingSettings
    from selfpos.tasks import TaskType


def make_loss(task_type: TaskType, model: SentenceTransformer, settings: TrainingSettings) -> nn.Module:
    """The loss of `task_type` over `model`, with `settings.cached` and `settings.matryoshka` around it."""
    loss = task_type.loss(model, settings.temperature)
    if settings.cached:
        of_embeddings = task_type.loss(Embedded(), settings.temperature)  # type: ignore[arg-type]
        loss = ChunkedLoss(model, of_embeddings, settings.cached)
    if settings.matryoshka:
        whole = model.get_embedding_dimension()
        if whole is not None and max(settings.matryoshka) > whole:
            raise SelfposError(
                f"matryoshka dimension {max(settings.matryoshka)} is more than the model's {whole}"
            )
        loss = MatryoshkaLoss(model, loss, sorted(settings.matryoshka, reverse=True))
    return loss


def loss_name(loss: nn.Module) -> str:
    """The name of `loss` in the manifest: its class, and that of the loss it wraps."""
    name = type(loss).__name__
    inner = getattr(loss, "loss", None)
    return f"{name}({loss_name(inner)})" if isinstance(inner, nn.Module) else name


class ChunkedLoss(CachedLossMixin, nn.Module):
    """Any `loss` of embeddings, on a batch that is embedded `mini_batch_size` texts at a time.

    sentence-transformers' gradient caching (Gao et al., arXiv 2101.06983) around a loss built over
    `Embedded`, for types whose loss the library does not cache. Gradients are those of the whole batch.
    """

    def __init__(self, model: SentenceTransformer, loss: nn.Module, mini_batch_size: int) -> None:
        super().__init__()
        self.model = model
        self.loss: nn.Module = loss
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens: int | None = None
        self.show_progress_bar = False

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss of embeddings, chunks (n_i, d) by column; with `with_backward` also their gradients."""
        value: Tensor = self.loss([{"sentence_embedding": torch.cat(chunks)} for chunks in reps], labels)
        if with_backward:
            value.backward()
        return value.detach() if with_backward else value

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        return self.forward_cached(list(sentence_features), labels)  # type: ignore[operator]  # of the mixin
