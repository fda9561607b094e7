"""Texts to embeddings with as little padding as can be: tokenised first, then sorted by their number of tokens, in batches of a budget of tokens.

`SentenceTransformer.encode` sorts by characters and counts texts, so that a batch of short texts is padded by a third, and one of long texts is
larger than the processor's caches. On CPU the batches go to one thread per core, each computing alone: that loses less than splitting every
matrix product among the cores, and the numbers do not depend on how many cores there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.evaluation.packed import packed_layers
from selfpos.evaluation.store import Store, key_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Tokens in one batch, padding included. On a CPU more only leaves the caches; a GPU wants to be filled.
BUDGET = {"cpu": 2048}
BUDGET_ELSEWHERE = 32768
TOKENISED_AT_ONCE = 256
FEATURES = {"input_ids", "attention_mask", "token_type_ids"}


@dataclass(frozen=True)
class Manner:
    """How a text is embedded, besides what it says: the prompt before it, and `query` or `document` where its side is known."""

    prompt: str | None
    side: str | None = None

    @property
    def kwargs(self) -> dict[str, Any]:
        return {} if self.side is None else {"task": self.side}


def packing(model: SentenceTransformer, manner: Manner) -> dict[str, Any] | None:
    """What else the model's features hold besides tokens, when tokens, their mask and their types are all that texts become; None for other models.

    Only where this is known may texts be tokenised apart from each other and padded again.
    """
    first = model[0]
    if (
        type(first).__name__ != "Transformer"
        or getattr(first, "can_flatten_inputs", False)
        or getattr(first, "query_expansion", None)
    ):
        return None
    features = model.preprocess(["a", "a a"], prompt=manner.prompt, **manner.kwargs)
    tensors = {name for name, value in features.items() if getattr(value, "ndim", 0)}
    if not {"input_ids", "attention_mask"} <= tensors <= FEATURES or features.get("modality") != "text":
        return None
    if (
        first.tokenizer is None
        or first.tokenizer.pad_token_id is None
        or bool(np.any(np.asarray(features.get("token_type_ids", 0))))
    ):
        return None
    return {name: value for name, value in features.items() if name not in tensors}


def tokenizer_identity(model: SentenceTransformer, manner: Manner) -> dict[str, Any] | None:
    """What decides the tokens of a text, JSON-serialisable: equal for all merges of one base. None where it cannot be told."""
    tokenizer = getattr(model[0], "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    first = model[0]
    limits = {
        name: getattr(first, name, None)
        for name in ("max_seq_length", "query_length", "document_length", "do_lower_case")
    }
    options = getattr(first, "processing_kwargs", None)
    spelled = json.dumps([limits, options], sort_keys=True, default=str)
    # Padding and truncation of the backend are whatever the last call set.
    vocabulary = {
        key: value
        for key, value in json.loads(backend.to_str()).items()
        if key not in ("padding", "truncation")
    }
    return {
        "tokenizer": key_of(json.dumps(vocabulary)).hex(),
        "settings": spelled,
        "prompt": manner.prompt,
        "side": manner.side,
    }


def tokenise(
    model: SentenceTransformer, texts: Sequence[str], manner: Manner, store: Store
) -> list[np.ndarray]:
    """The token numbers of each text, cut at the model's limit, special tokens included; those in `store` are read, the others added to it."""
    keys = [key_of(text) for text in texts]
    found = [store.get(key) for key in keys]
    rows: list[np.ndarray | None] = [
        None if record is None else np.frombuffer(record, np.int32) for record in found
    ]
    missing = sorted(
        (place for place, row in enumerate(rows) if row is None), key=lambda place: len(texts[place])
    )
    for start in range(0, len(missing), TOKENISED_AT_ONCE):
        places = missing[start : start + TOKENISED_AT_ONCE]
        features = model.preprocess([texts[place] for place in places], prompt=manner.prompt, **manner.kwargs)
        ids, mask = (
            features["input_ids"].numpy().astype(np.int32),
            features["attention_mask"].numpy().astype(bool),
        )
        new = [row[kept] for row, kept in zip(ids, mask, strict=True)]
        store.put((keys[place], row.tobytes()) for place, row in zip(places, new, strict=True))
        for place, row in zip(places, new, strict=True):
            rows[place] = row
    return [row for row in rows if row is not None]


def batches(lengths: Sequence[int], budget: int, most: int) -> Iterator[list[int]]:
    """Places in `lengths`, longest first, in groups of at most `most` whose padded size is at most `budget` (or one text)."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    start = 0
    while start < len(order):
        count = min(most, max(1, budget // max(1, lengths[order[start]])))
        yield order[start : start + count]
        start += count


def embed(
    model: SentenceTransformer,
    tokens: Sequence[np.ndarray],
    manner: Manner,
    extra: dict[str, Any],
    batch_size: int,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Embeddings of tokenised texts, batch by batch: places in `tokens`, and their rows in float32, n×d. `extra` is what `packing` found."""
    device = model.device.type
    # A batch of very short texts may hold more of them than `batch_size`: what costs is tokens.
    groups = batches([len(row) for row in tokens], BUDGET.get(device, BUDGET_ELSEWHERE), max(batch_size, 256))
    with packed_layers(model), _workers(device) as compute:
        yield from compute(
            lambda group: (group, _forward(model, [tokens[place] for place in group], manner, extra)), groups
        )


def _forward(
    model: SentenceTransformer, tokens: list[np.ndarray], manner: Manner, extra: dict[str, Any]
) -> np.ndarray:
    import torch
    from sentence_transformers.util import truncate_embeddings

    tokenizer: Any = model[0].tokenizer
    width = max(len(row) for row in tokens)
    ids = np.full((len(tokens), width), tokenizer.pad_token_id, np.int64)
    mask = np.zeros((len(tokens), width), np.int64)
    left = tokenizer.padding_side == "left"
    for line, row in enumerate(tokens):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[line, place], mask[line, place] = row, 1
    features: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if "token_type_ids" in tokenizer.model_input_names:
        features["token_type_ids"] = torch.zeros_like(features["input_ids"])
    with torch.inference_mode():
        features = {name: value.to(model.device) for name, value in features.items()}
        rows = model({**features, **extra}, **manner.kwargs)["sentence_embedding"]
        if model.truncate_dim is not None:
            rows = truncate_embeddings(rows, model.truncate_dim)
        return np.ascontiguousarray(rows.float().cpu().numpy())


@contextmanager
def _workers(device: str) -> Iterator[Any]:
    """A `map` of a function over an iterable: on CPU with one thread for each that torch may use, a few results ahead; elsewhere in turn."""
    import torch

    threads = torch.get_num_threads()
    if device != "cpu" or threads == 1:
        yield map
        return
    from collections import deque
    from concurrent.futures import Future, ThreadPoolExecutor

    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def compute(work: Any, items: Iterable[Any]) -> Iterator[Any]:
        ahead: deque[Future[Any]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    try:
        yield compute
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)
