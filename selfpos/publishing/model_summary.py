"""Modules, pooling, prompts and sizes of a model, read from its JSON files and safetensors headers only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.manifest import read_json
from selfpos.storage.model_folder import read_modules
from selfpos.storage.tensor_file import read_header

ADAPTER = "adapter_config.json"
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
    adapter_file, modules_file = folder / ADAPTER, folder / "modules.json"
    if not adapter_file.is_file() and not modules_file.is_file():
        raise SelfposError(
            f"{folder} is neither a sentence-transformers model (no modules.json) "
            f"nor a PEFT adapter (no {ADAPTER})"
        )
    modules = []
    if modules_file.is_file():
        modules = [(module.kind, folder / module.path) for module in read_modules(folder)]
    settings = read_json_if_any(folder / "config_sentence_transformers.json")
    pooling, dimension = _output(modules)
    parameters, dtypes = _weights(folder)
    return ModelSummary(
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


def read_json_if_any(path: Path) -> Any:
    """The JSON value in `path`; an empty mapping where the file is absent.

    Raises SelfposError where it is not JSON.
    """
    return read_json(path) if path.is_file() else {}


def _output(modules: list[tuple[str, Path]]) -> tuple[str | None, int | None]:
    """Pooling mode and dimension of the embedding, which the last module that changes it decides."""
    pooling, dimension = None, None
    for kind, path in modules:
        config = read_json_if_any(path / "config.json")
        if kind == "Pooling":
            mode = config.get("pooling_mode") or _older_modes(config)
            pooling = mode if isinstance(mode, str) else "+".join(mode)
            width = config.get("embedding_dimension") or config.get("word_embedding_dimension")
            dimension = width * len(pooling.split("+")) if width else None
        elif kind == "Dense":
            dimension = config.get("out_features") or dimension
        elif kind == "Transformer" and dimension is None:
            dimension = config.get("hidden_size")
    return pooling, dimension


def _older_modes(config: Mapping[str, Any]) -> list[str]:
    """Pooling modes as older versions of sentence-transformers wrote them:

    `pooling_mode_mean_tokens: true`.
    """
    modes = []
    for name, value in config.items():
        if name.startswith("pooling_mode_") and value is True:
            mode = name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            modes.append(mode)
    return modes


def _max_tokens(folder: Path, modules: list[tuple[str, Path]]) -> int | None:
    """The sentence-transformers limit if set, else the smaller of those of tokenizer and network."""
    path = next((path for kind, path in modules if kind == "Transformer"), folder)
    for name in ("sentence_bert_config.json", "sentence_roberta_config.json"):
        limit = read_json_if_any(path / name).get("max_seq_length")
        if limit:
            return int(limit)
    tokenizer = read_json_if_any(path / "tokenizer_config.json").get("model_max_length")
    network = read_json_if_any(path / "config.json").get("max_position_embeddings")
    # A tokenizer without a limit records a huge number.
    limits = [limit for limit in (tokenizer, network) if isinstance(limit, int | float) and 0 < limit < 10**9]
    return int(min(limits)) if limits else None


def _weights(folder: Path) -> tuple[int, tuple[str, ...]]:
    """Number of float weights in the safetensors files, and their dtypes, the most common first."""
    count: dict[str, int] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        for entry in read_header(file)[0].values():
            if entry.mergeable:  # not a buffer of integers, such as position ids
                count[entry.dtype] = count.get(entry.dtype, 0) + entry.numel
    return sum(count.values()), tuple(sorted(count, key=lambda dtype: (-count[dtype], dtype)))
