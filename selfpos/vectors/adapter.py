"""PEFT adapter folders: which tensors of the base an adapter moves, and how; what cannot be merged exactly is refused with the reason."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.model_folder import ADAPTER, ModelFolder, read_json
from selfpos.storage.tensor_file import TensorEntry, read_header
from selfpos.vectors.pieces import Dense, Dora, LowRank, Maps, Piece, Shift

ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Options under which an adapter is more than W + scaling·B·A, so that no merged weight says the same.
NOT_A_WEIGHT = {
    "use_qalora": "its input is pooled in groups",
    "use_bdlora": "its factors are block-diagonal",
    "alora_invocation_tokens": "it acts from a trigger token on only",
    "layer_replication": "it adds layers",
    "trainable_token_indices": "it replaces single token embeddings",
    "target_parameters": "it adapts bare parameters",
    "arrow_config": "it routes between adapters",
    "velora_config": "it compresses activations",
    "monteclora_config": "it samples its weights",
    "kasa_config": "it adapts singular values",
}
# Initialisations that leave the base as it is; the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) change it, so V is not B·A alone.
PLAIN_STARTS = {"True", "False", "true", "false", "gaussian", "eva", "orthogonal"}


def adapter_pieces(folder: Path, base: ModelFolder) -> dict[str, Piece]:
    """The moved tensors of `base` by key. Raises SelfposError when the adapter is torn, of another architecture, or no plain LoRA or DoRA."""
    config = _config(folder)
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        reason = (
            "its weights are a pickle, which is never loaded"
            if (folder / "adapter_model.bin").exists()
            else "the file is missing"
        )
        raise SelfposError(f"adapter {folder} has no {ADAPTER_WEIGHTS}: {reason}; save it again with PEFT")
    entries, _ = read_header(file)
    maps: Maps = {}
    pieces: dict[str, Piece] = {}
    for name in entries:
        parameter = name.removeprefix("base_model.model.")
        module, mark, part = parameter.partition(".lora_")
        if not mark:
            key = _base_key(base, folder, parameter.replace(".base_layer.", "."))
            pieces[key] = Dense(_shaped(entries[name], base.tensors[key], folder), maps)
        elif part in {"A.weight", "embedding_A"}:
            key = _base_key(base, folder, f"{module}.weight")
            pieces[key] = _low_rank(folder, base, config, entries, name, module, key, maps)
        elif part not in {"B.weight", "embedding_B", "B.bias", "magnitude_vector", "magnitude_vector.weight"}:
            raise SelfposError(
                f"{file}: tensor {name} is no part of a LoRA adapter that is known here; merge it into its base with PEFT first"
            )
        elif (
            not {f"{name.removesuffix(part)}{first}" for first in ("A.weight", "embedding_A")}
            & entries.keys()
        ):
            raise SelfposError(f"{file}: tensor {name} has no matching lora_A; save the adapter again")
        elif part == "B.bias":
            key = _base_key(base, folder, f"{module}.bias")
            rank = entries[name.replace("lora_B.bias", "lora_A.weight")].shape[0]
            pieces[key] = Shift(
                _shaped(entries[name], base.tensors[key], folder), _scaling(config, module, rank), maps
            )
    if not pieces:
        raise SelfposError(f"{file} holds no tensor; save the adapter again")
    return pieces


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / ADAPTER)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise SelfposError(
            f"adapter {folder} is of type {kind}; only LORA is merged exactly: merge it into its base with PEFT first"
        )
    for option, reason in NOT_A_WEIGHT.items():
        if config.get(option):
            raise SelfposError(f"adapter {folder} uses {option}: {reason}, so no merged weight equals it")
    start = str(config.get("init_lora_weights", True))
    if start not in PLAIN_STARTS:
        raise SelfposError(
            f"adapter {folder} was started with {start}, which changes the base too, so its factors are not the task vector; "
            "save it with PEFT's path_initial_model_for_weight_conversion"
        )
    return config


def _low_rank(
    folder: Path,
    base: ModelFolder,
    config: dict[str, Any],
    entries: dict[str, TensorEntry],
    name: str,
    module: str,
    key: str,
    maps: Maps,
) -> Piece:
    a = entries[name]
    b = entries.get(name.replace(".lora_A.", ".lora_B.").replace(".lora_embedding_A", ".lora_embedding_B"))
    if b is None:
        raise SelfposError(f"{a.file}: tensor {name} has no matching lora_B; save the adapter again")
    if min(len(a.shape), len(b.shape)) < 2 or not (a.numel and b.numel):
        raise SelfposError(
            f"{a.file}: {name} and its lora_B have shapes {list(a.shape)} and {list(b.shape)}; expected two matrices"
        )
    embedding = name.endswith("embedding_A")
    transposed = embedding or bool(config.get("fan_in_fan_out"))
    rank, width, height = a.shape[0], math.prod(a.shape[1:]), b.shape[0]
    found = (width, height) if transposed else (height, width)
    shape = base.tensors[key].shape
    if math.prod(b.shape[1:]) != rank or found != (shape[0], math.prod(shape[1:])):
        raise SelfposError(
            f"{a.file}: {name} and its lora_B make a matrix of shape {list(found)}; tensor {key} of the base has {list(shape)}"
        )
    piece = LowRank(a, b, _scaling(config, module, rank), transposed, maps)
    magnitudes = [
        entries[n]
        for part in ("", ".weight")
        if (n := f"{name.partition('.lora_')[0]}.lora_magnitude_vector{part}") in entries
    ]
    if not magnitudes and not config.get("use_dora"):
        return piece
    if not magnitudes or transposed or len(shape) != 2:
        raise SelfposError(
            f"adapter {folder} uses DoRA on {module}, which is merged for plain linear layers only; merge it with PEFT first"
        )
    if magnitudes[0].numel != shape[0]:
        raise SelfposError(
            f"{a.file}: tensor {magnitudes[0].name} has {magnitudes[0].numel} elements; expected {shape[0]}, one per row of {key}"
        )
    return Dora(piece, magnitudes[0], base, key, maps)


def _scaling(config: dict[str, Any], module: str, rank: int) -> float:
    """alpha / rank, or alpha / √rank for rank-stabilised LoRA, with PEFT's patterns of module names; `rank` is the stored factors' own."""
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    matching = (pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module))
    alpha = patterns.get(next(matching, ""), config.get("lora_alpha", 8))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _base_key(base: ModelFolder, folder: Path, parameter: str) -> str:
    """The base's key for a parameter of the adapter: the same name, or the only one that differs by a leading `model.` or `bert.` and the like."""
    if parameter in base.tensors:
        return parameter
    near = [key for key in base.tensors if key.endswith(f".{parameter}") or parameter.endswith(f".{key}")]
    if len(near) == 1:
        return near[0]
    found = f"several fit: {', '.join(sorted(near)[:3])}" if near else "the base has none of that name"
    raise SelfposError(
        f"adapter {folder} moves {parameter}, but {found}; expected an adapter trained on {base.path}"
    )


def _shaped(entry: TensorEntry, of_base: TensorEntry, folder: Path) -> TensorEntry:
    if entry.shape != of_base.shape:
        raise SelfposError(
            f"adapter {folder}: {entry.name} has shape {list(entry.shape)}; tensor {of_base.key} of the base has {list(of_base.shape)}"
        )
    return entry
