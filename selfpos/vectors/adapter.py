"""PEFT adapters: which tensors of the base one moves, and how. What cannot be merged exactly is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import ADAPTER, ADAPTER_WEIGHTS, CONFIG
from selfpos.storage.locate import display_name, hub_snapshot, without_folders
from selfpos.storage.manifest import made_from
from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.networks import network_of
from selfpos.storage.numbers import TORCH
from selfpos.storage.tensor_file import TensorEntry, read_header
from selfpos.vectors.check import quantisation
from selfpos.vectors.match import copies_of, same_values, stored_parameters, unstored
from selfpos.vectors.names import layer_number, may_be_tied
from selfpos.vectors.parts import Dense, Dora, LowRank, Maps, MatchedRows, Shift, Sum, TensorPart
from selfpos.vectors.scaling import Scaling

# Options under which an adapter is more than W + scaling·B·A, so that no merged weight equals it.
UNSUPPORTED_OPTIONS = {
    "use_qalora": "its input is pooled in groups",
    "use_bdlora": "its factors are block-diagonal",
    "alora_invocation_tokens": "it acts only after a trigger token",
    "layer_replication": "it adds layers",
    "target_parameters": "it adapts bare parameters",
    "arrow_config": "it routes between adapters",
    "velora_config": "it compresses activations",
    "monteclora_config": "it samples its weights",
    "kasa_config": "it adapts singular values",
}
# The other initialisations (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) change the base, so V is not B·A alone.
BASE_PRESERVING_INITS = {"True", "False", "true", "false", "gaussian", "eva", "orthogonal", "mica"}
STARTED_ALIKE = ("pissa", "olora")
"""Those of the others that PEFT makes again as it loads an adapter: they need neither data nor chance."""
HEADS = ("lm_head", "score", "classifier", "classification_head", "cls", "qa_outputs", "pooler")
"""Modules of transformers' models that are heads of a task, on top of the network."""
FAN_IN_FIRST = ("gpt2", "openai-gpt")
"""Types of transformers' models whose layers are of Conv1D, which stores a matrix with its inputs first."""
TRAINED_ROWS = ".token_adapter.trainable_tokens_delta"
FIRST_FACTORS = ("A.weight", "embedding_A")
OTHER_PARTS = ("B.weight", "embedding_B", "magnitude_vector", "magnitude_vector.weight")


def adapter_parts(folder: ModelFolder, base: ModelFolder) -> tuple[dict[str, TensorPart], list[str]]:
    """The tensors of `base` that the adapter moves, by key; and what it holds besides, in sentences.

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
    entries = read_header(file)[0]
    heads = {name for name in entries if _head(_parameter(name)) and not _in_base(_parameter(name), base)}
    in_adapter = {name: entries[name] for name in entries.keys() - heads}
    reader = _AdapterReader(folder, base, config, Scaling(config, folder.path), in_adapter)
    parts: dict[str, TensorPart] = {}
    for name in entries:
        for key, part in reader.part(name).items() if name not in heads else ():
            parts[key] = _both(parts[key], part, folder) if key in parts else part
    if not parts:
        raise SelfposError(f"{file} holds no tensor; save the adapter again")
    parts |= _of_copies(base, parts, folder)
    of_heads = " and ".join(sorted({str(_head(_parameter(name))) for name in heads}))
    notes = [f"it also trains {of_heads}, which the base has not: left out"] if heads else []
    return parts, [*notes, *reader.notes, *_other_base(config, folder, base)]


def _other_base(config: Mapping[str, Any], folder: ModelFolder, base: ModelFolder) -> list[str]:
    """A sentence where the adapter names another base, by the last part of its path; nothing else tells."""
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named or made_from(folder.manifest).get("hash"):
        return []
    known = (display_name(base.path), base.path.name, str(base.config(CONFIG).get("_name_or_path")))
    named = hub_snapshot(Path(named)).get("repo", named)
    if PurePosixPath(named).name.lower() in {PurePosixPath(name).name.lower() for name in known}:
        return []
    return [
        f"its {ADAPTER} says that it was trained over {without_folders(named)}, and the base is "
        f"{display_name(base.path)}: the merge is right only where both have the same weights"
    ]


def _both(first: TensorPart, second: TensorPart, folder: ModelFolder) -> TensorPart:
    """What two parts of one key add up to.

    A tensor that is stored whole under two names counts once: the bias of a decoder is that of its head.

    Raises:
        SelfposError: the two whole tensors differ, or one part is trained rows.
    """
    if isinstance(first, MatchedRows) or isinstance(second, MatchedRows):
        raise SelfposError(
            f"adapter {folder.path} has trained tokens of a table and factors of what it is tied to, and "
            "PEFT's merge drops the factors; train one of the two, or give a model that has both merged"
        )
    if not (isinstance(first, Dense) and isinstance(second, Dense)):
        return Sum((first, second))
    if not same_values(first.entry, second.entry):
        raise SelfposError(
            f"adapter {folder.path} has {first.entry.name} and {second.entry.name}, which differ and are one "
            "tensor in the base; save the adapter again with one of them"
        )
    return first


def _of_copies(
    base: ModelFolder, parts: Mapping[str, TensorPart], folder: ModelFolder
) -> dict[str, TensorPart]:
    """What the copies of a table or its decoder move by: as one tensor, by all factors at any of them."""
    moved: dict[str, TensorPart] = {}
    for key in parts:
        copies = sorted(copies_of(base, key))
        own = [parts[copy] for copy in copies if copy in parts]
        if len(copies) == 1 or key in moved or any(isinstance(part, Dense) for part in own):
            continue  # a module that PEFT stores whole is no longer tied to another
        moved |= dict.fromkeys(copies, reduce(partial(_both, folder=folder), own))
    return moved


def _parameter(name: str) -> str:
    return name.removeprefix("base_model.model.")


def _head(parameter: str) -> str | None:
    """The head of a task that the parameter belongs to; None for the network's own parameters."""
    return next((name for name in parameter.split(".")[:2] if name in HEADS), None)  # bert.pooler too


def _in_base(parameter: str, base: ModelFolder) -> bool:
    head = re.compile(rf"(^|[./]){_head(parameter)}\.")
    return any(head.search(key) for key in base.tensors)


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
        where = (
            "into its base with PEFT" if init.lower() in STARTED_ALIKE else "with PEFT where it was trained"
        )
        raise SelfposError(
            f"adapter {folder.path} was started with {init}, which changes the base too, so its factors are "
            f"not the task vector; merge it {where} (merge_and_unload), and give that model"
        )
    rows = config.get("trainable_token_indices") or []
    lists = list(rows.values()) if isinstance(rows, dict) else [rows]
    if any(
        not isinstance(indices, list) or any(type(row) is not int for row in indices) for indices in lists
    ):
        raise SelfposError(
            f"adapter {folder.path} has trainable_token_indices {str(rows)[:100]!r}; expected a list of "
            "token numbers, or one for each table: save the adapter again with PEFT"
        )
    return config


@dataclass(frozen=True)
class _AdapterReader:
    folder: ModelFolder
    base: ModelFolder
    config: dict[str, Any]
    scaling: Scaling
    entries: dict[str, TensorEntry]
    maps: Maps = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def part(self, name: str) -> dict[str, TensorPart]:
        """What the tensor `name` adds, by the base's key; empty for tensors that belong to another."""
        entry = self.entries[name]
        parameter = _parameter(name)
        module, lora, kind = parameter.partition(".lora_")
        if not lora:
            return self._stored(entry, parameter)
        if kind in FIRST_FACTORS:
            keys = self._keys(f"{module}.weight")
            return {key: self._low_rank(entry, module, key, keys) for key in keys}
        if kind not in (*OTHER_PARTS, "B.bias"):
            raise SelfposError(
                f"{entry.file}: tensor {name} is not a known part of a LoRA adapter; merge it into its base "
                "with PEFT"
            )
        first = name.removesuffix(kind)
        factors = (self.entries.get(first + kind) for kind in FIRST_FACTORS)
        factor = next((entry for entry in factors if entry), None)
        if factor is None:
            raise SelfposError(f"{entry.file}: tensor {name} has no matching lora_A; save the adapter again")
        if kind != "B.bias":
            return {}
        scaling = self.scaling.of(module, (factor.shape or (0,))[0])
        biases = entry.parts(self._keys(f"{module}.bias"))
        return {
            key: Shift(self._checked_shape(bias, key), scaling, self.maps) for key, bias in biases.items()
        }

    def _stored(self, entry: TensorEntry, parameter: str) -> dict[str, TensorPart]:
        """What a tensor beside the factors adds: a whole parameter, trained rows, or a copy of the base's."""
        if parameter.endswith(TRAINED_ROWS):
            module = parameter.removesuffix(TRAINED_ROWS)
            return {(key := self._key(f"{module}.weight")): self._rows(entry, module, key)}
        if ".original_module." in parameter:  # the base's, which PEFT stores when asked for embeddings
            return {}
        saved = ".modules_to_save."
        if saved in parameter and entry.name.replace(saved, ".") in self.entries:
            return {}
        keys = self._keys(parameter.replace(".base_layer.", ".").replace(saved, "."))
        moved: dict[str, TensorPart] = {}
        for key, part in entry.parts(keys).items():
            if ".base_layer." in parameter and same_values(part, self.base.tensors[key]):
                continue
            self._check_tied(part, key)
            moved[key] = Dense(self._checked_shape(part, key), self.maps)
        return moved

    def _check_tied(self, entry: TensorEntry, key: str) -> None:
        """Refuse a table or decoder that was trained whole, where the base has one tensor for both."""
        if not may_be_tied(key) or self.config.get("ensure_weight_tying"):
            return
        if entry.name.endswith("encoder.embed_tokens.weight") and key.endswith("shared.weight"):
            return  # T5's encoder has no other table than this
        others = sorted(name for name, source in self._unstored.items() if source == key)
        if others and not same_values(entry, self.base.tensors[key]):
            raise SelfposError(
                f"adapter {self.folder.path} has {entry.name} of its own, apart from what it is tied to; the "
                f"base has {key} for it and {' and '.join(others)}, so no merged weight equals it: train "
                "with PEFT's ensure_weight_tying, or over a base that stores both"
            )

    def _rows(self, entry: TensorEntry, module: str, key: str) -> TensorPart:
        """Trained rows of a table. Raises SelfposError where they are not those of the configuration."""
        indices = self.config.get("trainable_token_indices") or []
        if isinstance(indices, dict):
            indices = next((rows for name, rows in indices.items() if f".{module}".endswith(f".{name}")), [])
        shape = self.base.tensors[key].shape
        wrong = entry.shape != (len(indices), *shape[1:]) or any(
            not 0 <= index < shape[0] for index in indices
        )
        if wrong:
            raise SelfposError(
                f"adapter {self.folder.path}: {entry.name} has shape {list(entry.shape)} for "
                f"{len(indices)} trained tokens; tensor {key} of the base has {list(shape)}"
            )
        rows = np.full(shape[0], -1)
        rows[indices] = np.arange(len(indices))
        return MatchedRows(entry, rows, self.maps)

    def _low_rank(self, a: TensorEntry, module: str, key: str, keys: list[str]) -> TensorPart:
        """What factors add at `key`, one of the `keys` into which transformers cuts the layer's matrix."""
        name = a.name
        b_name = name.replace(".lora_A.", ".lora_B.").replace(".lora_embedding_A", ".lora_embedding_B")
        b = self.entries.get(b_name)
        if b is None:
            raise SelfposError(f"{a.file}: tensor {name} has no matching lora_B; save the adapter again")
        if min(len(a.shape), len(b.shape)) < 2 or not (a.numel and b.numel):
            shapes = f"{list(a.shape)} and {list(b.shape)}"
            raise SelfposError(f"{a.file}: {name} and its lora_B have shapes {shapes}; expected two matrices")
        transposed = name.endswith("embedding_A") or self._fan_in_first(key)
        b = b if len(keys) == 1 else b.parts(keys)[key]
        rank, width, height = a.shape[0], math.prod(a.shape[1:]), b.shape[0]
        product = (width, height) if transposed else (height, width)
        shape = self.base.tensors[key].shape
        if math.prod(b.shape[1:]) != rank or product != (shape[0], math.prod(shape[1:])):
            raise SelfposError(
                f"{a.file}: {name} and its lora_B make a matrix of shape {list(product)}; tensor {key} of "
                f"the base has {list(shape)}"
            )
        part = LowRank(a, b, self.scaling.of(module, rank), transposed, self.maps)
        vector = f"{name.partition('.lora_')[0]}.lora_magnitude_vector"
        magnitude = self.entries.get(vector, self.entries.get(f"{vector}.weight"))
        if magnitude is None and not self.config.get("use_dora"):
            return part
        if magnitude is None or transposed or len(shape) != 2:
            raise SelfposError(
                f"adapter {self.folder.path} uses DoRA on {module}, which is supported for plain linear "
                "layers only; merge it with PEFT first"
            )
        magnitude = magnitude if len(keys) == 1 else magnitude.parts(keys)[key]
        if magnitude.numel != shape[0]:
            raise SelfposError(
                f"{a.file}: tensor {magnitude.name} has {magnitude.numel} elements; expected {shape[0]}, one "
                f"per row of {key}"
            )
        return Dora(part, magnitude, self.base, key, self.maps)

    def _fan_in_first(self, key: str) -> bool:
        """Whether a matrix of the base is stored with its inputs first, which the layer's class decides.

        PEFT merges so, too. The adapter's `fan_in_fan_out` says it of its last layer alone.
        """
        network = network_of(key, self.base.networks)
        config = self.base.config(str(PurePosixPath(network.path if network else "") / CONFIG))
        return config.get("model_type") in FAN_IN_FIRST and layer_number(key) is not None

    def _keys(self, parameter: str) -> list[str]:
        """The base's keys for a parameter: several where transformers cuts a matrix that a model's own code
        keeps whole, under the name that it is stored by.
        """
        if self._near(parameter, {key: key for key in self.base.tensors}) is None:
            name = self._near(parameter, {name: name for name in self._stored_otherwise})
            if name is not None:
                return [self._key(key) for key in self._stored_otherwise[name]]
        return [self._key(parameter)]

    @cached_property
    def _stored_otherwise(self) -> dict[str, list[str]]:
        """The names, with folders, of stored tensors that are opened under others → their keys."""
        keys_of: dict[str, list[str]] = {}
        for key, entry in self.base.tensors.items():
            name = (entry.file.parent.relative_to(self.base.path) / entry.name).as_posix()
            if name != key:
                keys_of.setdefault(name, []).append(key)
        return keys_of

    def _key(self, parameter: str) -> str:
        """The base's key for a parameter: its name, or the only key that differs by a prefix.

        Where there is none, transformers says what the stored tensors become.
        """
        key = self._near(parameter, {key: key for key in self.base.tensors})
        if key is None:
            key = self._near(parameter, self._by_parameter)
        if key is None and (key := self._near(parameter, self._unstored)) and may_be_tied(key):
            self.notes.append(f"{parameter} is one with {key} in the base: both move, as in PEFT's merge")
        if key is None and (quantised := quantisation(self.base)):
            raise SelfposError(
                f"adapter {self.folder.path} moves {parameter}, but the base {self.base.path} is quantised "
                f"({quantised}), which is not merged; give the base as it was before"
            )
        if key is None:
            raise SelfposError(
                f"adapter {self.folder.path} moves {parameter}, but the base has none of that name; expected "
                f"an adapter trained on {self.base.path}"
            )
        entry = self.base.tensors[key]
        if not entry.mergeable:
            raise SelfposError(
                f"adapter {self.folder.path} moves {key}, which is {TORCH[entry.dtype]} in the base and "
                "cannot be merged; give a base with weights of float32, float16 or bfloat16"
            )
        return key

    @cached_property
    def _by_parameter(self) -> dict[str, str]:
        return {name: key for key, name in stored_parameters(self.base).items()}

    @cached_property
    def _unstored(self) -> dict[str, str]:
        return unstored(self.base)

    def _near(self, parameter: str, names: Mapping[str, str]) -> str | None:
        """The key of `names` (name → key) that is, or alone ends like, the parameter."""
        if parameter in names:
            return names[parameter]
        near = {
            key
            for name, key in names.items()
            if name.endswith((f".{parameter}", f"/{parameter}")) or parameter.endswith(f".{name}")
        }
        if len(near) > 1:
            raise SelfposError(
                f"adapter {self.folder.path} moves {parameter}, but several tensors fit: "
                f"{', '.join(sorted(near)[:3])}; expected an adapter trained on {self.base.path}"
            )
        return next(iter(near), None)

    def _checked_shape(self, entry: TensorEntry, key: str) -> TensorEntry:
        shape = self.base.tensors[key].shape
        if entry.shape != shape:
            raise SelfposError(
                f"adapter {self.folder.path}: {entry.name} has shape {list(entry.shape)}; tensor {key} of "
                f"the base has {list(shape)}; merge it into its base with PEFT, and give that model"
            )
        return entry
