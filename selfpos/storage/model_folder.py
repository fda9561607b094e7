"""A sentence-transformers folder, opened lazily: modules, configuration, and tensors as memory maps."""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.errors import SelfposError
from selfpos.storage.documents import parse_json, read_text
from selfpos.storage.file_kinds import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    CONFIG,
    HEADS_ENDINGS,
    INDEX,
    MODULES,
    PICKLED,
    PICKLED_INDEX,
    PICKLED_SHARD,
    PICKLED_WEIGHTS,
    SHARD,
    TOKENIZER_CONFIG,
    TRAINING_STATES,
    VOCABULARIES,
    WEIGHTS,
    model_files,
)
from selfpos.storage.hashing import content_hash
from selfpos.storage.inside import inside, refuse_links_out
from selfpos.storage.loading import check_settings
from selfpos.storage.locate import hub_snapshot
from selfpos.storage.manifest import read_json, read_manifest
from selfpos.storage.networks import SPLIT_ON_LOADING, TRANSFORMERS, Network, loaded, networks, task_of
from selfpos.storage.numbers import STORED, TORCH, to_float32
from selfpos.storage.tensor_file import TensorEntry, read_header, refuse_unlike_copies

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_MAP = 256 * 2**20  # bytes of a file that is mapped whole
CLASS = re.compile(r"[\w/-][\w./-]*\.\w+")  # with its module, perhaps of a repository
BYTE_TOKENIZERS = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
"""Tokenizers whose tokens are bytes or characters, which have no vocabulary file."""


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json: `path` is its folder ('' for the root), `type` its Python class."""

    idx: int
    name: str
    path: str
    type: str

    @property
    def kind(self) -> str:
        """The class name alone: the package part differs between versions of sentence-transformers."""
        return self.type.rpartition(".")[2]


@dataclass(frozen=True)
class ModelFolder:
    """An opened model. `tensors` maps keys (`encoder…weight`, `2_Dense/linear.weight`) to entries.

    Weights, configuration and hash are read when first used, each once. `parameters` maps keys to the
    parameters in memory, as `vectors.match` finds them when it first has to.
    """

    path: Path
    modules: tuple[Module, ...]
    tensors: dict[str, TensorEntry]
    _maps: dict[Path, np.ndarray] = field(default_factory=dict, repr=False)
    _configs: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    parameters: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def content_hash(self) -> str:
        """See hashing.content_hash."""
        return content_hash(self.path)

    @cached_property
    def is_adapter(self) -> bool:
        """Whether the folder holds a PEFT adapter."""
        return (self.path / ADAPTER).is_file()

    @property
    def is_plain(self) -> bool:
        """Whether the folder is as transformers saves it, without modules of sentence-transformers."""
        return not (self.path / MODULES).is_file()

    @cached_property
    def networks(self) -> list[Network]:
        """The modules with their folders, those within a Router in its place."""
        return networks(self.path, self.modules)

    @cached_property
    def heads(self) -> list[str]:
        """Pickled tensors beside the model, such as BGE-M3's sparse and multi-vector heads."""
        return [
            file.as_posix()
            for file in model_files(self.path)
            if file.suffix in HEADS_ENDINGS and not file.stem.startswith(TRAINING_STATES)
        ]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What made the folder; empty where it does not say. Raises as `read_manifest` does."""
        return read_manifest(self.path)

    def config(self, file: str) -> dict[str, Any]:
        """The JSON object in `file` (relative path); empty where it does not exist. Not to be changed."""
        if file not in self._configs:
            self._configs[file] = read_json(self.path / file, missing_ok=True)
        return self._configs[file]

    def raw(self, key: str) -> np.ndarray:
        """The stored bits of tensor `key`, flat, read-only, memory-mapped."""
        bits = raw_tensor(self.tensors[key], self._maps)
        bits.flags.writeable = False
        return bits

    def read_float32(self, key: str) -> np.ndarray:
        """Tensor `key` in its shape as float32: the memory map itself when stored so, else a copy."""
        entry = self.tensors[key]
        return to_float32(self.raw(key), entry.dtype).reshape(entry.shape)

    def read(self, key: str) -> Tensor:
        """Tensor `key` as a torch tensor in the stored number format, memory-mapped: not to be written to."""
        import torch

        entry = self.tensors[key]
        raw, dtype = raw_tensor(entry, self._maps), getattr(torch, TORCH[entry.dtype])
        flat = torch.frombuffer(raw.data, dtype=dtype) if raw.size else torch.empty(0, dtype=dtype)
        return flat.reshape(entry.shape)


def raw_tensor(entry: TensorEntry, maps: dict[Path, np.ndarray]) -> np.ndarray:
    """The stored bits of `entry`, flat, from the memory map of its file, which is kept in `maps`, or of the
    tensor alone where the file is large: then it takes address space only while it is used.
    """
    if not entry.nbytes:
        return np.empty(0, STORED[entry.dtype])
    if entry.file not in maps and entry.file.stat().st_size <= LARGEST_MAP:
        maps[entry.file] = _mapped(entry.file, 0, 0)
    if entry.file in maps:
        bits = maps[entry.file][entry.offset : entry.offset + entry.nbytes]
    else:
        before = entry.offset % mmap.ALLOCATIONGRANULARITY
        bits = _mapped(entry.file, entry.offset - before, before + entry.nbytes)[before:]
    return bits.view(STORED[entry.dtype])


def _mapped(file: Path, start: int, nbytes: int) -> np.ndarray:
    """Bytes of a file from `start` on as a memory map, to its end where `nbytes` is 0."""
    with file.open("rb") as handle:
        # torch wants a writable buffer. ACCESS_COPY makes the pages private, so the file is never changed.
        mapped = mmap.mmap(handle.fileno(), nbytes, offset=start, access=mmap.ACCESS_COPY)
    return np.frombuffer(mapped, np.uint8)


def open_model(folder: Path) -> ModelFolder:
    """Open the model at `folder`: of sentence-transformers, or a plain one of transformers.

    Tensors that transformers cuts into several parameters on loading are opened as those, by their names.
    Raises SelfposError when it is no model, or not whole.
    """
    modules = read_modules(folder, plain=True)
    refuse_links_out(folder)
    check_settings(folder, modules)
    tensors = stored_tensors(folder)
    if not tensors:
        hint = " (it holds a PEFT adapter: give its base as the base, and this folder as a vector)"
        adapter = hint if (folder / ADAPTER).exists() else ""
        others = "" if adapter else ", ".join(sorted(file.name for file in folder.glob("*.safetensors"))[:3])
        instead = f"; it has {others}, of which none is {WEIGHTS}" if others else ""
        if snapshot := hub_snapshot(folder):
            instead += (
                "; where the Hub has pickled weights only, which are never loaded, name a revision with "
                f"safetensors ({snapshot['repo']}@refs/pr/N), or load the model with its class and save it"
            )
        raise SelfposError(f"{folder} has no weights in safetensors files{adapter}{instead}")
    return ModelFolder(folder, modules, _as_loaded(folder, modules, tensors))


def stored_tensors(folder: Path) -> dict[str, TensorEntry]:
    """The tensors of every module below `folder` by key, in the order of their files and bytes."""
    tensors: dict[str, TensorEntry] = {}
    for file, prefix, places in weight_files(folder):
        entries = read_header(file, prefix)[0]
        counted = counted_names(file, [entry.name for entry in entries.values()], places)
        refuse_unlike_copies(entries, counted, tensors)
        entries = {key: entry for key, entry in entries.items() if entry.name in counted}
        if twice := sorted(entries.keys() & tensors.keys()):
            other = tensors[twice[0]].file.name
            raise SelfposError(
                f"{folder}: tensor {twice[0]} is in both {other} and {file.name}; keep one of them"
            )
        tensors |= entries
    return tensors


def _as_loaded(
    folder: Path, modules: tuple[Module, ...], tensors: dict[str, TensorEntry]
) -> dict[str, TensorEntry]:
    """`tensors` with the parameters' names and cuts where transformers splits stored tensors."""
    for network in networks(folder, modules):
        if network.kind not in TRANSFORMERS:
            continue
        module, prefix = folder / network.path, network.prefix
        if read_json(module / CONFIG, missing_ok=True).get("model_type") not in SPLIT_ON_LOADING:
            continue
        stored = [entry.name for key, entry in tensors.items() if key == prefix + entry.name]
        as_loaded = loaded(module, stored, task_of(module, network.kind))
        opened: dict[str, TensorEntry] = {}
        for key, entry in tensors.items():
            names = as_loaded.names.get(entry.name) if as_loaded and key == prefix + entry.name else None
            opened |= entry.parts([prefix + name for name in names]) if names else {key: entry}
        tensors = opened
    return tensors


def read_modules(folder: Path, *, plain: bool = False) -> tuple[Module, ...]:
    """The modules of a sentence-transformers folder, in order.

    With `plain`, a folder as transformers saves it is one Transformer. Raises SelfposError when it is none.
    """
    if not folder.is_dir():
        raise SelfposError(f"there is no model folder {folder}")
    file = folder / MODULES
    if not file.is_file():
        transformer = (folder / CONFIG).is_file() and "model_type" in read_json(folder / CONFIG)
        if plain and transformer:
            return (Module(0, "0", "", "sentence_transformers.models.Transformer"),)
        hint = ""
        if transformer:
            hint = (
                "; it is a plain transformers model, which does not say how its token vectors are pooled: "
                f"make it a model with `selfpos merge --base {folder} --vectors {folder} --method average "
                "--pooling mean --out NEW` (or cls, lasttoken, max)"
            )
        elif inner := sorted(path.parent.name for path in folder.glob(f"*/{MODULES}")):
            hint = f"; give a model in it, such as {inner[-1]}"
        raise SelfposError(f"{folder} is no sentence-transformers model: it has no modules.json{hint}")
    try:
        modules = tuple(_module(folder, item) for item in parse_json(read_text(file)))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise SelfposError(f"{file} does not list modules with idx, name, path and type") from None
    if not modules:
        raise SelfposError(f"{file} lists no modules; copy it from the original model")
    return modules


def _module(folder: Path, item: Any) -> Module:
    """A module as modules.json lists it. Raises KeyError, TypeError, ValueError or OverflowError where it
    does not.
    """
    if not isinstance(item["type"], str) or not CLASS.fullmatch(item["type"]) or len(item["type"]) > 255:
        raise TypeError
    return Module(int(item["idx"]), str(item["name"]), _relative(folder, item["path"]), item["type"])


def _relative(folder: Path, path: str) -> str:
    """A module's folder as in keys: '' for the root, which some tools call '.'."""
    inside(folder, path, folder / MODULES)
    return "" if PurePosixPath(path) == PurePosixPath() else PurePosixPath(path).as_posix()


def weight_files(folder: Path) -> Iterator[tuple[Path, str, dict[str, Path] | None]]:
    """The safetensors files of every module below `folder`, each with its keys' prefix ('' or 'folder/').

    Files of one index come in order, with its map from tensor to file: it decides where two have one.
    """
    files: dict[Path, list[str]] = {}
    for file in model_files(folder):
        files.setdefault(file.parent, []).append(file.name)
    for relative, names in sorted(files.items()):
        module = folder / relative
        prefix = f"{relative.as_posix()}/" if relative.parts else ""
        pickles = [name for name in names if PICKLED.fullmatch(name)]
        weights, places = _stored_in(module, names, WEIGHTS, INDEX, SHARD)
        yield from ((file, prefix, places) for file in weights)
        if pickles and not weights:
            raise SelfposError(
                f"{module} holds its weights as a pickle ({pickles[0]}), which may hold code; load it with "
                f"the class that it was saved from, and save it again, which writes {WEIGHTS}, or let "
                "finetune, merge, retain and eval-mteb read its tensors only, with --allow-pickle"
            )


def pickled_files(module: Path, names: Collection[str]) -> tuple[list[Path], dict[str, Path] | None]:
    """The pickles that hold the weights of a module with the files `names`, and their index's map from tensor
    to file. Raises SelfposError where not all are there.
    """
    stored = _stored_in(module, names, PICKLED_WEIGHTS, PICKLED_INDEX, PICKLED_SHARD)
    if not stored[0]:
        others = ", ".join(name for name in names if PICKLED.fullmatch(name))
        raise SelfposError(
            f"{module} has {others}, but neither {PICKLED_WEIGHTS} nor shards of it; fetch the model again, "
            f"or call the file that is to be read {PICKLED_WEIGHTS}"
        )
    return stored


def counted_names(file: Path, names: Collection[str], places: dict[str, Path] | None) -> set[str]:
    """Those of the tensors `names` of a file that are read from it: all but those that the index has
    elsewhere. Raises SelfposError where the index has one there that is not.
    """
    places = places or {}
    listed = {name for name, path in places.items() if path == file}
    if missing := sorted(listed - set(names)):
        raise SelfposError(
            f"the index in {file.parent} says that {file.name} holds the tensor {missing[0]}, which it does "
            "not; fetch the model again"
        )
    return {name for name in names if places.get(name, file) == file}


def _stored_in(
    module: Path, names: Collection[str], whole: str, index: str, shard: re.Pattern[str]
) -> tuple[list[Path], dict[str, Path] | None]:
    """The file `whole`, else the files of the index with its map, else all shards."""
    if whole in names:
        return [module / whole], None
    if index in names:
        places = _shards(module / index)
        return sorted(set(places.values())), places
    shards = sorted(module / name for name in names if shard.match(name))
    if shards:
        _refuse_missing(shards, index, shard)
    return shards, None


def refuse_pickles(folder: Path) -> None:
    """Raise SelfposError where loading the model or adapter in `folder` would read a pickle."""
    list(weight_files(folder))
    files = model_files(folder)
    pickled = (file for file in files if file.name == "adapter_model.bin")
    if alone := next((file for file in pickled if file.with_name(ADAPTER_WEIGHTS) not in files), None):
        raise SelfposError(
            f"{folder / alone} is a pickle, which is never loaded; load the adapter with PEFT, and save it "
            "again"
        )


def _shards(index: Path) -> dict[str, Path]:
    """Tensor → the file that an index says it is in."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise SelfposError(f"{index} has no weight_map from tensor to shard; fetch the model again")
    files = {name: inside(index.parent, name, index) for name in set(names.values())}
    for name, file in files.items():
        if not file.is_file():
            raise SelfposError(f"{index} names the shard {name}, which does not exist; fetch the model again")
    return {tensor: files[name] for tensor, name in names.items()}


def _refuse_missing(shards: list[Path], index: str, pattern: re.Pattern[str]) -> None:
    """Refuse shards without an index of which their names say that some are not there."""
    matches = [match for shard in shards if (match := pattern.match(shard.name))]
    numbers, counts = {int(match[1]) for match in matches}, {int(match[2]) for match in matches}
    if len(counts) > 1 or numbers != set(range(1, max(counts) + 1)):
        shown = ", ".join(file.name for file in shards[:3])
        raise SelfposError(
            f"{shards[0].parent} has no {index}, and by their names its shards {shown} are not all there "
            "are; fetch the model again"
        )


def has_tokenizer(folder: Path) -> bool:
    """Whether `folder` has a vocabulary, or names a tokenizer that needs none."""
    if any(next(folder.glob(pattern), None) for pattern in VOCABULARIES):
        return True
    return read_json(folder / TOKENIZER_CONFIG, missing_ok=True).get("tokenizer_class") in BYTE_TOKENIZERS


def check_tokenizer(folder: Path, modules: tuple[Module, ...] = ()) -> None:
    """Raise SelfposError where a transformer of the model lacks its config.json or its tokenizer."""
    for network in networks(folder, modules or read_modules(folder)):
        path = folder / network.path
        if network.kind not in TRANSFORMERS:
            continue
        if not (path / CONFIG).is_file():
            raise SelfposError(
                f"{path} has no config.json, so the model does not load; copy it from the original model"
            )
        if not has_tokenizer(path):
            names = ", ".join(VOCABULARIES[:3])
            raise SelfposError(
                f"{path} has no tokenizer ({names}, …), so no text can be embedded; copy it from the "
                "original model"
            )
