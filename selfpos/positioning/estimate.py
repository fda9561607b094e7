"""How long the default search takes on this machine, by a part of its texts that is embedded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from selfpos.data.probe import ProbeTask
from selfpos.passes import batches, budget_of
from selfpos.positioning.draws import split_probe
from selfpos.positioning.folds import searched_records
from selfpos.positioning.linearised import SCALES
from selfpos.positioning.live import LiveModel
from selfpos.positioning.objective import TaskProbe
from selfpos.positioning.position import open_live, probe_for
from selfpos.positioning.problem import hierarchy
from selfpos.recipe import PositioningSettings
from selfpos.storage.model_class import MULTI_VECTOR, SPARSE, class_of
from selfpos.tasks.similarity import sides
from selfpos.tasks.texts import TEXTS

TRIED = 10
"""Batches of texts that are embedded to learn how fast the rest goes."""
COMPARED = 64
"""Questions, and texts, that are embedded by models with a similarity of their own."""
BATCHES = 120 << 20
"""Bytes for tokens, the batches that are embedded and the solver; measured on all-MiniLM-L6-v2."""
KEPT = 4
"""Points whose embeddings a search keeps: the base, the tuned scale, the best one and the one it tries."""


@dataclass(frozen=True)
class Forecast:
    """A search embeds `texts` distinct texts at `fewest` to `most` points, in `seconds` a point.

    `memory` is the bytes beyond the imported libraries: of the model, the embeddings that are kept and their
    derivatives.
    """

    texts: int
    fewest: int
    most: int
    seconds: float
    memory: int


def forecast(
    base: Path,
    sources: Sequence[Path],
    probe: Mapping[str, ProbeTask],
    settings: PositioningSettings,
    *,
    seed: int,
    device: str | None = None,
) -> Forecast:
    """What `position` with the same arguments takes, of search linearised. Embeds a part of its texts twice.

    Not in it: the time for separating the vectors, and points that are tried after a step that failed.
    """
    kind = class_of(base)
    plain = settings.model_copy(update={"separate": False})
    live = open_live(base, sources, plain, device, kind=kind)
    parts, _ = split_probe(probe_for(base, probe), 0.0, seed, settings.temperature)
    texts = list(dict.fromkeys(text for task in parts.values() for text in _texts(task, seed)))
    set_weights, embed, width = _try(live, texts)
    rows, _ = hierarchy(live.keys, settings.granularity)
    directions = len(sources) * max(1, len(rows) - 1)
    fewest, most = points(directions, len(sources), settings)
    weights = sum(parameter.numel() for parameter in live.model.parameters())
    memory = 4 * (weights + (directions + KEPT) * len(texts) * width) + BATCHES
    count = sum(map(len, sides(texts))) if kind in (SPARSE, MULTI_VECTOR) else len(texts)
    return Forecast(count, fewest, most, set_weights + embed, memory)


def points(directions: int, vectors: int, settings: PositioningSettings) -> tuple[int, int]:
    """The fewest and the most points at which a search embeds its texts, where every step succeeds.

    Derivatives along `directions` are taken anew in a round unless they foretold the last step well. Each of
    `vectors` is a rival of the point found, and is embedded by itself.
    """
    fixed = 1 + len(SCALES) + vectors * settings.compare
    beyond = 2  # a scale above SCALES, and the tuned one
    return fixed + directions + 1, fixed + beyond + settings.rounds * (directions + 1)


def _texts(task: TaskProbe, seed: int) -> Sequence[Any]:
    if task.type is TEXTS:
        return list(task.dataset["text"])
    return task.smooth(searched_records(task, seed), task.temperature).texts


def _try(live: LiveModel, texts: Sequence[Any]) -> tuple[float, float, int]:
    """The seconds for setting the weights and for embedding `texts`, and the width of an embedding."""
    table = torch.zeros(len(live.keys), len(live.vectors), dtype=torch.float64)
    part, share = _part(live, texts)
    with torch.no_grad():
        live.embed(part)  # tokenises them, as a search does once
        began = time.perf_counter()
        live.set_coefficients(table)
        between = time.perf_counter()
        width = live.embed(part).shape[1]
        ended = time.perf_counter()
    return between - began, (ended - between) / share, width


def _part(live: LiveModel, texts: Sequence[Any]) -> tuple[Sequence[Any], float]:
    """Some of `texts`, of all lengths, and their share of the work."""
    if live.kind in (SPARSE, MULTI_VECTOR):  # which embed each question and each text once
        questions, documents = (_spread(side, COMPARED) for side in sides(texts))
        longer = max(len(questions), len(documents))
        part = list(islice(zip(cycle(questions), cycle(documents), strict=False), longer))
        return part, (len(questions) + len(documents)) / sum(map(len, sides(texts)))
    tokens = live.token_counts(texts)
    chunks = list(batches(tokens, budget_of(live.device)))
    tried = _spread(chunks, TRIED)
    part = [texts[row] for chunk in tried for row in chunk]

    def work(some: Sequence[Sequence[int]]) -> int:
        return sum(len(chunk) * max(tokens[row] for row in chunk) for chunk in some)

    return part, work(tried) / max(work(chunks), 1)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of `items`, evenly spread."""
    count = min(most, len(items))
    return [items[(2 * index + 1) * len(items) // (2 * count)] for index in range(count)]
