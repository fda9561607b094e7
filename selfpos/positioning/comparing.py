"""Similarities of SPLADE and ColBERT with a gradient, in the memory of a few texts.

Their embeddings are large: a number for each token of the vocabulary, or a vector for each token of a text.
So all texts are embedded without a graph; on the way back each batch of texts is embedded again, with one,
and takes its share of the gradient (Gao et al. 2021, arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from selfpos.tasks.similarity import BATCH, compared, embedded, embedded_with_graph, sides

if TYPE_CHECKING:
    from selfpos.positioning.live import LiveModel

Pairs = Sequence[tuple[str, str]]
SIDES = ("query", "document")


def similarities_with_gradient(live: LiveModel, pairs: Pairs) -> Tensor:
    """The similarity of each question and text, (pairs, 1), at the current weights.

    Its backward pass gives the weights their gradients. Of several processes each gives its share of them.
    """
    scores: Tensor = _Similarities.apply(torch.zeros((), requires_grad=True), live, pairs)
    return scores


class _Similarities(torch.autograd.Function):
    """The first argument is there to have a gradient."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, live: LiveModel, pairs: Pairs) -> Tensor:
        ctx.live, ctx.texts = live, sides(pairs)
        with live.autocasting():
            ctx.leaves = [
                [part.detach().clone().float().requires_grad_(True) for part in side]
                for side in embedded(live.model, *ctx.texts)
            ]
        with torch.enable_grad():
            ctx.scores = compared(live.model, pairs, *ctx.leaves)
        return ctx.scores.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        ctx.scores.backward(gradient)
        live = ctx.live
        for side, texts, leaves in zip(SIDES, ctx.texts, ctx.leaves, strict=True):
            chunks = live.processes.chunks(live.by_length(texts), BATCH)
            for rows in chunks[live.processes.rank :: live.processes.count]:
                with torch.enable_grad(), live.recompute.forgetting(), live.autocasting():
                    again = embedded_with_graph(live.model, [texts[row] for row in rows], side)
                torch.autograd.backward([part.float() for part in again], [leaves[row].grad for row in rows])
                live.embedded += len(rows)
        return None, None, None
