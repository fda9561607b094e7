"""What a model folder says of itself: modules, pooling, prompts, sizes. Read from its JSON files and safetensors headers only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.tensor_file import read_header


@dataclass(frozen=True)
class Shape:
    """The outside of a model. `pooling`, `dimension` and `max_tokens` are None where the folder does not say."""

    modules: tuple[str, ...]
    pooling: str | None
    dimension: int | None
    max_tokens: int | None
    prompts: Mapping[str, str]
    default_prompt: str | None
    similarity: str | None
    parameters: int
    dtypes: tuple[str, ...]
    adapter: Mapping[str, Any] | None

    @property
    def transformers_usage(self) -> str | None:
        """The pooling to show code for with plain transformers, or None where other modules would have to be written out too."""
        inner = [kind for kind in self.modules if kind != "Normalize"]
        return (
            self.pooling
            if inner == ["Transformer", "Pooling"] and self.pooling in ("mean", "cls", "lasttoken")
            else None
        )


def read_shape(folder: Path) -> Shape:
    """Describe the sentence-transformers model or the PEFT adapter in `folder`.

    Raises SelfposError where it is neither, or where a weights file is not a whole safetensors file.
    """
    adapter_file, modules_file = folder / "adapter_config.json", folder / "modules.json"
    if not adapter_file.is_file() and not modules_file.is_file():
        raise SelfposError(
            f"{folder} is neither a sentence-transformers model (no modules.json) nor a PEFT adapter (no adapter_config.json)"
        )
    listed = read_json(modules_file) if modules_file.is_file() else []
    modules = [
        (str(entry.get("type", "")).rsplit(".", 1)[-1], folder / str(entry.get("path", "")))
        for entry in listed
    ]
    settings = read_json(folder / "config_sentence_transformers.json")
    parameters, dtypes = _weights(folder)
    pooling, dimension = _output(modules)
    return Shape(
        modules=tuple(kind for kind, _ in modules),
        pooling=pooling,
        dimension=dimension,
        max_tokens=_max_tokens(folder, modules),
        prompts=settings.get("prompts") or {},
        default_prompt=settings.get("default_prompt_name"),
        similarity=settings.get("similarity_fn_name"),
        parameters=parameters,
        dtypes=dtypes,
        adapter=read_json(adapter_file) if adapter_file.is_file() else None,
    )


def read_json(path: Path) -> Any:
    """The JSON value in `path`; an empty mapping where the file is absent. Raises SelfposError where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise SelfposError(f"{path} is not JSON: {error}") from None


def _output(modules: list[tuple[str, Path]]) -> tuple[str | None, int | None]:
    """Pooling mode and width of the embedding: of the last module that changes it."""
    pooling, dimension = None, None
    for kind, place in modules:
        config = read_json(place / "config.json")
        if kind == "Pooling":
            mode = config.get("pooling_mode") or [
                name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
                for name, on in config.items()
                if name.startswith("pooling_mode_") and on is True
            ]
            pooling = mode if isinstance(mode, str) else "+".join(mode)
            width = config.get("embedding_dimension") or config.get("word_embedding_dimension")
            dimension = width * len(pooling.split("+")) if width else None
        elif kind == "Dense":
            dimension = config.get("out_features") or dimension
        elif kind == "Transformer" and dimension is None:
            dimension = config.get("hidden_size")
    return pooling, dimension


def _max_tokens(folder: Path, modules: list[tuple[str, Path]]) -> int | None:
    """The sentence-transformers limit where set, else the smaller of the tokenizer's and the network's own."""
    place = next((place for kind, place in modules if kind == "Transformer"), folder)
    for name in ("sentence_bert_config.json", "sentence_roberta_config.json"):
        limit = read_json(place / name).get("max_seq_length")
        if limit:
            return int(limit)
    own = read_json(place / "tokenizer_config.json").get("model_max_length")
    network = read_json(place / "config.json").get("max_position_embeddings")
    limits = [int(value) for value in (own, network) if isinstance(value, int | float) and 0 < value < 10**9]
    return min(limits, default=None)


def _weights(folder: Path) -> tuple[int, tuple[str, ...]]:
    """Number of weights (floats) in the folder's safetensors files and the dtypes in which they are stored, the commonest first."""
    count: dict[str, int] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        for entry in read_header(file)[0].values():
            if not entry.mergeable:
                continue  # a buffer of integers, such as position ids
            count[entry.dtype] = count.get(entry.dtype, 0) + entry.numel
    return sum(count.values()), tuple(sorted(count, key=lambda dtype: (-count[dtype], dtype)))
