"""Pickled weights made safetensors, where their user allows it: read as weights only, and no code runs."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path

from selfpos.errors import SelfposError, first_line
from selfpos.storage.atomic import fresh_folder, write_text
from selfpos.storage.file_kinds import (
    HEADS_ENDINGS,
    PICKLED,
    WEIGHT_ENDINGS,
    WEIGHTS,
    model_files,
    with_safetensors,
)
from selfpos.storage.hashing import sha256_file
from selfpos.storage.inside import refuse_links_out
from selfpos.storage.locate import cache_folder, hub_snapshot
from selfpos.storage.model_folder import counted_names, pickled_files
from selfpos.storage.tensor_file import unlike_copies

OTHER_WEIGHTS = WEIGHT_ENDINGS - {".safetensors", *HEADS_ENDINGS}
"""Formats of which nothing is read. Heads are copied, for a merge says that it leaves them out."""

UNPICKLED = "unpickled"  # in the cache


def without_pickles(folder: Path) -> Path:
    """A copy of the model at `folder`, in the cache, with safetensors in place of its pickled weights.

    The folder itself where every module with pickled weights has safetensors too. Of a module's pickles the
    whole one is read, else its shards. Raises SelfposError where a pickle holds more than tensors, or a shard
    or one of its tensors is missing.
    """
    refuse_links_out(folder)
    files = model_files(folder)
    pickled = {file.parent for file in files if PICKLED.fullmatch(file.name)} - with_safetensors(files)
    if not pickled:
        return folder
    names = {module: [file.name for file in files if file.parent == module] for module in pickled}
    modules = {module: pickled_files(folder / module, names[module]) for module in sorted(pickled)}
    copied = [file for file in files if file.suffix not in OTHER_WEIGHTS]
    weights = [file.relative_to(folder) for sources, _ in modules.values() for file in sources]
    read = sorted([*copied, *weights])
    digests = [f"{file.as_posix()} {sha256_file(folder / file)}\n" for file in read]
    key = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    real = folder.absolute()
    name = Path(*real.parts[-3:]) if hub_snapshot(real) else Path(real.name)  # its repository stays known
    copy = cache_folder() / UNPICKLED / key / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    write_text(_note(copy), f"{real}\n")
    if copy.is_dir():
        return copy
    with fresh_folder(copy) as made:
        for file in copied:
            (made / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, made / file)
        for module, (sources, places) in modules.items():
            _convert(sources, places, made / module / WEIGHTS)
    return copy


def origin_of(folder: Path) -> Path:
    """The model of which `folder` is the copy that `without_pickles` made; `folder` itself if it is none."""
    note = _note(folder)
    is_copy = folder.is_relative_to(cache_folder() / UNPICKLED) and note.is_file()
    return Path(note.read_text(encoding="utf-8").removesuffix("\n")) if is_copy else folder


def _note(copy: Path) -> Path:
    """The file beside a copy that says where the original is."""
    return copy.with_name(f"{copy.name}.origin")


def _convert(sources: list[Path], places: dict[str, Path] | None, file: Path) -> None:
    """Write the tensors of the pickles `sources` to the safetensors file `file`, each from its place."""
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for source in sources:
        try:
            loaded = torch.load(source, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise SelfposError(
                f"{source} holds more than tensors, or is damaged ({first_line(error)[:120]}); nothing of it "
                "was run: ask its makers for safetensors"
            ) from None
        if not isinstance(loaded, dict) or not all(
            isinstance(tensor, torch.Tensor) for tensor in loaded.values()
        ):
            raise SelfposError(f"{source} holds no state dict, a mapping from names to tensors")
        counted = counted_names(source, [*map(str, loaded)], places)
        if twice := sorted(counted & tensors.keys()):
            raise SelfposError(
                f"{source} holds the tensor {twice[0]}, as another shard does; fetch the model again"
            )
        for name, tensor in loaded.items():
            first = tensors.get(str(name))
            if first is not None and not torch.equal(first, tensor):
                raise unlike_copies(str(name), (places or {})[str(name)], source)
        tensors |= {
            str(name): tensor.contiguous().clone() for name, tensor in loaded.items() if str(name) in counted
        }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata={"format": "pt"})
