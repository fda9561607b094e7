"""Pickled weights, honest or with code, for every verb that opens a model."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

from place import Place
from trial import DONE, REFUSED, Seen, Trial

from selfpos.storage.file_kinds import WEIGHTS


class Planted:
    """What a pickle with code in it holds: code that makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


def pickled(place: Place, kind: str) -> Path:
    """A base whose weights are a pickle: of tensors, with code, or damaged."""
    import torch
    from safetensors.torch import load_file

    model = place.copy(place.base)
    file = model / "pytorch_model.bin"
    if kind == "honest":
        torch.save(load_file(model / WEIGHTS), file)
    elif kind == "code":
        file.write_bytes(pickle.dumps(Planted(model.parent / "ran")))
    elif kind == "code within":
        torch.save({"a": Planted(model.parent / "ran")}, file)
    else:
        file.write_bytes(b"\x80\x04damaged" * 100)
    (model / WEIGHTS).unlink()
    return model


def verbs(place: Place, model: Path, out: Path) -> dict[str, list]:
    """Every verb that opens a model."""
    recipe = place.recipe(base=str(model))
    return {
        "merge": place.merge(out, base=model),
        "merge, vector": place.merge(out, vectors=[model]),
        "search": place.search(out, base=model),
        "finetune": place.finetune(out, base=model),
        "eval-mteb": place.score(out, model=model),
        "run": ["run", recipe, "--out", out],
        "push": ["push", model, "alice/x", "--license", "mit", "--dry-run"],
        "retain": [
            *("retain", model, place.vectors[0], "--domain", f"sts={place.pairs}"),
            *("--general", f"sts={place.pairs}", "--alpha", 0.5, "--out", out),
        ],
        "reproduce": ["reproduce", model],
    }


def trials(place: Place) -> Iterator[Trial]:
    for kind in ("honest", "code", "code within", "damaged"):
        for verb in verbs(place, place.base, place.folder / "x"):
            model = pickled(place, kind)
            out = place.fresh() / "out"
            words = verbs(place, model, out)[verb]
            # what is pushed is looked at, never opened; a run keeps its log
            left = None if verb in ("run", "eval-mteb") else out
            yield Trial(
                f"a pickle (honest, with code, damaged): {verb}",
                words,
                left,
                REFUSED,
                right=_not_run(model),
                memory=2000,
                says="" if verb == "reproduce" else "pickle",
            )
        for verb in ("merge", "merge, vector", "finetune", "eval-mteb"):
            model = pickled(place, kind)
            out = place.fresh() / "out"
            words = [*verbs(place, model, out)[verb], "--allow-pickle"]
            yield Trial(
                f"a pickle {'of tensors' if kind == 'honest' else 'with code, or damaged'}, allowed: {verb}",
                words,
                out,
                DONE if kind == "honest" else REFUSED,
                right=_not_run(model),
                memory=2000,
                env={"XDG_CACHE_HOME": str(out.parent / "cache")},
            )
    yield from beside(place)


def beside(place: Place) -> Iterator[Trial]:
    """A pickle beside whole safetensors, and as an adapter's weights."""
    for verb in ("merge", "finetune", "eval-mteb"):
        model = place.copy(place.base)
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(model.parent / "ran")))
        out = place.fresh() / "out"
        words = verbs(place, model, out)[verb]
        yield Trial("a pickle beside safetensors", words, out, DONE, right=_not_run(model), memory=2000)
    adapter = place.fresh() / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(place.base), "r": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Planted(adapter.parent / "ran")))
    for verb in ("merge", "finetune", "eval-mteb"):
        out = place.fresh() / "out"
        words = {
            "merge": place.merge(out, vectors=[adapter]),
            "finetune": place.finetune(out, base=adapter),
            "eval-mteb": place.score(out, model=adapter),
        }[verb]
        yield Trial("an adapter's pickle", words, out, REFUSED, right=_not_run(adapter))


def _not_run(model: Path):  # type: ignore[no-untyped-def]
    def right(seen: Seen) -> str:
        return "the planted code was run" if (model.parent / "ran").exists() else ""

    return right
