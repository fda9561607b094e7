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

OTHER_WEIGHTS = WEIGHT_ENDINGS - {".safetensors", *HEADS_ENDINGS}
"""Formats of which nothing is read. Heads are copied, for a merge says that it leaves them out."""

UNPICKLED = "unpickled"  # in the cache


def without_pickles(folder: Path) -> Path:
    """A copy of the model at `folder`, in the cache, with safetensors in place of its pickled weights.

    The folder itself where every module with pickled weights has safetensors too. Raises
    SelfposError where a pickle holds more than tensors.
    """
    refuse_links_out(folder)
    files = model_files(folder)
    modules: dict[Path, list[Path]] = {}
    whole = with_safetensors(files)
    for file in files:
        if PICKLED.fullmatch(file.name) and file.parent not in whole:
            modules.setdefault(file.parent, []).append(file)
    if not modules:
        return folder
    copied = [file for file in files if file.suffix not in OTHER_WEIGHTS]
    read = sorted([*copied, *(file for pickled in modules.values() for file in pickled)])
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
        for module, pickled in modules.items():
            _convert([folder / file for file in pickled], made / module / WEIGHTS)
    return copy


def origin_of(folder: Path) -> Path:
    """The model of which `folder` is the copy that `without_pickles` made; `folder` itself if it is none."""
    note = _note(folder)
    is_copy = folder.is_relative_to(cache_folder() / UNPICKLED) and note.is_file()
    return Path(note.read_text(encoding="utf-8").removesuffix("\n")) if is_copy else folder


def _note(copy: Path) -> Path:
    """The file beside a copy that says where the original is."""
    return copy.with_name(f"{copy.name}.origin")


def _convert(pickled: list[Path], file: Path) -> None:
    """Write the tensors of the files `pickled` to the safetensors file `file`."""
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for source in pickled:
        try:
            loaded = torch.load(source, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise SelfposError(
                f"{source} holds more than tensors, or is damaged ({first_line(error)[:120]}); nothing of it "
                "was run: ask its makers for safetensors"
            ) from None
        if not isinstance(loaded, dict) or not all(isinstance(one, torch.Tensor) for one in loaded.values()):
            raise SelfposError(f"{source} holds no state dict, a mapping from names to tensors")
        tensors |= {str(name): tensor.contiguous().clone() for name, tensor in loaded.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata={"format": "pt"})
