"""The diagonal of the empirical Fisher information of one specialist on its own task's probe records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from selfpos.positioning.draws import Draws
from selfpos.positioning.objective import Batch, TaskProbe, losses_of, texts_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from selfpos.positioning.live import LiveModel
    from selfpos.statistics.totals import Totals

GROUP = 8
"""Records whose loss makes one gradient. A contrastive loss says nothing about a lone record; larger groups have harder negatives, but fewer
fit into a probe set."""


def shapes(live: LiveModel) -> dict[str, tuple[int, ...]]:
    """A number for every weight."""
    return {key: tuple(parameter.shape) for key, parameter in live.parameters.items()}


def pieces(task: TaskProbe, seed: int) -> list[Batch]:
    """Groups of records, drawn as the task type's loss wants them: as many as make up the probe set once."""
    return Draws({task.name: task}, GROUP, seed, single=True).fixed()


def gather(
    live: LiveModel, task: TaskProbe, groups: Sequence[Batch], totals: Totals, advance: Callable[[int], None]
) -> None:
    """Add to `totals` the mean over groups of the squared gradient of the task's loss, at the weights now placed; then bring its mean to 1.

    Of m groups B: F = 1/m Σ_B (∇ L(B))², element by element. The labels are those of the records (empirical Fisher), where the Fisher
    information proper takes the model's own predictions for labels, which graded and contrastive losses do not define.
    """
    handles = [
        parameter.register_post_accumulate_grad_hook(_adder(torch.from_numpy(totals[key])))
        for key, parameter in live.parameters.items()
    ]
    try:
        for group in groups:
            texts = texts_of([group])
            losses_of({task.name: task}, [group], live.embed(texts))[task.name].backward()
            advance(len(texts))
    finally:
        for handle in handles:
            handle.remove()
    _scale(totals)


def _adder(total: Tensor) -> Callable[[nn.Parameter], None]:
    @torch.no_grad()
    def add(parameter: nn.Parameter) -> None:
        gradient = parameter.grad
        assert (
            gradient is not None
        )  # autograd calls the hook just after storing it, once a backward pass, all uses of the weight summed
        parameter.grad = None
        total.add_(gradient.square().to(total))

    return add


def _scale(totals: Totals) -> None:
    """Divide by the mean over all weights, unless there was no gradient at all."""
    whole = sum(float(total.sum(dtype="float64")) for total in totals.values())
    count = sum(total.size for total in totals.values())
    if whole > 0:
        for total in totals.values():
            total *= count / whole
