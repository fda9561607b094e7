"""Paths and links that lead out of a model's folder: refused, or left out; nothing of them is copied."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from place import Place
from trial import DONE, REFUSED, Seen, Trial

from selfpos.storage.file_kinds import INDEX, MODULES, WEIGHTS

SECRET = "kept by another"
WAYS = {
    "../": "../shard.safetensors",
    "../../": "../../shard.safetensors",
    "x/../..": "x/../../shard.safetensors",
    "absolute": "{outside}/shard.safetensors",
    "of Windows": "..\\shard.safetensors",
    "drive": "C:\\shard.safetensors",
}


def trials(place: Place) -> Iterator[Trial]:
    for name in WAYS:
        yield from indices(place, name)
        yield from modules(place, name)
    yield from links(place)
    yield from outputs(place)


def no_secret(out: Path) -> str:
    """What of the secret came into `out`."""
    if not out.is_dir():
        return ""
    found = [path for path in out.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    linked = [path for path in out.rglob("*") if path.is_symlink()]
    return f"the secret is in {found[0].name}" if found else f"{linked[0].name} is a link" if linked else ""


def indices(place: Place, name: str) -> Iterator[Trial]:
    """An index whose shard is elsewhere, in the base, in a vector, and for each verb that opens it."""
    from safetensors.numpy import load_file

    fault = f"a weight index that leads out: {name}"
    for part in ("base", "vector", "finetune", "eval-mteb"):
        model = place.copy(place.base if part in ("base", "finetune") else place.vectors[0])
        names = list(load_file(model / WEIGHTS))
        shard = WAYS[name].format(outside=model.parent)
        (model / "x").mkdir()
        (model / WEIGHTS).rename(model.parent / "shard.safetensors")
        (model / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))
        out = place.fresh() / "out"
        words = {
            "base": lambda model=model, out=out: place.merge(out, base=model),
            "vector": lambda model=model, out=out: place.merge(out, vectors=[model, place.vectors[1]]),
            "finetune": lambda model=model, out=out: place.finetune(out, base=model),
            "eval-mteb": lambda model=model, out=out: place.score(out, model=model),
        }[part]()
        yield Trial(fault, words, out, says="outside")


def modules(place: Place, name: str) -> Iterator[Trial]:
    """A module whose folder is elsewhere."""
    for part in ("base", "finetune", "eval-mteb"):
        model = place.copy(place.base)
        (model / "2_Dense").rename(model.parent / "shard.safetensors")
        listed = json.loads((model / MODULES).read_text())
        listed[2]["path"] = WAYS[name].format(outside=model.parent)
        (model / MODULES).write_text(json.dumps(listed))
        out = place.fresh() / "out"
        words = {
            "base": lambda model=model, out=out: place.merge(out, base=model),
            "finetune": lambda model=model, out=out: place.finetune(out, base=model),
            "eval-mteb": lambda model=model, out=out: place.score(out, model=model),
        }[part]()
        yield Trial(f"modules.json that leads out: {name}", words, out, says="outside")


def links(place: Place) -> Iterator[Trial]:
    """Links to what lies outside: files, a folder, weights, settings, an adapter, the manifest."""
    for linked in (
        "key.json",
        "notes.txt",
        "folder",
        WEIGHTS,
        "config.json",
        "selfpos.json",
        "deep/key.json",
    ):
        for verb in ("merge", "finetune", "eval-mteb", "push"):
            model = place.copy(place.base)
            outside = model.parent / "outside"
            path = model / linked
            path.parent.mkdir(exist_ok=True)
            if linked == "folder":
                outside.mkdir()
                (outside / "key.txt").write_text(SECRET)
            elif path.exists():
                path.rename(outside)
            else:
                outside.write_text(json.dumps({"key": SECRET}))
            path.symlink_to(outside)
            out = place.fresh() / "out"
            words, statuses = _with_link(place, verb, model, out)
            yield Trial(
                f"{'push' if verb == 'push' else 'a verb'} of a folder with a link out of it",
                words,
                out,
                statuses,
                right=lambda seen, out=out: no_secret(out) or ("told" if SECRET in seen.out else ""),
            )
    yield from _adapter(place)


def _with_link(place: Place, verb: str, model: Path, out: Path) -> tuple[list, tuple[int, ...]]:
    if verb == "push":
        return ["push", model, "alice/x", "--dry-run"], (*DONE, *REFUSED)
    words = {"merge": place.merge, "finetune": place.finetune}.get(verb)
    return (words(out, base=model) if words else place.score(out, model=model)), (*DONE, *REFUSED)


def _adapter(place: Place) -> Iterator[Trial]:
    for linked in ("adapter_model.safetensors", "adapter_config.json"):
        adapter = adapter_of(place)
        (adapter / linked).rename(adapter.parent / "outside")
        (adapter / linked).symlink_to(adapter.parent / "outside")
        out = place.fresh() / "out"
        yield Trial("an adapter whose files are links out of it", place.merge(out, vectors=[adapter]), out)


def adapter_of(place: Place) -> Path:
    """A LoRA adapter of the base, as PEFT saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(1)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], init_lora_weights=False)
    adapted = get_peft_model(AutoModel.from_pretrained(place.base), settings)
    folder = place.fresh() / "adapter"
    adapted.save_pretrained(folder)
    return folder


def outputs(place: Place) -> Iterator[Trial]:
    """An output within what it is made of, or within a file."""
    for name in ("out", "2_Dense/out", "../model/out"):
        for verb in (place.merge, place.finetune):
            model = place.copy(place.base)
            out = model / name
            yield Trial("an output within its base", verb(out, base=model), out, says="within")
    file = place.fresh() / "file"
    file.write_text("x")
    for verb in (place.merge, place.finetune, place.score):
        yield Trial("an output within a file", verb(file / "out"), None, right=_unchanged(file))
    yield from odd_files(place)
    link = place.fresh() / "out"
    link.symlink_to(link.parent / "nowhere")
    for verb in (place.merge, place.finetune):
        yield Trial("an output that is a broken link", verb(link), None)


def odd_files(place: Place) -> Iterator[Trial]:
    """Pipes in a model's folder, and names that are not UTF-8, also on the command line."""
    latin = os.fsdecode(b"caf\xe9")
    for verb in ("merge", "finetune", "eval-mteb"):
        for name in ("README.md", "2_Dense/pipe.txt", f"{latin}.txt"):
            model = place.copy(place.base)
            (model / name).unlink(missing_ok=True)
            if latin in name:
                (model / name).write_text("x")
            else:
                os.mkfifo(model / name)
            out = place.fresh() / "out"
            fault = "a name that is not UTF-8" if latin in name else "a pipe in a model's folder"
            yield Trial(fault, _with_link(place, verb, model, out)[0], out)
        out = place.fresh() / latin
        line = {"merge": place.merge, "finetune": place.finetune, "eval-mteb": place.score}[verb](out)
        yield Trial("a name that is not UTF-8", line, None)


def _unchanged(file: Path):  # type: ignore[no-untyped-def]
    def right(seen: Seen) -> str:
        return "" if file.read_text() == "x" else "the file has changed"

    return right
