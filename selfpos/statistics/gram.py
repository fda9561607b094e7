"""Gram matrices of the inputs of each linear layer of one specialist on its task's probe records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from selfpos.positioning.live import CHUNK
from selfpos.positioning.objective import Batch, SearchProbe, TaskProbe, texts_of
from selfpos.statistics.fisher import Totals
from selfpos.storage.model_class import EMBEDDER, OTHERS
from selfpos.tasks.similarity import embedded

if TYPE_CHECKING:
    from selfpos.positioning.live import LiveModel


CLASSES = (EMBEDDER, *OTHERS)
"""Classes of models that have linear layers to look at."""


def shapes(live: LiveModel) -> dict[str, tuple[int, ...]]:
    """For the weight of every linear layer, inputs × inputs."""
    return {key: (layer.in_features, layer.in_features) for key, layer in linear_layers(live).items()}


def linear_layers(live: LiveModel) -> dict[str, nn.Linear]:
    """The linear layers whose weight is merged, by its key; a decoder that is the token table is left out."""
    keys = {id(parameter): key for key, parameter in live.parameters.items()}
    modules = list(live.model.modules())
    tables = {id(module.weight) for module in modules if isinstance(module, nn.Embedding)}
    layers = [
        module for module in modules if isinstance(module, nn.Linear) and id(module.weight) not in tables
    ]
    return {keys[id(layer.weight)]: layer for layer in layers if id(layer.weight) in keys}


def batches(task: TaskProbe, seed: int) -> list[Batch]:
    """All records at once, or as many as a search reads: labels and order do not matter here.

    Of a search model the columns are the questions and the texts, each once.
    """
    batch = task.sample(len(task.dataset), seed)
    if isinstance(task, SearchProbe):
        pairs: Sequence[Any] = texts_of([batch])
        batch = Batch(task.name, [list(dict.fromkeys(side)) for side in zip(*pairs, strict=True)], None)
    return [batch]


@torch.no_grad()
def gather(live: LiveModel, task: TaskProbe, batches: Sequence[Batch], totals: Totals) -> Iterator[int]:
    """Add the mean of x xᵀ over all inputs x of each layer: per token, or per text after pooling.

    It yields the number of texts of each group when that is done.
    """
    counts: dict[str, int] = defaultdict(int)
    layers = linear_layers(live)
    sums = {key: torch.from_numpy(totals[key]) for key in layers}

    def hook_for(key: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def add(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            inputs = arguments[0].detach().float().reshape(-1, arguments[0].shape[-1])
            sums[key].add_((inputs.T @ inputs).to(sums[key]))
            counts[key] += len(inputs)

        return add

    handles = [layer.register_forward_pre_hook(hook_for(key)) for key, layer in layers.items()]
    try:
        if isinstance(task, SearchProbe):
            ((questions, texts),) = (batch.columns for batch in batches)
            for question in questions:  # one at a time: nothing is padded
                embedded(live.model, [question], [])
                yield 1
            for text in texts:
                embedded(live.model, [], [text])
                yield 1
        else:
            for group in texts_of_equal_length(live, texts_of(batches)):
                live.forward(group)
                yield len(group)
    finally:
        for handle in handles:
            handle.remove()
    for key, inputs in counts.items():
        totals[key][:] /= inputs


def texts_of_equal_length(live: LiveModel, texts: Sequence[str]) -> list[list[str]]:
    """The texts in groups of equally many tokens: nothing is padded, so only tokens go through the layers."""
    groups: dict[int, list[str]] = defaultdict(list)
    for text, length in zip(texts, live.token_counts(texts), strict=True):
        groups[length].append(text)
    chunks = []
    for group in groups.values():
        chunks += [group[start : start + CHUNK] for start in range(0, len(group), CHUNK)]
    return chunks
