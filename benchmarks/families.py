"""Architectures × ways of saving × methods: is the merge right, refused with a reason, or wrong?

Tiny random models of the real architectures are saved by the libraries that people use, merged by selfpos,
loaded in their class, and compared parameter by parameter with the same merge in float64 of the models as
those libraries load them. `python benchmarks/families.py [NAME …]` writes benchmarks/results/families.json
and families.md; nothing may read "wrong".
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}

import torch
import transformers
from families_models import ARCHITECTURES, Architecture

from selfpos.errors import SelfposError
from selfpos.merging import merge
from selfpos.storage.model_class import EMBEDDER, RERANKER, class_of

RESULTS = Path(__file__).parent / "results"
METHODS = ("average", "ties", "self-positioning")
TOLERANCE = 1e-6
DENSITY = 0.2
State = dict[str, torch.Tensor]


def full(save: Callable[[Any, Path, Path], None]) -> Callable[..., State]:
    """A way of saving a whole model, moved by noise; returns its parameters."""

    def make(kind: Architecture, base: Path, folder: Path, seed: int) -> State:
        model = moved(kind.load(base), seed)
        save(model, base, folder)
        return state(model)

    return make


def by_selfpos(model: Any, base: Path, folder: Path) -> None:
    """As `selfpos finetune` does."""
    from selfpos.training.models import save_model

    save_model(model, base, folder, {})


class MissingFormError(Exception):
    """An architecture has no such form."""


def by_sentence_transformers(model: Any, base: Path, folder: Path) -> None:
    """By the library's own save."""
    model.save_pretrained(str(folder))


def by_transformers(model: Any, base: Path, folder: Path) -> None:
    """The transformer alone, as FlagEmbedding, LLaMA-Factory and others save it."""
    inner = getattr(model[0], "model", None)
    if inner is None:
        raise MissingFormError("there is no transformer in it")
    loaded = type(model)(str(base), device="cpu")
    for name, module in list(model.named_children())[1:]:
        module.load_state_dict(loaded.get_submodule(name).state_dict())  # such a folder has no other module
    inner.save_pretrained(folder)
    model[0].processor.save_pretrained(folder)


def lora(kind: Architecture, base: Path, folder: Path, seed: int) -> State:
    """A LoRA adapter on all linear layers, by PEFT on the model that sentence-transformers loads."""
    from peft import LoraConfig, get_peft_model

    model = kind.load(base)
    inner = getattr(model[0], "model", None)
    if inner is None:
        raise MissingFormError("there is no transformer in it")
    torch.manual_seed(seed)
    tuned = get_peft_model(inner, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    tuned.save_pretrained(folder)
    model[0].model = tuned.double().merge_and_unload()
    return state(model)


def as_pretrained(kind: Architecture, base: Path) -> Path:
    """The base stored as it was pretrained: under other names, with a head, without a pooler."""
    if kind.pretrained is None:
        raise MissingFormError("it has no pretraining head here")
    folder, whole = base.with_name("pretrained"), base.with_name("whole")
    getattr(transformers, kind.pretrained).from_pretrained(base).save_pretrained(whole)
    shutil.copytree(base, folder)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(whole / name, folder)
    return folder


@dataclass(frozen=True)
class Form:
    """How specialists are saved, and how their base is stored."""

    make: Callable[..., State]
    stored: Callable[[Architecture, Path], Path] = lambda kind, base: base


FORMS: dict[str, Form] = {
    "full, by selfpos": Form(full(by_selfpos)),
    "full, by sentence-transformers": Form(full(by_sentence_transformers)),
    "full, by transformers": Form(full(by_transformers)),
    "LoRA": Form(lora),
    "full, base with its head": Form(full(by_sentence_transformers), as_pretrained),
}


def moved(model: Any, seed: int) -> Any:
    """The model with noise on every parameter: a stand-in for a specialist."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise))
    return model


def state(model: Any) -> State:
    """The parameters of a loaded model in float64, tied ones once."""
    return {name: value.detach().double().clone() for name, value in model.named_parameters()}


def without_pooler(found: State) -> State:
    """The parameters but for BERT's pooler."""
    return {name: value for name, value in found.items() if ".pooler." not in name}


def ties(vectors: list[State]) -> State:
    """TIES over whole vectors in float64, weights 1/N: trim, elect signs, mean of those that agree."""
    names = list(vectors[0])
    flat = [torch.cat([vector[name].reshape(-1) for name in names]) for vector in vectors]
    kept = []
    for values in flat:
        count = math.ceil(DENSITY * values.numel() - 1e-9)
        threshold = values.abs().topk(count).values[-1]
        kept.append(torch.where(values.abs() >= threshold, values, 0.0))
    stacked = torch.stack(kept)
    agree = torch.where(torch.sign(stacked) == torch.sign(stacked.sum(0)), stacked, 0.0)
    merged = agree.sum(0) / (agree != 0).sum(0).clamp(min=1)
    sizes = [vectors[0][name].numel() for name in names]
    return {
        name: part.reshape(vectors[0][name].shape)
        for name, part in zip(names, merged.split(sizes), strict=True)
    }


@dataclass(frozen=True)
class Case:
    """Base and specialists of one architecture, saved in one way, and their parameters as loaded."""

    kind: Architecture
    base: Path
    sources: list[Path]
    start: State
    tuned: list[State]

    def vectors(self) -> list[State]:
        """The task vectors, at the parameters of the base."""
        return [{name: tuned[name] - value for name, value in self.start.items()} for tuned in self.tuned]

    def verdict(self, method: str, out: Path) -> str:
        """right, refused: why, or wrong: what."""
        try:
            merged = self._merged(method, out)
        except SelfposError as error:
            return f"refused: {str(error).replace(str(self.base.parent) + '/', '')}"
        found = state(self.kind.load(out))
        if not any(".pooler." in name for name in self.start):
            found = without_pooler(found)
        if found.keys() != self.start.keys():
            return f"wrong: other parameters, {sorted(found.keys() ^ self.start.keys())[:3]}"
        off = {
            name: float((found[name] - value - merged[name]).abs().max())
            for name, value in self.start.items()
        }
        worst = max(off, key=lambda name: off[name])
        return "right" if off[worst] <= TOLERANCE else f"wrong: {worst} by {off[worst]:.2g}"

    def _merged(self, method: str, out: Path) -> State:
        """Merge by selfpos; returns the vector that it should have added."""
        vectors = self.vectors()
        if method == "self-positioning":
            coefficients = self._search(out)
        else:
            given: dict[str, Any] = {"params": {"density": DENSITY}} if method == "ties" else {}
            merge(self.base, self.sources, method, out, show=False, **given)
            coefficients = [1 / len(vectors)] * len(vectors)
        if method == "ties":
            return ties(vectors)
        return {
            name: sum(c * vector[name] for c, vector in zip(coefficients, vectors, strict=True))
            for name in self.start
        }

    def _search(self, out: Path) -> list[float]:
        from datasets import Dataset

        from selfpos.data.probe import ProbeTask
        from selfpos.recipe import PositioningSettings
        from selfpos.searched_merge import position_and_merge
        from selfpos.tasks import get_task

        words = [chr(97 + i) for i in range(26)]
        rows = [
            {"anchor": f"{words[i % 26]} w{i}", "positive": f"w{i} {words[i * 7 % 26]}"} for i in range(32)
        ]
        probe = {"pairs": ProbeTask("pairs", get_task("retrieval"), Dataset.from_list(rows), "")}
        settings = PositioningSettings(search="sgd", steps=2, batch_size=8)
        if class_of(self.base) != EMBEDDER:
            settings = PositioningSettings(separate=False)
        if class_of(self.base) == RERANKER:
            rows = [
                {"query": row["anchor"], "positive": row["positive"], "negative": words[i % 26]}
                for i, row in enumerate(rows)
            ]
            probe = {"pairs": ProbeTask("pairs", get_task("reranking"), Dataset.from_list(rows), "")}
        return position_and_merge(
            str(self.base), [str(source) for source in self.sources], probe, settings, out
        ).coefficients


def rows(names: list[str], place: Path) -> Iterator[dict[str, str]]:
    """One row per architecture, form and method."""
    for name in names:
        kind = ARCHITECTURES[name]
        torch.manual_seed(0)
        base = kind.make(place / name / "base")
        for form, way in FORMS.items():
            folder = place / name / form.replace(", ", "-").replace(" ", "-")
            sources = [folder / f"v{seed}" for seed in (1, 2)]
            try:
                tuned = [way.make(kind, base, source, seed) for seed, source in enumerate(sources, start=1)]
                over = way.stored(kind, base)
            except MissingFormError as error:
                yield {
                    "architecture": name,
                    "form": form,
                    "method": "–",
                    "result": f"does not exist: {error}",
                }
                continue
            start = state(kind.load(over))
            if over != base:  # its pooler is random at each load, and nothing reads it
                start, *tuned = (without_pooler(found) for found in (start, *tuned))
            case = Case(kind, over, sources, start, tuned)
            for method in METHODS:
                result = case.verdict(method, folder / method)
                yield {"architecture": name, "form": form, "method": method, "result": result}
        shutil.rmtree(place / name)


def table(found: list[dict[str, str]]) -> str:
    """The rows as Markdown: architectures by forms, and the reasons of refusals below."""
    reasons: list[str] = []

    def cell(name: str, form: str) -> str:
        results = [row["result"] for row in found if (row["architecture"], row["form"]) == (name, form)]
        shown = []
        for result in results:
            word, _, reason = result.partition(": ")
            if reason and reason not in reasons:
                reasons.append(reason)
            shown.append(f"{word} ({reasons.index(reason) + 1})" if reason else word)
        return shown[0] if len(set(shown)) == 1 else ", ".join(shown)

    names = list(dict.fromkeys(row["architecture"] for row in found))
    lines = [
        "# Families of models",
        "",
        f"Each cell: {', '.join(METHODS)}; one word where all three agree. Written by "
        f"`benchmarks/families.py` with transformers {transformers.__version__}.",
        "",
        f"| architecture | {' | '.join(FORMS)} |",
        "|---" * (1 + len(FORMS)) + "|",
    ]
    lines += [f"| {name} | {' | '.join(cell(name, form) for form in FORMS)} |" for name in names]
    lines += ["", *(f"{number}. {reason}" for number, reason in enumerate(reasons, start=1))]
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> int:
    """Write the table; the exit status is 1 where a result is wrong."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        found = []
        for row in rows(names or list(ARCHITECTURES), Path(place)):
            print(*row.values(), sep=" | ", flush=True)
            found.append(row)
    if not names:
        (RESULTS / "families.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "families.md").write_text(table(found), encoding="utf-8")
    return int(any(row["result"].startswith("wrong") for row in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
