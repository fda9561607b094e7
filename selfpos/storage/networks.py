"""The modules of a model, those within a Router too, and what transformers makes of their tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.storage.file_kinds import CONFIG, MODULES, ROUTER_CONFIG, TRANSFORMER_CONFIG
from selfpos.storage.inside import inside
from selfpos.storage.manifest import read_json

if TYPE_CHECKING:
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
    found = []
    for module in modules:
        config = router_config(folder, module)
        if not config:
            found.append(Network(module.kind, module.path))
            continue
        for inner, kind in sorted((config.get("types") or {}).items()):
            inside(folder / module.path, inner, folder / module.path / ROUTER_CONFIG)
            path = f"{module.path}/{inner}" if module.path else inner
            found.append(Network(str(kind).rpartition(".")[2], path))
    return found


def router_config(folder: Path, module: Module) -> dict[str, Any]:
    """The configuration of a Router, which was called Asym; empty for other modules."""
    files = (folder / module.path / name for name in (ROUTER_CONFIG, CONFIG))
    file = next((file for file in files if file.is_file()), None)
    return read_json(file) if module.kind in ("Router", "Asym") and file else {}


def network_of(key: str, networks: Iterable[Network]) -> Network | None:
    """The network in whose folder a tensor is stored."""
    fitting = [network for network in networks if key.startswith(network.prefix)]
    return max(fitting, key=lambda network: len(network.path), default=None)


def task_of(folder: Path, kind: str = "Transformer") -> str:
    """What sentence-transformers calls the task of the transformer, a module of `kind`, in `folder`."""
    if kind == "MLMTransformer":
        return "fill-mask"
    file = folder / TRANSFORMER_CONFIG
    stated = read_json(file).get("transformer_task") if file.is_file() else None
    if stated:
        return str(stated)
    if (folder / MODULES).is_file() or (folder.parent / MODULES).is_file() or file.is_file():
        return "feature-extraction"
    config = (
        folder / CONFIG
    )  # a plain model is pooled, whatever head it was pretrained with, or it classifies
    architectures = (read_json(config) if config.is_file() else {}).get("architectures") or [""]
    classifies = architectures[0].endswith("ForSequenceClassification")
    return "sequence-classification" if classifies else "feature-extraction"


def loaded(folder: Path, names: Iterable[str], task: str) -> Loaded | None:
    """What transformers makes of the tensors `names` that lie in `folder`, when it loads them for `task`.

    Reads configurations only: the model is built without memory for its weights. None where transformers does
    not know the model's type, or makes another model of it than the tensors are of.
    """
    if not (folder / CONFIG).is_file():
        return None
    import torch
    import transformers
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        encoder = ENCODERS.get(config.model_type) if task == "feature-extraction" else None
        with torch.device("meta"):
            if encoder:
                model = getattr(transformers, encoder)(config)
            else:
                kind = getattr(transformers, CLASSES.get(task, "AutoModel"))
                model = kind.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, OSError, ImportError):
        return None
    state = dict.fromkeys(model.state_dict(), True)
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    found = {}
    for name in names:
        renamed, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if renamed not in state and name in state:
            renamed, pattern = name, None
        if renamed not in state:
            found[name] = tuple[str, ...]()
        elif pattern is None:
            found[name] = (renamed,)
        else:
            cut = _cut(renamed, by_pattern[pattern])
            found[name] = cut or (name.removeprefix(f"{model.base_model_prefix}."),)
    filled = {parameter for parameters in found.values() for parameter in parameters}
    if 2 * len(filled & state.keys()) < len(state):
        return None  # the folder's own code makes another model of this type
    return Loaded(found, dict(getattr(model, "all_tied_weights_keys", None) or {}))


def _cut(first: str, converter: Any) -> tuple[str, ...]:
    """The names of the parameters that a tensor is cut into by rows; none where something else is done."""
    kinds = [(type(step).__name__, getattr(step, "dim", None)) for step in converter.operations]
    targets = converter.target_patterns
    if kinds != [("Chunk", 0)] or targets[0] not in first:
        return ()
    return tuple(first.replace(targets[0], target) for target in targets)
