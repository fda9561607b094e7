"""PEFT adapters: which tensors of the base one moves, and how. What cannot be merged exactly is refused."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import ADAPTER, ADAPTER_WEIGHTS
from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.tensor_file import TensorEntry, read_header
from selfpos.vectors.parts import Dense, Dora, LowRank, Maps, Shift, TensorPart

# Options under which an adapter is more than W + scaling·B·A, so that no merged weight equals it.
UNSUPPORTED_OPTIONS = {
    "use_qalora": "its input is pooled in groups",
    "use_bdlora": "its factors are block-diagonal",
    "alora_invocation_tokens": "it acts only after a trigger token",
    "layer_replication": "it adds layers",
    "trainable_token_indices": "it replaces single token embeddings",
    "target_parameters": "it adapts bare parameters",
    "arrow_config": "it routes between adapters",
    "velora_config": "it compresses activations",
    "monteclora_config": "it samples its weights",
    "kasa_config": "it adapts singular values",
}
# The other initialisations (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) change the base, so V is not B·A alone.
BASE_PRESERVING_INITS = {"True", "False", "true", "false", "gaussian", "eva", "orthogonal"}
FIRST_FACTORS = ("A.weight", "embedding_A")
OTHER_PARTS = ("B.weight", "embedding_B", "magnitude_vector", "magnitude_vector.weight")


def adapter_parts(folder: ModelFolder, base: ModelFolder) -> dict[str, TensorPart]:
    """The tensors of `base` that the adapter moves, by key.

    Raises SelfposError when the adapter is incomplete, of another architecture, or neither LoRA nor DoRA.
    """
    config = _checked_config(folder)
    file = folder.path / ADAPTER_WEIGHTS
    if not file.is_file():
        pickled = (folder.path / "adapter_model.bin").exists()
        reason = "its weights are a pickle, which is never loaded" if pickled else "the file is missing"
        raise SelfposError(
            f"adapter {folder.path} has no {ADAPTER_WEIGHTS}: {reason}; save it again with PEFT"
        )
    reader = _AdapterReader(folder, base, config, read_header(file)[0])
    parts: dict[str, TensorPart] = {}
    for name in reader.entries:
        parts |= reader.part(name)
    if not parts:
        raise SelfposError(f"{file} holds no tensor; save the adapter again")
    return parts


def _checked_config(folder: ModelFolder) -> dict[str, Any]:
    config = folder.config(ADAPTER)
    if config.get("peft_type") != "LORA":
        raise SelfposError(
            f"adapter {folder.path} is of type {config.get('peft_type')}; only LORA is merged exactly: merge "
            "it into its base with PEFT first"
        )
    for option, reason in UNSUPPORTED_OPTIONS.items():
        if config.get(option):
            raise SelfposError(
                f"adapter {folder.path} uses {option}: {reason}, so no merged weight equals it"
            )
    init = str(config.get("init_lora_weights", True))
    if init not in BASE_PRESERVING_INITS:
        raise SelfposError(
            f"adapter {folder.path} was started with {init}, which changes the base too, so its factors are "
            "not the task vector; save it with PEFT's path_initial_model_for_weight_conversion"
        )
    return config


@dataclass(frozen=True)
class _AdapterReader:
    folder: ModelFolder
    base: ModelFolder
    config: dict[str, Any]
    entries: dict[str, TensorEntry]
    maps: Maps = field(default_factory=dict)

    def part(self, name: str) -> dict[str, TensorPart]:
        """What the tensor `name` adds, by the base's key; empty for tensors that belong to another."""
        entry = self.entries[name]
        parameter = name.removeprefix("base_model.model.")
        module, lora, kind = parameter.partition(".lora_")
        if not lora:
            key = self._key(parameter.replace(".base_layer.", "."))
            return {key: Dense(self._checked_shape(entry, key), self.maps)}
        if kind in FIRST_FACTORS:
            key = self._key(f"{module}.weight")
            return {key: self._low_rank(entry, module, key)}
        if kind not in (*OTHER_PARTS, "B.bias"):
            raise SelfposError(
                f"{entry.file}: tensor {name} is not a known part of a LoRA adapter; merge it into its base "
                "with PEFT"
            )
        first = name.removesuffix(kind)
        if not any(f"{first}{factor}" in self.entries for factor in FIRST_FACTORS):
            raise SelfposError(f"{entry.file}: tensor {name} has no matching lora_A; save the adapter again")
        if kind != "B.bias":
            return {}
        key = self._key(f"{module}.bias")
        rank = self.entries[f"{first}A.weight"].shape[0]
        return {key: Shift(self._checked_shape(entry, key), self._scaling(module, rank), self.maps)}

    def _low_rank(self, a: TensorEntry, module: str, key: str) -> TensorPart:
        name = a.name
        b_name = name.replace(".lora_A.", ".lora_B.").replace(".lora_embedding_A", ".lora_embedding_B")
        b = self.entries.get(b_name)
        if b is None:
            raise SelfposError(f"{a.file}: tensor {name} has no matching lora_B; save the adapter again")
        if min(len(a.shape), len(b.shape)) < 2 or not (a.numel and b.numel):
            shapes = f"{list(a.shape)} and {list(b.shape)}"
            raise SelfposError(f"{a.file}: {name} and its lora_B have shapes {shapes}; expected two matrices")
        transposed = name.endswith("embedding_A") or bool(self.config.get("fan_in_fan_out"))
        rank, width, height = a.shape[0], math.prod(a.shape[1:]), b.shape[0]
        product = (width, height) if transposed else (height, width)
        shape = self.base.tensors[key].shape
        if math.prod(b.shape[1:]) != rank or product != (shape[0], math.prod(shape[1:])):
            raise SelfposError(
                f"{a.file}: {name} and its lora_B make a matrix of shape {list(product)}; tensor {key} of "
                f"the base has {list(shape)}"
            )
        part = LowRank(a, b, self._scaling(module, rank), transposed, self.maps)
        vector = f"{name.partition('.lora_')[0]}.lora_magnitude_vector"
        magnitude = self.entries.get(vector, self.entries.get(f"{vector}.weight"))
        if magnitude is None and not self.config.get("use_dora"):
            return part
        if magnitude is None or transposed or len(shape) != 2:
            raise SelfposError(
                f"adapter {self.folder.path} uses DoRA on {module}, which is supported for plain linear "
                "layers only; merge it with PEFT first"
            )
        if magnitude.numel != shape[0]:
            raise SelfposError(
                f"{a.file}: tensor {magnitude.name} has {magnitude.numel} elements; expected {shape[0]}, one "
                f"per row of {key}"
            )
        return Dora(part, magnitude, self.base, key, self.maps)

    def _scaling(self, module: str, rank: int) -> float:
        """alpha / rank, or alpha / √rank for rank-stabilised LoRA, with PEFT's patterns of module names."""
        patterns: dict[str, float] = self.config.get("alpha_pattern") or {}
        matching = (pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module))
        alpha = patterns.get(next(matching, ""), self.config.get("lora_alpha", 8))
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank

    def _key(self, parameter: str) -> str:
        """The base's key for a parameter: its name, or the only key that differs by a prefix."""
        keys = self.base.tensors
        if parameter in keys:
            return parameter
        near = [key for key in keys if key.endswith(f".{parameter}") or parameter.endswith(f".{key}")]
        if len(near) == 1:
            return near[0]
        reason = f"several fit: {', '.join(sorted(near)[:3])}" if near else "the base has none of that name"
        raise SelfposError(
            f"adapter {self.folder.path} moves {parameter}, but {reason}; expected an adapter trained on "
            f"{self.base.path}"
        )

    def _checked_shape(self, entry: TensorEntry, key: str) -> TensorEntry:
        shape = self.base.tensors[key].shape
        if entry.shape != shape:
            raise SelfposError(
                f"adapter {self.folder.path}: {entry.name} has shape {list(entry.shape)}; tensor {key} of "
                f"the base has {list(shape)}"
            )
        return entry
