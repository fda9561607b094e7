"""Modules, pooling, prompts and sizes of a model, read from its JSON files and safetensors headers only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import ADAPTER, CONFIG, MODULES, PROMPTS_CONFIG
from selfpos.storage.manifest import read_json
from selfpos.storage.model_folder import read_modules
from selfpos.storage.tensor_file import read_header

POOLINGS = ("mean", "cls", "lasttoken")  # those that the card shows code for


@dataclass(frozen=True)
class ModelSummary:
    """A model from the outside.

    `pooling`, `dimension` and `max_tokens` are None where the folder does not say.
    """

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
    def transformers_pooling(self) -> str | None:
        """The pooling to show plain transformers code for; None where more code would be needed."""
        inner = [kind for kind in self.modules if kind != "Normalize"]
        return self.pooling if inner == ["Transformer", "Pooling"] and self.pooling in POOLINGS else None


def read_summary(folder: Path) -> ModelSummary:
    """Summarise the sentence-transformers model or the PEFT adapter in `folder`.

    Raises SelfposError where it is neither, or where a weights file is not a whole safetensors file.
    """
    adapter = _json(folder / ADAPTER) or None
    modules = []
    if (folder / MODULES).is_file():
        modules = [(module.kind, folder / module.path) for module in read_modules(folder)]
    elif adapter is None:
        raise SelfposError(
            f"{folder} is neither a sentence-transformers model (no modules.json) "
            f"nor a PEFT adapter (no {ADAPTER})"
        )
    settings = _json(folder / PROMPTS_CONFIG)
    pooling, dimension = _output(modules)
    weights = _weights(folder)
    return ModelSummary(
        modules=tuple(kind for kind, _ in modules),
        pooling=pooling,
        dimension=dimension,
        max_tokens=_max_tokens(next((path for kind, path in modules if kind == "Transformer"), folder)),
        prompts=settings.get("prompts") or {},
        default_prompt=settings.get("default_prompt_name"),
        similarity=settings.get("similarity_fn_name"),
        parameters=sum(weights.values()),
        dtypes=tuple(sorted(weights, key=lambda dtype: (-weights[dtype], dtype))),
        adapter=adapter,
    )


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _output(modules: list[tuple[str, Path]]) -> tuple[str | None, int | None]:
    """Pooling mode and dimension of the embedding, which the last module that changes it decides."""
    pooling, dimension = None, None
    for kind, path in modules:
        config = _json(path / CONFIG)
        if kind == "Pooling":
            # Older versions of sentence-transformers wrote `pooling_mode_mean_tokens: true`.
            older = [name for name in config if name.startswith("pooling_mode_") and config[name] is True]
            modes = [name.removeprefix("pooling_mode_").partition("_token")[0] for name in older]
            mode = config.get("pooling_mode") or modes
            pooling = mode if isinstance(mode, str) else "+".join(mode)
            width = config.get("embedding_dimension") or config.get("word_embedding_dimension")
            dimension = width * len(pooling.split("+")) if width else None
        elif kind == "Dense":
            dimension = config.get("out_features") or dimension
        elif kind == "Transformer" and dimension is None:
            dimension = config.get("hidden_size")
    return pooling, dimension


def _max_tokens(transformer: Path) -> int | None:
    """The sentence-transformers limit if set, else the smaller of those of tokenizer and network."""
    for name in ("sentence_bert_config.json", "sentence_roberta_config.json"):
        if limit := _json(transformer / name).get("max_seq_length"):
            return int(limit)
    tokenizer = _json(transformer / "tokenizer_config.json").get("model_max_length")
    network = _json(transformer / CONFIG).get("max_position_embeddings")
    # A tokenizer without a limit records a huge number.
    limits = [limit for limit in (tokenizer, network) if isinstance(limit, int | float) and 0 < limit < 10**9]
    return int(min(limits)) if limits else None


def _weights(folder: Path) -> dict[str, int]:
    """Dtype → number of float weights in the safetensors files."""
    counts: dict[str, int] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        for entry in read_header(file)[0].values():
            if entry.mergeable:  # not a buffer of integers, such as position ids
                counts[entry.dtype] = counts.get(entry.dtype, 0) + entry.numel
    return counts
