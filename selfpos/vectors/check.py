"""Whether a fine-tuned model has the base's architecture: the differences, each a readable sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import CONFIG, PROMPTS_CONFIG, TRANSFORMER_CONFIG
from selfpos.storage.manifest import mapping
from selfpos.storage.model_class import SIMILARITIES, STANFORDS_CLASS, class_of
from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.networks import TRANSFORMERS, Network, architectures, router_config
from selfpos.storage.numbers import TORCH
from selfpos.storage.tensor_file import TensorEntry
from selfpos.vectors.config_fields import field_differences
from selfpos.vectors.match import paired
from selfpos.vectors.pylate import as_today, markers
from selfpos.vectors.tokenizers import tokenizer_difference

QUANTISED = {"F8_E4M3", "F8_E5M2", "I8", "U8"}
PACKED = (".qweight", ".weight_packed")
"""How GPTQ, AWQ and compressed-tensors call weights of four bits, packed as int32."""
STANFORDS_FILE = "artifact.metadata"
STANFORDS_FIELDS = {
    "query_token_id": "[unused0]",
    "doc_token_id": "[unused1]",
    "query_maxlen": 32,
    "doc_maxlen": None,
    "attend_to_mask_tokens": False,
    "mask_punctuation": True,
}
"""Fields of a ColBERT of Stanford's library that count → what they are where it does not say them."""
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
"""The modes of a Pooling in the order in which the older form joins them."""
READING_FIELDS = ("transformer_task", "query_length", "document_length", "query_expansion")
"""Fields of sentence_bert_config.json that decide what the transformer sees and gives."""


def tensor_differences(base: Mapping[str, TensorEntry], other: Mapping[str, TensorEntry]) -> list[str]:
    """Tensors of floats that are missing on one side, quantised, or of another shape."""
    mine, theirs = ({key for key, entry in side.items() if entry.mergeable} for side in (base, other))
    faults = []
    quantised: set[str] = set()
    for who, floats, stored in (("it", mine, other), ("the base", theirs, base)):
        if unmergeable := sorted(key for key in floats if key in stored and not stored[key].mergeable):
            quantised |= {*unmergeable}
            faults.append(
                f"{who} has {some_tensors(unmergeable)} as {TORCH[stored[unmergeable[0]].dtype]}, expected "
                "floats: give the model as it was before it was quantised"
            )
    if missing := sorted(mine - theirs - quantised):
        faults.append(f"it lacks {some_tensors(missing)}")
    if extra := sorted(theirs - mine - quantised):
        faults.append(f"it has {some_tensors(extra)} that the base has not")
    for key in sorted(mine & theirs):
        if base[key].shape != other[key].shape:
            faults.append(
                f"tensor {key} has shape {list(other[key].shape)}, expected {list(base[key].shape)}"
            )
    return faults


def quantisation(model: ModelFolder) -> str | None:
    """How the weights of a model are quantised, in words; None where they are not."""
    method = _object(model, CONFIG, "quantization_config").get("quant_method")
    stored = next(
        (
            entry
            for entry in model.tensors.values()
            if entry.dtype in QUANTISED or entry.name.endswith(PACKED)
        ),
        None,
    )
    if stored is not None:
        return f"tensor {stored.key} is {TORCH[stored.dtype]}"
    return f"config.json says {method}" if method else None


def _object(model: ModelFolder, file: str, name: str) -> dict[str, Any]:
    """The object under `name` in a configuration of `model`; empty where there is none."""
    return mapping(model.config(file), name, model.path / file)


def some_tensors(names: list[str]) -> str:
    """A few of the names of tensors, and how many there are."""
    if len(names) == 1:
        return f"tensor {names[0]}"
    return f"{len(names)} tensors ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


def config_differences(base: ModelFolder, other: ModelFolder, tokenizers: Iterable[str]) -> list[str]:
    """Differences of modules, their configs, pooling, prompts and similarity, followed by `tokenizers`."""
    base, other = as_today(base), as_today(other)
    activations = [_activation(model) for model in (base, other)]
    tokenizers = [*_unlike("activation_fn", *activations), *tokenizers]
    if other.is_plain or base.is_plain:
        return [*_module_differences(base, other), *_stanford_differences(base, other), *tokenizers]
    kinds = [[_kind(network) for network in model.networks] for model in (base, other)]
    if kinds[0] != kinds[1]:
        return [f"its modules are {' + '.join(kinds[1])}, expected {' + '.join(kinds[0])}"]
    return [*_module_differences(base, other), *_prompt_differences(base, other), *tokenizers]


def _stanford_differences(base: ModelFolder, other: ModelFolder) -> list[str]:
    """Differences of ColBERTs of which Stanford's library stored one or both."""
    mine, theirs = (
        model.is_plain and STANFORDS_CLASS in architectures(model.config(CONFIG)) for model in (base, other)
    )
    if mine != theirs and not other.is_adapter:
        who = "it" if theirs else "the base"
        return [
            f"{who} is a ColBERT as Stanford's library stores it, with its projection (linear.weight) beside "
            "the transformer: load it with MultiVectorEncoder, save it, and give that"
        ]
    faults = []
    for name, default in STANFORDS_FIELDS.items() if mine and theirs else ():
        expected, actual = (model.config(STANFORDS_FILE).get(name, default) for model in (base, other))
        if expected != actual:
            faults.append(
                f"its {name} is {actual!r}, expected {expected!r} ({STANFORDS_FILE}), which changes what is "
                "computed"
            )
    return faults


def _activation(model: ModelFolder) -> str | None:
    """What a CrossEncoder does to its logits, where it says so: today's place, or that before version 5."""
    older = _object(model, CONFIG, "sentence_transformers")
    stated = model.config(PROMPTS_CONFIG).get("activation_fn") or older.get("activation_fn")
    return str(stated).rpartition(".")[2] if stated else None


def _unlike(name: str, expected: Any, actual: Any) -> list[str]:
    """The difference of a field that both models state."""
    if expected == actual or None in (expected, actual):
        return []
    return [f"its {name} is {actual!r}, expected {expected!r}, which changes what is computed"]


def _kind(network: Network) -> str:
    return "Transformer" if network.kind in TRANSFORMERS else network.kind


def _module_differences(base: ModelFolder, other: ModelFolder) -> list[str]:
    faults = _route_differences(base, other)
    for module, counterpart in paired(base, other):
        mine, theirs = _module_config(base, module.path), _module_config(other, counterpart.path)
        label, folders = f"{module.kind} ", None
        if module.kind in TRANSFORMERS:
            folders = base.path / module.path, other.path / counterpart.path
            faults += _reading_differences(base, module.path, other, counterpart.path)
            if other.is_adapter and not theirs:  # its base's holds
                continue
        elif module.kind == "Pooling":
            mine, theirs = (
                {"pooling": pooling_mode(side), "include_prompt": side.get("include_prompt", True)}
                for side in (mine, theirs)
            )
            label = ""
        for name, expected, actual in field_differences(mine, theirs, folders):
            faults.append(
                f"its {label}{name} is {actual!r}, expected {expected!r}, which changes what is computed"
            )
    return faults


def _route_differences(base: ModelFolder, other: ModelFolder) -> list[str]:
    """Differences in which modules of a Router a text passes."""
    faults = []
    for module, counterpart in zip(base.modules, other.modules, strict=False):
        mine, theirs = router_config(base.path, module), router_config(other.path, counterpart)
        first, second = ({"parameters": side.get("parameters", {})} for side in (mine, theirs))
        if mine.get("types", {}).keys() == theirs.get("types", {}).keys():  # else they name other folders
            first["structure"], second["structure"] = (
                sorted(side.get("structure", {}).items()) for side in (mine, theirs)
            )
        for name, expected, actual in field_differences(first, second):
            faults.append(f"its Router has {name} {actual!r}, expected {expected!r}: texts go another way")
    return faults


def _reading_differences(base: ModelFolder, module: str, other: ModelFolder, counterpart: str) -> list[str]:
    """Differences in how sentence-transformers feeds a transformer and takes its output."""
    sides = [
        (model, str(PurePosixPath(path) / TRANSFORMER_CONFIG))
        for model, path in ((base, module), (other, counterpart))
    ]
    mine, theirs = (model.config(file) for model, file in sides)
    if not (mine and theirs):
        return []
    lowers = (bool(side.get("do_lower_case")) for side in (mine, theirs))
    faults = _unlike("do_lower_case", *lowers)
    # Files that state the task leave out what is none; older ones say these things elsewhere.
    missing = "none" if all("transformer_task" in side for side in (mine, theirs)) else None
    for name in READING_FIELDS:
        faults += _unlike(name, mine.get(name, missing), theirs.get(name, missing))
    texts = (_object(model, file, "modality_config").get("text") for model, file in sides)
    return faults + _unlike("modality_config of texts", *texts)


def _module_config(model: ModelFolder, module: str) -> dict[str, Any]:
    return model.config(str(PurePosixPath(module) / CONFIG))


def pooling_mode(config: dict[str, Any]) -> str:
    """The modes in a Pooling config, of the older form (a flag per mode) or the newer (`pooling_mode`).

    Of several the order counts, for their vectors are joined. Raises SelfposError where they are no texts.
    """
    modes = config.get("pooling_mode")
    if modes is None:
        flags = {
            re.sub("_tokens?$", "", flag.removeprefix("pooling_mode_")) for flag, on in config.items() if on
        }
        modes = [mode for mode in POOLINGS if mode in flags] or ["mean"]
    elif isinstance(modes, str):
        modes = [modes]
    if not isinstance(modes, list | tuple) or not all(isinstance(mode, str) for mode in modes):
        raise SelfposError(
            f"a Pooling has pooling_mode {modes!r}; expected a text, as mean, or a list of texts"
        )
    return "+".join(re.sub("_tokens?$", "", mode) for mode in modes)


def prompts_of(model: ModelFolder) -> dict[str, str]:
    """The prompts of a model by name, without empty ones."""
    return {name: text for name, text in _object(as_today(model), PROMPTS_CONFIG, "prompts").items() if text}


def side_prompt(model: ModelFolder, side: str = "") -> str:
    """What sentence-transformers puts before a `query`, a `document` or, without a side, before any text."""
    model = as_today(model)
    prompts = _object(model, PROMPTS_CONFIG, "prompts")
    names = {"query": ("query",), "document": ("document", "passage", "corpus")}.get(side, ())
    default = str(model.config(PROMPTS_CONFIG).get("default_prompt_name"))
    usable = [name for name in (*names, default) if name in prompts]
    return str(prompts[usable[0]]) if usable else ""


def _prompt_differences(base: ModelFolder, other: ModelFolder) -> list[str]:
    faults = []
    mine, theirs = prompts_of(base), prompts_of(other)
    # A specialist may have more prompts: its task's prompt, which the base does not know.
    if any(theirs.get(name) != text for name, text in mine.items()):
        faults.append(f"its prompts are {theirs}, expected {mine}")
    # some versions of sentence-transformers do not write the default similarity
    defaults = {"default_prompt_name": None, "similarity_fn_name": SIMILARITIES.get(class_of(base.path))}
    for field, default in defaults.items():
        expected, actual = (model.config(PROMPTS_CONFIG).get(field) or default for model in (base, other))
        if expected != actual:
            faults.append(f"its {field} is {actual!r}, expected {expected!r}")
    return faults


def tokenizer_differences(base: ModelFolder, other: ModelFolder) -> dict[str, str]:
    """Networks whose tokenizers turn a text into other token numbers: the prefix of their keys → how."""
    differences, inserted = {}, (markers(base), markers(other))
    for mine, theirs in paired(base, other):
        difference = tokenizer_difference(base.path / mine.path, other.path / theirs.path, inserted)
        if difference is not None:
            differences[mine.prefix] = difference
    return differences
