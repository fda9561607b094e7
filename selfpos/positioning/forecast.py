"""How long the default search takes on this machine, by a part of its texts that is embedded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selfpos.data.probe import ProbeTask
from selfpos.passes import batches, budget_of, spread
from selfpos.positioning.draws import split_probe
from selfpos.positioning.folds import searched_records
from selfpos.positioning.linearisation import check_derivatives
from selfpos.positioning.linearised import SCALES
from selfpos.positioning.live import LiveModel
from selfpos.positioning.objective import TaskProbe
from selfpos.positioning.position import open_live, probe_for
from selfpos.positioning.problem import hierarchy
from selfpos.recipe import PositioningSettings
from selfpos.storage.model_class import MULTI_VECTOR, SPARSE, class_of
from selfpos.tasks.similarity import embedded, sides
from selfpos.tasks.texts import TEXTS

TRIED = 10
"""Batches of texts that are embedded to learn how fast the rest goes."""
COMPARED = 64
"""Questions, and texts, that models with a similarity of their own embed for it."""
PATIENCE = 20.0
"""Seconds after which no further batch is tried."""
BATCHES = 120 << 20
"""Bytes for tokens, the batches that are embedded and the solver; measured on all-MiniLM-L6-v2."""
KEPT = 4
"""Points whose embeddings a search keeps: the base, the tuned scale, the best one and the one it tries."""


@dataclass(frozen=True)
class Forecast:
    """A search embeds `texts` distinct texts at `fewest` to `most` points, in `seconds` a point.

    `seconds` are those of one process with the threads that are set. `memory` is the bytes beyond the
    imported libraries: of the model, the embeddings that are kept and their derivatives.
    """

    texts: int
    fewest: int
    most: int
    seconds: float
    memory: int


@dataclass(frozen=True)
class _Trial:
    """Seconds for setting the weights and for embedding all texts; the width of what is kept of a text, and
    the bytes of embeddings that are only compared.
    """

    set_weights: float
    embed: float
    width: int
    compared: int


def forecast(
    base: Path,
    sources: Sequence[Path],
    probe: Mapping[str, ProbeTask],
    settings: PositioningSettings,
    *,
    seed: int,
    device: str | None = None,
) -> Forecast:
    """What `position` with the same arguments takes, of search linearised. Embeds a part of its texts.

    Not in it: separating the vectors, points that are tried after a step that failed, and the points at which
    specialists embed texts without labels where they are no rivals.

    Raises:
        SelfposError: the search would be refused: for its base, or for the memory of its derivatives.
    """
    kind = class_of(base)
    plain = settings.model_copy(update={"separate": False})
    live = open_live(base, sources, plain, device, kind=kind)
    parts, _ = split_probe(probe_for(base, probe), 0.0, seed, settings.temperature)
    texts = list(dict.fromkeys(text for task in parts.values() for text in _texts(task, seed)))
    trial = _try(live, texts)
    _, lookup = hierarchy(live.keys, settings.granularity)
    directions = len(sources) * len(torch.unique(lookup, dim=0))
    check_derivatives(directions, len(texts), trial.width)
    fewest, most = points(directions, len(sources), settings)
    weights = sum(parameter.numel() for parameter in live.model.parameters())
    kept = (directions + KEPT) * len(texts) * trial.width
    memory = 4 * (weights + kept) + trial.compared + BATCHES
    count = sum(map(len, sides(texts))) if kind in (SPARSE, MULTI_VECTOR) else len(texts)
    return Forecast(count, fewest, most, trial.set_weights + trial.embed, memory)


def points(directions: int, vectors: int, settings: PositioningSettings) -> tuple[int, int]:
    """The fewest and the most points at which a search embeds its texts, where every step succeeds.

    A round takes the derivatives along all `directions`, or keeps those of the round before. With `compare`
    each of `vectors` is embedded by itself, as a rival of the point.
    """
    fixed = 1 + len(SCALES) + vectors * settings.compare
    beyond = 2  # a scale above SCALES, and the tuned one
    return fixed + directions + 1, fixed + beyond + settings.rounds * (directions + 1)


def _texts(task: TaskProbe, seed: int) -> Sequence[Any]:
    if task.type is TEXTS:
        return list(task.dataset["text"])
    return task.smooth(searched_records(task, seed), task.temperature).texts


@torch.no_grad()
def _try(live: LiveModel, texts: Sequence[Any]) -> _Trial:
    began = time.perf_counter()
    live.set_coefficients(torch.zeros(len(live.keys), len(live.vectors), dtype=torch.float64))
    set_weights = time.perf_counter() - began
    if live.kind in (SPARSE, MULTI_VECTOR):
        return _Trial(set_weights, *_try_sides(live, texts))
    tokens = live.token_counts(texts)

    def work(rows: Sequence[int]) -> int:
        return len(rows) * max(tokens[row] for row in rows)

    chunks = list(batches(tokens, budget_of(live.device)))
    width = live.embed(texts[:1]).shape[1]  # the first pass is slower
    seconds, done = 0.0, 0
    for chunk in spread(chunks, TRIED):
        began = time.perf_counter()
        live.embed([texts[row] for row in chunk])
        seconds += time.perf_counter() - began
        done += work(chunk)
        if seconds > PATIENCE:
            break
    return _Trial(set_weights, seconds * sum(map(work, chunks)) / done, width, 0)


def _try_sides(live: LiveModel, pairs: Sequence[tuple[str, str]]) -> tuple[float, int, int]:
    """Seconds, width and bytes of models that embed each question and each text once, and compare them."""
    whole = sides(pairs)
    part = [spread(side, COMPARED) for side in whole]
    embedded(live.model, *(side[:1] for side in part))
    began = time.perf_counter()
    vectors = embedded(live.model, *part)
    seconds = time.perf_counter() - began
    more = sum(map(len, whole)) / sum(map(len, part))
    size = sum(vector.numel() * vector.element_size() for side in vectors for vector in side)
    return seconds * more, 1, round(size * more)
