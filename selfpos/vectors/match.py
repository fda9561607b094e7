"""Which tensors of two models are the same: by what transformers makes of them, however stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from selfpos.storage.model_folder import ModelFolder, raw_tensor
from selfpos.storage.networks import TRANSFORMERS, Network, loaded, network_of, task_of
from selfpos.storage.numbers import from_float32, to_float32
from selfpos.storage.tensor_file import TensorEntry
from selfpos.vectors.names import may_be_tied

STATIC_NAMES = {"embeddings": "embedding.weight"}
"""model2vec's names of a StaticEmbedding's tensors → those of sentence-transformers."""
FOLDED = ("weights", "mapping")
"""model2vec's tensors by which sentence-transformers makes other rows of the stored ones: their factors, and
which row a token has."""
POOLER = "pooler."
"""Tensors of BERT's pooler, which models of token embeddings have and do not use."""


@dataclass(frozen=True)
class Match:
    """The tensors of a model by the keys of a base.

    tensors: what has no counterpart in the base is under its own key; of equal copies there is one. unused:
    keys of the base that the model lacks and does not use. dropped: tensors of the model alone that are not
    used.
    """

    tensors: dict[str, TensorEntry]
    unused: frozenset[str] = frozenset()
    dropped: tuple[str, ...] = ()


def match(base: ModelFolder, other: ModelFolder) -> Match:
    """Match the tensors of two models whose modules are of the same kinds, or which are plain."""
    moved = _in_folders_of(base, other)
    if _floats(base.tensors) == _floats(moved):
        return Match(moved)
    mine, theirs = stored_parameters(base), _parameters(base, other, moved)
    # Of copies, the one under the name to which the others are tied.
    key_of = {name: key for key, name in theirs.items()}
    key_of |= {key: key for key, name in theirs.items() if key == name}
    tensors = {key: replace(moved[key_of[name]], key=key) for key, name in mine.items() if name in key_of}
    used = {mine[key] for key in tensors}
    alone = {name: key for name, key in key_of.items() if name not in used}
    dropped = [key for name, key in alone.items() if _unused(name)]
    tensors |= {key: moved[key] for name, key in alone.items() if not _unused(name)}
    return Match(
        tensors,
        frozenset(key for key, name in mine.items() if key not in tensors and _unused(name)),
        tuple(moved[key].name for key in dropped if moved[key].mergeable),
    )


def transformers_of(base: ModelFolder, other: ModelFolder) -> dict[str, TensorEntry]:
    """The tensors of the base's transformers, under keys as if they lay in the folders of the other's."""
    lent = {}
    for mine, theirs in paired(base, other):
        for key, entry in base.tensors.items() if mine.kind in TRANSFORMERS else ():
            if network_of(key, base.networks) == mine:
                new = theirs.prefix + key.removeprefix(mine.prefix)
                lent[new] = replace(entry, key=new)
    return lent


def stored_parameters(model: ModelFolder) -> Mapping[str, str]:
    """Key → the parameter in memory, with its module's folder; '!' before those that are not used."""
    if not model.parameters:
        model.parameters.update(_parameters(model, model, model.tensors))
    return model.parameters


def copies_of(model: ModelFolder, key: str) -> set[str]:
    """The keys under which a tensor is stored that is one in memory; where it is a table or its decoder."""
    shape = model.tensors[key].shape
    alike = {name for name, entry in model.tensors.items() if entry.shape == shape}
    if len(alike) == 1 or not any(map(may_be_tied, alike)):
        return {key}
    parameters = stored_parameters(model)
    return {name for name in alike if parameters[name] == parameters[key]}


def unstored(model: ModelFolder) -> dict[str, str]:
    """Parameters that are tied to another and not stored themselves → the key of that one's tensor."""
    stored_at: dict[str, str] = {}
    for network in model.networks:
        if network.kind not in TRANSFORMERS:
            continue
        keys = [key for key in model.tensors if network_of(key, model.networks) == network]
        names = {key: key.removeprefix(network.prefix) for key in keys}
        folder = model.path / network.path
        as_loaded = loaded(folder, names.values(), task_of(folder, network.kind))
        if as_loaded is None:
            continue
        key_of = {parameter: key for key, name in names.items() for parameter in as_loaded.names[name]}
        for name, source in as_loaded.tied.items():
            if source in key_of and name not in key_of:
                stored_at[network.prefix + name] = key_of[source]
    return stored_at


def same_values(first: TensorEntry, second: TensorEntry) -> bool:
    """Whether two stored tensors are equal, in the number format of the first."""
    if first.shape != second.shape:
        return False
    mine, theirs = raw_tensor(first, {}), raw_tensor(second, {})
    if first.dtype == second.dtype:
        return np.array_equal(mine, theirs)
    if not (first.mergeable and second.mergeable):
        return False
    return np.array_equal(mine, from_float32(to_float32(theirs, second.dtype), first.dtype))


def _floats(tensors: Mapping[str, TensorEntry]) -> set[str]:
    return {key for key, entry in tensors.items() if entry.mergeable}


def paired(base: ModelFolder, other: ModelFolder) -> list[tuple[Network, Network]]:
    """The networks of two models in pairs: by their order, or a plain model's with the base's transformer."""
    mine, theirs = base.networks, other.networks
    if base.is_plain != other.is_plain:
        mine, theirs = ([net for net in side if net.kind in TRANSFORMERS][:1] for side in (mine, theirs))
    return list(zip(mine, theirs, strict=False))


def _in_folders_of(base: ModelFolder, other: ModelFolder) -> dict[str, TensorEntry]:
    """The tensors of `other`, under keys as if its modules lay in the folders of the base's."""
    pairs = paired(base, other)
    if all(mine.path == theirs.path for mine, theirs in pairs):
        return other.tensors
    counterparts = {theirs: mine for mine, theirs in pairs}
    moved = {}
    for key, entry in other.tensors.items():
        network = network_of(key, counterparts)
        new = counterparts[network].prefix + key.removeprefix(network.prefix) if network else key
        moved[new] = replace(entry, key=new)
    return moved


def _parameters(base: ModelFolder, model: ModelFolder, tensors: Mapping[str, TensorEntry]) -> dict[str, str]:
    """Key → the parameter that it becomes, under the base's folders; tied ones are one.

    The name of a tensor that the model does not use begins with '!'.
    """
    parameter_of: dict[str, str] = {}
    pairs = paired(base, model)
    inside: dict[Network, list[str]] = {mine: [] for mine, _ in pairs}
    for key in tensors:
        network = network_of(key, base.networks)
        if network in inside:
            inside[network].append(key)
        else:  # of a module that the other has not, or of none, where no library looks
            parameter_of[key] = key if network else f"!{key}"
    for mine, theirs in pairs:
        teller = theirs if base.is_plain and not model.is_plain else mine
        task = task_of((model if teller is theirs else base).path / teller.path, teller.kind)
        parameter_of |= _of_network(model, mine.prefix, theirs, tensors, inside[mine], task)
    return {key: parameter_of[key] for key in tensors}


def _of_network(
    model: ModelFolder,
    prefix: str,
    network: Network,
    tensors: Mapping[str, TensorEntry],
    keys: Iterable[str],
    task: str,
) -> dict[str, str]:
    local = {key: key.removeprefix(prefix) for key in keys}
    if network.kind == "StaticEmbedding":
        new_names = {} if set(FOLDED) & {*local.values()} else STATIC_NAMES
        return {key: prefix + new_names.get(name, name) for key, name in local.items()}
    folder = model.path / network.path
    as_loaded = loaded(folder, local.values(), task) if network.kind in TRANSFORMERS else None
    if as_loaded is None:
        return {key: prefix + name for key, name in local.items()}
    pools = task == "feature-extraction"
    names: dict[str, str] = {}
    for key, name in local.items():
        parameters = as_loaded.names[name]
        parameter = parameters[0] if len(parameters) == 1 else name
        unused = not parameters or (pools and parameter.startswith(POOLER))
        names[key] = f"!{prefix}{parameter}" if unused else prefix + parameter
    by_name = {name: key for key, name in names.items()}
    for key, name in names.items():
        source = as_loaded.tied.get(name.removeprefix(prefix))
        if source is None:
            continue
        stored = by_name.get(prefix + source)
        if stored is None or same_values(tensors[key], tensors[stored]):
            names[key] = prefix + source
    return names


def _unused(name: str) -> bool:
    return name.startswith("!")
