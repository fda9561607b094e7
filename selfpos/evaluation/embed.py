"""Texts to embeddings with little padding: tokenised, sorted by length, in batches of a budget of tokens.

On a CPU each core computes batches alone: that loses less than splitting every matrix product among the
cores, and the results do not depend on the number of cores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import truncate_embeddings

from selfpos.evaluation.store import Store, key_of
from selfpos.passes import MOST_TEXTS, TOKENISED_AT_ONCE, batches, budget_of, packed_layers

FEATURES = {"input_ids", "attention_mask", "token_type_ids"}


@dataclass(frozen=True)
class EncodingOptions:
    """The prompt before each text, and its side, `query` or `document`, where the model distinguishes."""

    prompt: str | None
    side: str | None = None

    @property
    def kwargs(self) -> dict[str, Any]:
        return {} if self.side is None else {"task": self.side}


def constant_features(model: SentenceTransformer, options: EncodingOptions) -> dict[str, Any] | None:
    """The features of the model besides tokens, their mask and types; None where it takes anything else."""
    first = model[0]
    special = getattr(first, "can_flatten_inputs", False) or getattr(first, "query_expansion", None)
    if type(first).__name__ != "Transformer" or special:
        return None
    features = model.preprocess(["a", "a a"], prompt=options.prompt, **options.kwargs)
    tensors = {name for name, value in features.items() if getattr(value, "ndim", 0)}
    if not {"input_ids", "attention_mask"} <= tensors <= FEATURES or features.get("modality") != "text":
        return None
    if first.tokenizer is None or first.tokenizer.pad_token_id is None:
        return None
    if np.any(np.asarray(features.get("token_type_ids", 0))):
        return None
    return {name: value for name, value in features.items() if name not in tensors}


def tokenizer_identity(model: SentenceTransformer, options: EncodingOptions) -> dict[str, Any] | None:
    """What determines the tokens of a text, as JSON, equal for all merges of one base; None if unknown."""
    first = model[0]
    backend = getattr(getattr(first, "tokenizer", None), "backend_tokenizer", None)
    if backend is None:
        return None
    names = ("max_seq_length", "query_length", "document_length", "do_lower_case")
    lengths = {name: getattr(first, name, None) for name in names}
    settings = [lengths, getattr(first, "processing_kwargs", None)]
    vocabulary = json.loads(backend.to_str())
    for name in ("padding", "truncation"):  # as the last call left them
        vocabulary.pop(name, None)
    return {
        "tokenizer": key_of(json.dumps(vocabulary)).hex(),
        "settings": json.dumps(settings, sort_keys=True, default=str),
        "prompt": options.prompt,
        "side": options.side,
    }


def tokenise(
    model: SentenceTransformer, texts: Sequence[str], options: EncodingOptions, store: Store
) -> list[np.ndarray]:
    """The token ids of each text, truncated, with special tokens; read from `store` or added to it."""
    keys = [key_of(text) for text in texts]
    rows: dict[int, np.ndarray] = {}
    for index, key in enumerate(keys):
        record = store.get(key)
        if record is not None:
            rows[index] = np.frombuffer(record, np.int32)
    missing = [index for index in range(len(texts)) if index not in rows]
    missing.sort(key=lambda index: len(texts[index]))
    for start in range(0, len(missing), TOKENISED_AT_ONCE):
        batch = missing[start : start + TOKENISED_AT_ONCE]
        some = [texts[index] for index in batch]
        features = model.preprocess(some, prompt=options.prompt, **options.kwargs)
        ids = features["input_ids"].numpy().astype(np.int32)
        mask = features["attention_mask"].numpy().astype(bool)
        for index, row, is_token in zip(batch, ids, mask, strict=True):
            rows[index] = row[is_token]
        store.put((keys[index], rows[index].tobytes()) for index in batch)
    return [rows[index] for index in range(len(texts))]


def embed(
    model: SentenceTransformer,
    tokens: Sequence[np.ndarray],
    options: EncodingOptions,
    extra: dict[str, Any],
    batch_size: int,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Embeddings of tokenised texts by batch: indices of `tokens`, and rows in float32, n×d."""
    groups = batches([len(row) for row in tokens], budget_of(model.device), max(batch_size, MOST_TEXTS))

    def work(group: list[int]) -> tuple[list[int], np.ndarray]:
        return group, _forward(model, [tokens[index] for index in group], options, extra)

    with packed_layers(model), _mapping(model.device.type) as compute:
        yield from compute(work, groups)


def _forward(
    model: SentenceTransformer, tokens: list[np.ndarray], options: EncodingOptions, extra: dict[str, Any]
) -> np.ndarray:
    tokenizer: Any = model[0].tokenizer
    width = max(len(row) for row in tokens)
    ids = np.full((len(tokens), width), tokenizer.pad_token_id, np.int64)
    mask = np.zeros((len(tokens), width), np.int64)
    for line, row in enumerate(tokens):
        columns = slice(0, len(row))
        if tokenizer.padding_side == "left":
            columns = slice(width - len(row), width)
        ids[line, columns], mask[line, columns] = row, 1
    features: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if "token_type_ids" in tokenizer.model_input_names:
        features["token_type_ids"] = torch.zeros_like(features["input_ids"])
    with torch.inference_mode():
        features = {name: value.to(model.device) for name, value in features.items()}
        rows = model({**features, **extra}, **options.kwargs)["sentence_embedding"]
        if model.truncate_dim is not None:
            rows = truncate_embeddings(rows, model.truncate_dim)
        return np.ascontiguousarray(rows.float().cpu().numpy())


@contextmanager
def _mapping(device: str) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map`: on a CPU with one thread for each that torch may use, otherwise Python's own."""
    threads = torch.get_num_threads()
    if device != "cpu" or threads == 1:
        yield map
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    torch.set_num_threads(1)
    try:
        yield pool.map
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)
