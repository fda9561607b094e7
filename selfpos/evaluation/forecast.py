"""How long an evaluation takes on this machine. Each task is run on stand-ins for embeddings, which says what
would be embedded and what the rest takes; then a part of the texts is embedded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mteb
import numpy as np

from selfpos.console import progress, quiet_libraries
from selfpos.errors import SelfposError
from selfpos.evaluation.embed import EncodingOptions
from selfpos.evaluation.encoder import Embedder, EncodeFunction, Encoder, identity, load_encoder
from selfpos.evaluation.run import check_tasks, run_task, stored_result
from selfpos.evaluation.store import key_of
from selfpos.passes import spread
from selfpos.storage.model_class import EMBEDDER, class_of

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

FIRST = 256
"""Texts that are embedded to learn how many more are tried."""
PATIENCE, PART = 10.0, 0.1
"""Seconds that the trial may take, about, and the part of the whole that it may be."""


@dataclass(frozen=True)
class Forecast:
    """What scoring a model takes.

    Attributes:
        texts: Task → distinct texts that are embedded for it and for no task before.
        scored: Tasks whose scores are there already.
        embedding: Seconds that the texts take.
        rest: Seconds that all else takes: reading data, classifiers, clusters, rankings.
    """

    texts: dict[str, int]
    scored: list[str]
    embedding: float
    rest: float


def forecast(
    model: Path, tasks: Sequence[AbsTask], out: Path, *, name: str | None = None, batch_size: int = 64
) -> Forecast:
    """What `evaluate` with the same arguments takes on this machine.

    Nothing is written; a damaged result file is removed, as by `evaluate`. Texts that a stopped evaluation
    embedded are counted again. The rest is measured with random embeddings, on which classifiers and
    clusterings may be slower or faster than on the model's.

    Raises:
        SelfposError: What `evaluate` refuses; a model of another class than SentenceTransformer.
        OperationError: A task cannot be run.
    """
    check_tasks(model, tasks, out)
    if class_of(model) != EMBEDDER:
        raise SelfposError(
            f"{model} is a {class_of(model)}; only of a SentenceTransformer is it known beforehand how long "
            "scoring takes: leave out --dry-run"
        )
    meta = identity(model, name or model.resolve().name)
    scored = [task.metadata.name for task in tasks if stored_result(task, out, meta) is not None]
    texts: dict[str, int] = {}
    began = time.perf_counter()
    with quiet_libraries(hide_warnings=True), TemporaryDirectory() as folder:
        encoder = load_encoder(model, meta)
        stand_in = encoder.embedder = _StandIn(encoder)
        with progress("trying", len(tasks) - len(scored), unit="tasks") as bar:
            for task in tasks:
                if task.metadata.name not in scored:
                    before = len(stand_in.texts)
                    run_task(encoder, task, mteb.ResultCache(folder), batch_size=batch_size)
                    texts[task.metadata.name] = len(stand_in.texts) - before
                    bar.advance(1, texts=len(stand_in.texts))
        rest = time.perf_counter() - began
        embedding = stand_in.seconds(batch_size)
    return Forecast(texts, scored, embedding, rest)


class _StandIn(Embedder):
    """Keeps the texts that would be embedded, and gives each a random vector of its own."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.model, {}, None)
        self.texts: dict[tuple[str, EncodingOptions], EncodeFunction] = {}

    def rows(
        self, texts: list[str], options: EncodingOptions, batch_size: int, plain: EncodeFunction
    ) -> np.ndarray:
        for text in texts:
            self.texts.setdefault((text, options), plain)
        vector_of = {text: self._vector(text) for text in set(texts)}
        return np.stack([vector_of[text] for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        generator = np.random.default_rng(np.frombuffer(key_of(text), np.uint32))
        return generator.standard_normal(self.dimension, np.float32)

    def seconds(self, batch_size: int) -> float:
        """Seconds for all texts, by an even sample of those ordered by length."""
        ordered = sorted(self.texts, key=lambda entry: len(entry[0]))
        if not ordered:
            return 0.0
        self._embed(spread(ordered, 8), batch_size)  # the first pass is slower
        sample = spread(ordered, FIRST)
        taken = self._embed(sample, batch_size)
        patience = min(PATIENCE, PART * taken * len(ordered) / len(sample))
        if patience > taken:
            sample = spread(ordered, round(len(sample) * patience / taken))
            taken = self._embed(sample, batch_size)
        return taken * len(ordered) / len(sample)

    def _embed(self, entries: Sequence[tuple[str, EncodingOptions]], batch_size: int) -> float:
        """Seconds that the texts take, each with its own options."""
        by_options: dict[EncodingOptions, list[str]] = {}
        for text, options in entries:
            by_options.setdefault(options, []).append(text)
        began = time.perf_counter()
        for options, texts in by_options.items():
            embedder = Embedder(self.model, {}, None)
            embedder.rows(texts, options, batch_size, self.texts[texts[0], options])
        return time.perf_counter() - began
