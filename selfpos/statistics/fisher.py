"""The diagonal of the empirical Fisher information of one specialist on its task's probe records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from selfpos.positioning.draws import Draws
from selfpos.positioning.objective import Batch, TaskProbe, losses_of, texts_of
from selfpos.storage.model_class import EMBEDDER, RERANKER

if TYPE_CHECKING:
    from torch import Tensor, nn

    from selfpos.positioning.live import LiveModel

CLASSES = (EMBEDDER, RERANKER)
"""Classes of models whose loss has a gradient here."""
Totals = Mapping[str, np.ndarray]

GROUP = 8
"""Records whose loss makes one gradient. A contrastive loss says nothing about a single record; larger groups
have harder negatives, but fewer fit into a probe set."""


def shapes(live: LiveModel) -> dict[str, tuple[int, ...]]:
    """One number for every weight."""
    return {key: tuple(parameter.shape) for key, parameter in live.parameters.items()}


def batches(task: TaskProbe, seed: int) -> list[Batch]:
    """Groups of records, drawn for the task type's loss: as many as use the probe set once."""
    return Draws({task.name: task}, GROUP, seed, single=True).fixed()


def gather(live: LiveModel, task: TaskProbe, batches: Sequence[Batch], totals: Totals) -> Iterator[int]:
    """Add the mean over batches of the squared gradient of the task's loss; then scale the mean to 1.

    It yields the number of texts of each batch when that is done.

    Of m batches B: F = 1/m Σ_B (∇ L(B))², element by element. The labels are those of the records (empirical
    Fisher); the Fisher information itself takes the model's predictions, which graded and contrastive losses
    do not define.
    """
    handles = [
        parameter.register_post_accumulate_grad_hook(_adder(torch.from_numpy(totals[key])))
        for key, parameter in live.parameters.items()
    ]
    try:
        for batch in batches:
            texts = texts_of([batch])
            losses_of({task.name: task}, [batch], live.embed(texts))[task.name].backward()
            yield len(texts)
    finally:
        for handle in handles:
            handle.remove()
    whole = sum(float(total.sum(dtype="float64")) for total in totals.values())
    count = sum(total.size for total in totals.values())
    if whole > 0:  # else there was no gradient at all
        for total in totals.values():
            total *= count / whole


def _adder(total: Tensor) -> Callable[[nn.Parameter], None]:
    @torch.no_grad()
    def add(parameter: nn.Parameter) -> None:
        # autograd calls this once per backward pass, when the gradient of all uses of the weight is summed.
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad, None
        total.add_(gradient.square().to(total))

    return add
