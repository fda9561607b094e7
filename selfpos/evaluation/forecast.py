"""How long an evaluation takes on this machine. Each task is run on stand-ins for embeddings, which says what
would be embedded and what the rest takes; then a part of the texts is embedded.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mteb
import numpy as np

from selfpos.console import progress, quiet_libraries
from selfpos.errors import OperationError, SelfposError
from selfpos.evaluation.embed import EncodingOptions
from selfpos.evaluation.encoder import Embedder, EncodeFunction, Encoder, identity, load_encoder
from selfpos.evaluation.run import check_tasks, reason_of, run_task, stored_result
from selfpos.evaluation.store import key_of
from selfpos.passes import spread
from selfpos.storage.model_class import EMBEDDER, class_of

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.results import TaskResult

FIRST = 256
"""Texts that are embedded to learn how many more are tried."""
PATIENCE, PART = 10.0, 0.1
"""Seconds that the trial may take, about, and the part of the whole that it may be."""


@dataclass(frozen=True)
class Forecast:
    """What scoring a model takes.

    Attributes:
        texts: Task → distinct texts that are embedded for it: in no cache, and for no task before.
        scored: Tasks whose scores are there already.
        embedding: Seconds that the texts take.
        rest: Seconds that all else takes: reading data, classifiers, clusters, rankings.
    """

    texts: dict[str, int]
    scored: list[str]
    embedding: float
    rest: float


def check_forecast(model: Path, tasks: Sequence[AbsTask], out: Path) -> None:
    """Raise SelfposError for what `evaluate` refuses, and for a model that is no SentenceTransformer."""
    check_tasks(model, tasks, out)
    if class_of(model) != EMBEDDER:
        raise SelfposError(
            f"{model} is a {class_of(model)}; only of a SentenceTransformer is it known beforehand how long "
            "scoring takes: leave out --dry-run"
        )


def forecast(
    model: Path,
    tasks: Sequence[AbsTask],
    out: Path,
    *,
    name: str | None = None,
    batch_size: int = 64,
    cache: Path | None = None,
) -> Forecast:
    """What `evaluate` with the same arguments takes on this machine. Nothing is written.

    The rest is measured with random embeddings, on which classifiers and clusterings may be slower or faster
    than on the model's.

    Raises:
        SelfposError: See `check_forecast`.
        OperationError: A task fails.
    """
    check_forecast(model, tasks, out)
    meta = identity(model, name or model.resolve().name)
    stored = {task.metadata.name: stored_result(task, out, meta) for task in tasks}
    left = [
        task
        for task in tasks
        if not (found := stored[task.metadata.name]) or found.get_missing_evaluations(task)
    ]
    scored = [name for name in stored if name not in {task.metadata.name for task in left}]
    if not left:
        return Forecast({}, scored, 0.0, 0.0)
    texts: dict[str, int] = {}
    began = time.perf_counter()
    with quiet_libraries(hide_warnings=True), TemporaryDirectory() as folder:
        encoder = load_encoder(model, meta, cache)
        stand_in = encoder.embedder = _StandIn(encoder)
        results = mteb.ResultCache(folder)
        with progress("trying", len(left), unit="tasks") as bar:
            for task in left:
                title, before = task.metadata.name, len(stand_in.texts)
                try:
                    _try(encoder, task, results, stored[title], batch_size)
                except Exception as error:
                    raise OperationError(
                        f"task {title} fails on {model}: {reason_of(error)}; leave it out, or mend it"
                    ) from error
                texts[title] = len(stand_in.texts) - before
                bar.advance(1, texts=len(stand_in.texts))
        rest = time.perf_counter() - began
        embedding = stand_in.seconds(batch_size)
    return Forecast(texts, scored, embedding, rest)


def _try(
    encoder: Encoder, task: AbsTask, results: mteb.ResultCache, begun: TaskResult | None, batch_size: int
) -> None:
    """Run what is missing of a task, with `results` as the place for its results."""
    if begun is not None:
        file = results.get_task_result_path(task.metadata.name, encoder.mteb_model_meta)
        file.parent.mkdir(parents=True, exist_ok=True)
        begun.to_disk(file)
    strategy = "always" if begun is None else "only-missing"
    run_task(encoder, task, results, batch_size=batch_size, strategy=strategy)


class _StandIn(Embedder):
    """Keeps the texts that would be embedded, and gives each a random vector of its own."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.model, {}, None)
        self.texts: dict[tuple[str, EncodingOptions], EncodeFunction] = {}
        self._kept = functools.cache(encoder.embedder.kept)

    def rows(
        self, texts: list[str], options: EncodingOptions, batch_size: int, plain: EncodeFunction
    ) -> np.ndarray:
        kept = self._kept(options)
        for text in texts:
            if key_of(text) not in kept:
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
        shortest = list({entry[1]: entry for entry in reversed(ordered)}.values())
        self._embed(shortest, batch_size)  # the first pass is slower
        start = self._embed(shortest, batch_size)  # what each prompt costs, however many texts follow
        sample = spread(ordered, FIRST)
        taken = self._embed(sample, batch_size) - start
        patience = min(PATIENCE, PART * taken * len(ordered) / len(sample))
        if patience > taken:
            sample = spread(ordered, round(len(sample) * patience / taken))
            taken = self._embed(sample, batch_size) - start
        return start + max(0.0, taken) * len(ordered) / len(sample)

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
