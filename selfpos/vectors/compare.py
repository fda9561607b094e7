"""A model beside its base: what moves, what cannot be compared, and what was left aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import PurePosixPath

import numpy as np

from selfpos.storage.file_kinds import CONFIG
from selfpos.storage.manifest import mapping
from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.networks import TRANSFORMERS, network_of
from selfpos.storage.tensor_file import TensorEntry
from selfpos.vectors.check import config_differences, some_tensors, tensor_differences, tokenizer_differences
from selfpos.vectors.match import FOLDED, Match, match, paired, same_values
from selfpos.vectors.names import is_token_table, layer_number
from selfpos.vectors.parts import Dense, Maps, MatchedRows, TensorPart
from selfpos.vectors.tokenizers import vocabulary

Tokens = Mapping[str, int] | None
"""Token → number; None where there is no tokenizer.json."""


ROWS_DIFFER = (
    "its table of tokens is stored with other factors or another order (weights, mapping of model2vec): load "
    "the models with SentenceTransformer and save them, which writes one row for each token"
)


@dataclass(frozen=True)
class Comparison:
    """What a model has of its base's tensors.

    parts: the vector. differences: sentences, which stand against a merge. misfits: keys of the base at which
    there is no vector because of them. by_token: tables whose rows were found by their tokens, as tokenizers
    differ. unused: keys that this model lacks, for none of them is used. notes: what was left aside without
    harm. tensors: the model's, by the base's keys.
    """

    parts: dict[str, TensorPart]
    differences: tuple[str, ...]
    misfits: frozenset[str]
    by_token: frozenset[str]
    unused: frozenset[str]
    notes: tuple[str, ...]
    tensors: dict[str, TensorEntry] = field(repr=False)


def compare(base: ModelFolder, other: ModelFolder) -> Comparison:
    """Compare a whole model with the base."""
    matched = match(base, other)
    tokenizers = tokenizer_differences(base, other)
    aside = matched.unused | _not_in_plain(base, other, matched)
    expected = {key: entry for key, entry in base.tensors.items() if key not in aside}
    tokens = cache(lambda prefix: vocabulary(base.path / prefix))  # read where it is asked for, and once
    rows = _matched_rows(base, other, matched, tokenizers, tokens)
    maps: Maps = {}
    parts: dict[str, TensorPart] = {}
    for key, entry in expected.items():
        theirs = matched.tensors.get(key)
        if entry.mergeable and theirs is not None and theirs.mergeable:
            if key in rows:
                parts[key] = MatchedRows(theirs, rows[key], maps)
            elif theirs.shape == entry.shape:
                parts[key] = Dense(theirs, maps)
    misfits = {key for key, entry in expected.items() if entry.mergeable and key not in parts}
    tables = {key for prefix in tokenizers for key in token_tables(base, prefix, tokens(prefix))} - aside
    misfits |= tables - rows.keys()
    unlike_rows = _unlike_static_rows(base, other)
    misfits |= unlike_rows
    parts = {key: part for key, part in parts.items() if key not in unlike_rows}
    shown = {
        key: replace(entry, shape=expected[key].shape) if key in rows else entry
        for key, entry in matched.tensors.items()
    }
    differences = [
        *config_differences(base, other, tokenizers.values()),
        *tensor_differences(expected, shown),
        *([ROWS_DIFFER] if unlike_rows else []),
    ]
    notes = _notes(base, other, matched, rows.keys() - tables, aside)
    by_token = frozenset(tables & rows.keys())
    return Comparison(
        parts, tuple(differences), frozenset(misfits), by_token, matched.unused, tuple(notes), matched.tensors
    )


def network_of_keys(model: ModelFolder) -> dict[str, str]:
    """Key → the kind of the module that holds the tensor."""
    networks = {key: network_of(key, model.networks) for key in model.tensors}
    return {key: network.kind if network else "" for key, network in networks.items()}


def token_tables(model: ModelFolder, prefix: str, tokens: Tokens) -> set[str]:
    """The tensors of the network at `prefix` that have one row per token, by their names or their rows."""
    config = model.config(str(PurePosixPath(prefix) / CONFIG))
    parts = (config, mapping(config, "text_config", model.path / prefix / CONFIG))
    sizes = [1 + max(tokens.values())] if tokens else []
    sizes += [size for part in parts if (size := part.get("vocab_size")) is not None]
    inside = [network for network in model.networks if network.prefix == prefix]
    return {
        key
        for key, entry in model.tensors.items()
        if network_of(key, model.networks) in inside
        and entry.mergeable
        and (is_token_table(key) or (entry.shape and entry.shape[0] in sizes and _may_be_table(key)))
    }


def _may_be_table(key: str) -> bool:
    """Whether a tensor with as many rows as there are tokens may have one for each: no layer's own does."""
    return layer_number(key) is None and "position" not in key


def _not_in_plain(base: ModelFolder, other: ModelFolder, matched: Match) -> frozenset[str]:
    """The base's tensors of modules that a plain model of transformers does not have."""
    if not other.is_plain or base.is_plain:
        return frozenset()
    others = {key for key, kind in network_of_keys(base).items() if kind not in TRANSFORMERS}
    return frozenset(others - matched.tensors.keys())


def _matched_rows(
    base: ModelFolder,
    other: ModelFolder,
    matched: Match,
    tokenizers: Mapping[str, str],
    vocabulary_at: Callable[[str], Tokens],
) -> dict[str, np.ndarray]:
    """The rows of tables of tokens that lie elsewhere, or are more or fewer: key → row of each of the base's.

    Where tokenizers differ a row is found by its token; else the rows beyond those of all tokens are padding.
    """
    rows_of: dict[str, np.ndarray] = {}
    for mine, theirs in paired(base, other):
        differs = mine.prefix in tokenizers
        unlike = {
            key
            for key, entry in matched.tensors.items()
            if key in base.tensors and (differs or base.tensors[key].shape != entry.shape)
        }
        if not unlike:  # the usual case, in which no vocabulary need be read
            continue
        tokens, there = vocabulary_at(mine.prefix), vocabulary(other.path / theirs.path)
        for key in sorted(token_tables(base, mine.prefix, tokens) & unlike):
            shape, other_shape = base.tensors[key].shape, matched.tensors[key].shape
            if shape[1:] != other_shape[1:]:
                continue
            if (
                not tokens
                or not there
                or max(tokens.values()) >= shape[0]
                or max(there.values()) >= other_shape[0]
            ):
                continue
            rows = np.full(shape[0], -1)
            if differs:
                for token in tokens.keys() & there.keys():
                    rows[tokens[token]] = there[token]
            else:
                rows[: min(shape[0], other_shape[0])] = np.arange(min(shape[0], other_shape[0]))
            rows_of[key] = rows
    return rows_of


def _unlike_static_rows(base: ModelFolder, other: ModelFolder) -> set[str]:
    """The base's tensors of StaticEmbeddings whose stored rows are made into others than the model's are."""
    unlike: set[str] = set()
    for mine, theirs in paired(base, other):
        if mine.kind != "StaticEmbedding" or theirs.kind != mine.kind:
            continue
        sides = [
            [model.tensors.get(network.prefix + name) for name in FOLDED]
            for model, network in ((base, mine), (other, theirs))
        ]
        for first, second in zip(*sides, strict=True):
            if first is not second and (first is None or second is None or not same_values(first, second)):
                unlike |= {key for key in base.tensors if network_of(key, base.networks) == mine}
    return unlike


def _notes(
    base: ModelFolder, other: ModelFolder, matched: Match, common: Set[str], aside: frozenset[str]
) -> list[str]:
    """What was left aside without harm, in sentences."""
    notes = []
    if other.is_plain and not base.is_plain:
        modules = " and ".join(network.kind for network in base.networks[1:])
        notes.append(f"a plain transformers model: {modules or 'all else'} and prompts are the base's")
    for key in sorted(common):
        rows = [side[key].shape[0] for side in (base.tensors, matched.tensors)]
        notes.append(
            f"{key} has {rows[1]} rows, and the base's {rows[0]}: the common rows are merged, the others are "
            "the base's"
        )
    if dropped := sorted(matched.dropped):
        notes.append(f"it has {some_tensors(dropped)} that the model does not use: left out")
    if kept := sorted(key for key in aside if base.tensors[key].mergeable):
        notes.append(f"it lacks {some_tensors(kept)}, at which it does not move")
    return notes
