"""What a tensor's name says: its layer, its depth, and whether it is a table of embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = re.compile(r"(?:^|\.)(\d+)\.")
_OF_A_LIST = re.compile(r"(?:^|[./])(?:layers?|h|blocks?|resblocks)\.(\d+)\.")
_LAYER = re.compile(r"^((?:[^.]*\.)*?\d+)\.")
_EMBEDDING = re.compile(r"embed|relative_attention_bias|(^|[./])(wte|wpe|shared)\.")
_TOKEN_TABLE = re.compile(
    r"word_embeddings|embed_tokens|tok_embeddings|token_embedding\.|(^|[./])(wte|shared|embedding)\.weight"
    r"|(^|/)embeddings$"
)
_OUTPUT_TABLE = re.compile(r"(^|[./])(lm_head|decoder|embed_out)\.weight$")


def layer_number(key: str) -> int | None:
    """The first number that stands alone, in a module's own folder that of a list of layers; else None."""
    match = (_OF_A_LIST if "/" in key else _NUMBER).search(key)
    return int(match[1]) if match else None


def layer_name(key: str) -> str:
    """The layer's name: up to the first number (`encoder.layer.3`), else the first part (`embeddings`)."""
    match = _LAYER.match(key)
    return match[1] if match else key.split(".")[0]


def is_embedding(key: str) -> bool:
    """Whether a tensor is a table of embeddings, of tokens or of (relative) positions."""
    return _EMBEDDING.search(key) is not None


def is_token_table(key: str) -> bool:
    """Whether a tensor has one row per token of the vocabulary."""
    return _TOKEN_TABLE.search(key) is not None


def may_be_tied(key: str) -> bool:
    """Whether a tensor is a table of tokens, or the decoder that often is one with it."""
    return is_token_table(key) or _OUTPUT_TABLE.search(key) is not None


def is_linear_map(key: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the matrix of a linear map: no table of embeddings, no single row or column."""
    return len(shape) == 2 and min(shape) > 1 and not is_embedding(key)


def depths(keys: Iterable[str]) -> dict[str, float]:
    """Each tensor's depth: 0 for embeddings and the first layer, 1 for the last and what follows.

    Networks in folders of their own have depths of their own.
    """
    layers = {key: layer_number(key) for key in keys}
    last: dict[str, int] = {}
    for key, layer in layers.items():
        folder = key.rpartition("/")[0]
        last[folder] = max(last.get(folder, 0), layer or 0)
    depth = {}
    for key, layer in layers.items():
        deepest = last[key.rpartition("/")[0]]
        if layer is None:
            depth[key] = 0.0 if is_embedding(key) else 1.0
        else:
            depth[key] = layer / deepest if deepest else 0.0
    return depth
