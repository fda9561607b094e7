"""How deep in the network a tensor lies, read from its name."""

from __future__ import annotations

import re
from collections.abc import Iterable

NUMBER = re.compile(r"(?:^|[./])(\d+)\.")
EMBEDDING = re.compile(r"embed|relative_attention_bias|(^|[./])(wte|wpe|shared)\.")


def layer_of(key: str) -> int | None:
    """The layer's number: the first number that stands alone in a tensor's name; None outside the layers. Module folders do not count."""
    found = NUMBER.search(key.rpartition("/")[2])
    return int(found[1]) if found and "/" not in key else None


def is_embedding(key: str) -> bool:
    """Whether a tensor is a table of embeddings, by its name, tokens' or (relative) positions', rather than a linear map."""
    return EMBEDDING.search(key) is not None


def depths(keys: Iterable[str]) -> dict[str, float]:
    """Each tensor's depth: 0 for the first layer, 1 for the last; embeddings lie at 0, whatever follows the layers (norm, pooler, Dense) at 1."""
    layers = {key: layer_of(key) for key in keys}
    last = max((layer for layer in layers.values() if layer is not None), default=0)
    outside = {key: 0.0 if is_embedding(key) else 1.0 for key in layers}
    return {
        key: outside[key] if layer is None else layer / last if last else 0.0 for key, layer in layers.items()
    }
