"""The modules of a model, those within a Router too, and what transformers makes of their tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.storage.file_kinds import CONFIG, MODULES, ROUTER_CONFIG, TRANSFORMER_CONFIG
from selfpos.storage.inside import inside
from selfpos.storage.manifest import mapping, read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from selfpos.storage.model_folder import Module

TRANSFORMERS = ("Transformer", "MLMTransformer", "CLIPModel")
"""Modules of sentence-transformers, now and earlier, that hold a model of transformers."""
SPLIT_ON_LOADING = ("nomic_bert", "gte", "jina_embeddings_v3")
"""Types of text encoders of whose stored matrices transformers makes several parameters each."""
CLASSES = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
}
"""What sentence-transformers calls the task of a transformer → the class that it loads."""
ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}


@dataclass(frozen=True)
class Network:
    """A module with its folder, relative to the model's ('' for the root). `kind` is its class."""

    kind: str
    path: str

    @property
    def prefix(self) -> str:
        """What the keys of its tensors begin with."""
        return f"{self.path}/" if self.path else ""


@dataclass(frozen=True)
class Loaded:
    """What stored tensors become in memory.

    names: stored name → the parameters that it becomes, several where it is cut, none where the model does
    not use it. tied: parameter → the one that it is tied to.
    """

    names: Mapping[str, tuple[str, ...]]
    tied: Mapping[str, str]


def networks(folder: Path, modules: Iterable[Module]) -> list[Network]:
    """The modules in their order; in place of a Router those within it, by their folders."""
    listed = []
    for module in modules:
        config = router_config(folder, module)
        if not config:
            listed.append(Network(module.kind, module.path))
            continue
        for inner, kind in sorted(config["types"].items()):
            inside(folder / module.path, inner, folder / module.path / ROUTER_CONFIG)
            path = f"{module.path}/{inner}" if module.path else inner
            listed.append(Network(str(kind).rpartition(".")[2], path))
    return listed


def router_config(folder: Path, module: Module) -> dict[str, Any]:
    """The configuration of a Router, which was called Asym; empty for other modules.

    Its modules' classes, which of them each route has, and what else is set.
    """
    files = (folder / module.path / name for name in (ROUTER_CONFIG, CONFIG))
    file = next((file for file in files if file.is_file()), None)
    if module.kind not in ("Router", "Asym") or file is None:
        return {}
    config = read_json(file)
    return {name: mapping(config, name, file) for name in ("types", "structure", "parameters")}


def network_of(key: str, networks: Iterable[Network]) -> Network | None:
    """The network in whose folder a tensor is stored."""
    fitting = [network for network in networks if key.startswith(network.prefix)]
    return max(fitting, key=lambda network: len(network.path), default=None)


def task_of(folder: Path, kind: str = "Transformer") -> str:
    """What sentence-transformers calls the task of the transformer, a module of `kind`, in `folder`."""
    if kind == "MLMTransformer":
        return "fill-mask"
    file = folder / TRANSFORMER_CONFIG
    if stated := read_json(file, missing_ok=True).get("transformer_task"):
        return str(stated)
    if (folder / MODULES).is_file() or (folder.parent / MODULES).is_file() or file.is_file():
        return "feature-extraction"
    # A plain model is pooled, whatever head it was pretrained with, or it classifies.
    first = next(iter(architectures(read_json(folder / CONFIG, missing_ok=True))), "")
    return "sequence-classification" if first.endswith("ForSequenceClassification") else "feature-extraction"


def architectures(config: Mapping[str, Any]) -> list[str]:
    """The classes of transformers that a config.json names."""
    named = config.get("architectures") or []
    return [str(name) for name in (named if isinstance(named, list) else [named])]


def transformers_config(folder: Path) -> PretrainedConfig | None:
    """The configuration in `folder` as transformers reads it; None where it does not know such a one."""
    from transformers import AutoConfig

    with suppress(*unreadable()):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return None


def unreadable() -> tuple[type[Exception], ...]:
    """What transformers raises for a configuration of a type that it does not know, or with wrong values."""
    from huggingface_hub.errors import StrictDataclassError

    wrong_values = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError)
    return (*wrong_values, RuntimeError, OSError, ImportError, StrictDataclassError)


def loaded(folder: Path, names: Iterable[str], task: str) -> Loaded | None:
    """What transformers makes of the tensors `names` that lie in `folder`, when it loads them for `task`.

    Reads configurations only: the model is built without memory for its weights. None where transformers does
    not know the model's type, or makes another model of it than the tensors are of.
    """
    if not (folder / CONFIG).is_file() or (config := transformers_config(folder)) is None:
        return None
    import torch
    import transformers
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    try:
        encoder = ENCODERS.get(config.model_type) if task == "feature-extraction" else None
        with torch.device("meta"):
            if encoder:
                model = getattr(transformers, encoder)(config)
            else:
                kind = getattr(transformers, CLASSES.get(task, "AutoModel"))
                model = kind.from_config(config, trust_remote_code=False)
    except unreadable():
        return None
    state = dict.fromkeys(model.state_dict(), True)
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    parameters_of = {}
    for name in names:
        renamed, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if renamed not in state and name in state:
            renamed, pattern = name, None
        if renamed not in state:
            parameters_of[name] = tuple[str, ...]()
        elif pattern is None:
            parameters_of[name] = (renamed,)
        else:
            cut = _cut(renamed, by_pattern[pattern])
            parameters_of[name] = cut or (name.removeprefix(f"{model.base_model_prefix}."),)
    filled = {parameter for parameters in parameters_of.values() for parameter in parameters}
    if 2 * len(filled & state.keys()) < len(state):
        return None  # the folder's own code makes another model of this type
    return Loaded(parameters_of, dict(getattr(model, "all_tied_weights_keys", None) or {}))


def _cut(first: str, converter: Any) -> tuple[str, ...]:
    """The names of the parameters that a tensor is cut into by rows; none where something else is done."""
    kinds = [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations]
    targets = converter.target_patterns
    if kinds != [("Chunk", 0)] or targets[0] not in first:
        return ()
    return tuple(first.replace(targets[0], target) for target in targets)
