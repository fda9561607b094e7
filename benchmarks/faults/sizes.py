"""Sizes: many vectors, many tiny tensors, a model of 0.6 billion weights, a large report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from place import Place
from trial import DONE, Outcome, Trial, command_line, outcome, run, unreadable, wrongs

from selfpos.storage.file_kinds import WEIGHTS

REPORT = {"models": 50, "tasks": 60}
REPORT_BYTES = 8_000_000  # which a browser parses within a second


def outcomes(place: Place) -> Iterator[Outcome]:
    yield many_vectors(place)
    yield many_tensors(place)
    yield from large(place)
    yield from report(place)


def _merged(fault: str, words: list, out: Path, seconds: float, memory: int) -> Outcome:
    trial = Trial(fault, words, out, DONE, seconds=seconds, memory=memory)
    seen = run(lambda: command_line(trial), seconds=seconds, memory=memory)
    why = [*wrongs(trial, seen), unreadable(out) if out.is_dir() else "nothing was written"]
    return outcome(fault, why, seen, f"{seen.seconds:.1f} s, within {memory:,} MB of address space more")


def many_vectors(place: Place) -> Outcome:
    from tests.helpers.models import make_specialist

    folder = place.fresh()
    vectors = [make_specialist(place.base, folder / f"v{seed}", seed=seed) for seed in range(32)]
    out = folder / "out"
    return _merged("32 vectors", place.merge(out, vectors=vectors), out, 60, 1000)


def many_tensors(place: Place) -> Outcome:
    """A thousand tensors of four numbers each beside those of the model."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    models = [place.copy(place.base), place.copy(place.vectors[0]), place.copy(place.vectors[1])]
    for seed, model in enumerate(models):
        tensors = load_file(model / WEIGHTS)
        draw = np.random.default_rng(seed)
        tensors |= {f"extra.{n}.weight": draw.normal(size=4).astype(np.float32) for n in range(1000)}
        save_file(tensors, model / WEIGHTS, metadata={"format": "pt"})
    out = place.fresh() / "out"
    words = place.merge(out, base=models[0], vectors=models[1:])
    return _merged("1,000 tiny tensors", words, out, 60, 1000)


def large(place: Place) -> Iterator[Outcome]:
    """Models of Qwen3-Embedding-0.6B's shapes, whose files take no disk until they are merged."""
    import torch
    from transformers import AutoModel, Qwen3Config

    sizes = {"vocab_size": 151_669, "hidden_size": 1024, "num_hidden_layers": 28, "intermediate_size": 3072}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    config = Qwen3Config(**sizes, **heads)
    with torch.device("meta"):
        state = AutoModel.from_config(config).state_dict()
    models = []
    for name in ("base", "vector"):
        model = place.copy(place.base).rename(place.fresh() / name)
        header, position = {}, 0
        for tensor, value in state.items():
            size = 2 * value.numel()
            offsets = [position, position + size]
            header[tensor] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": offsets}
            position += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (model / WEIGHTS).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + position)
        config.save_pretrained(model)
        pooling = json.loads((model / "1_Pooling" / "config.json").read_text())
        size_name = next(key for key in pooling if "dimension" in key)
        (model / "1_Pooling" / "config.json").write_text(json.dumps(pooling | {size_name: 1024}))
        shutil.rmtree(model / "2_Dense")
        modules = [m for m in json.loads((model / "modules.json").read_text()) if "Dense" not in m["path"]]
        (model / "modules.json").write_text(json.dumps(modules))
        models.append(model)
    for method in ("average", "ties"):
        out = place.fresh() / "out"
        words = place.merge(out, base=models[0], vectors=models[1:], method=method)
        fault = f"0.6 billion weights under 1 GB of address space beyond the runtime: {method}"
        yield _merged(fault, words, out, 300, 1000)
        shutil.rmtree(out, ignore_errors=True)


def report(place: Place) -> Iterator[Outcome]:
    """The report and the comparison of many models on many tasks."""
    run_folder = many_scores(place)
    page = place.fresh() / "report.html"
    trial = Trial("a report of 50 models × 60 tasks", ["report", run_folder, "--out", page], None, DONE)
    seen = run(lambda: command_line(trial), seconds=120, memory=3000)
    why = [*wrongs(trial, seen)]
    size = page.stat().st_size if page.is_file() else 0
    why += [f"{size:,} bytes"] if not 0 < size < REPORT_BYTES else []
    told = f"{size / 1e6:.1f} MB, written in {seen.seconds:.1f} s"
    yield outcome(trial.fault, why, seen, told)
    out = page.with_name("out.md")
    trial = Trial("a comparison of 50 models × 60 tasks", ["compare", run_folder, "--out", out], None, DONE)
    seen = run(lambda: command_line(trial), seconds=120, memory=3000)
    why = [*wrongs(trial, seen)]
    told = f"{out.stat().st_size / 1e6:.1f} MB, in {seen.seconds:.1f} s" if out.is_file() else ""
    yield outcome(trial.fault, why, seen, told)


def many_scores(place: Place) -> Path:
    """A run with scores of 50 models on 60 tasks, without examples."""
    import yaml

    folder = place.fresh() / "run"
    folder.mkdir()
    merges = [f"merge-{number}" for number in range(REPORT["models"] - 2)]
    recipe = {
        "name": "many",
        "tasks": {"sts": {"type": "sts", "data": "x.jsonl"}},
        "joint": None,
        "merges": {name: {"method": "average"} for name in merges},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for place_, model in enumerate(["base", "sts", *merges]):
        root = folder / "scores" / model
        tasks = {}
        for number in range(REPORT["tasks"]):
            value = 0.5 + 0.001 * ((place_ * 7 + number * 13) % 97)
            name = f"Task{number:02}"
            file = root / "results" / f"many__{model}" / "rev" / f"{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            scores = {"test": [{"main_score": value, "hf_subset": "default", "languages": ["eng-Latn"]}]}
            result = {"task_name": name, "dataset_revision": "one", "mteb_version": "2", "scores": scores}
            file.write_text(json.dumps(result))
            tasks[name] = {
                "type": "STS",
                "metric": "cosine_spearman",
                "main_score": value,
                "file": file.relative_to(root).as_posix(),
            }
        (root / "last.json").write_text(
            json.dumps({"model": f"many/{model}", "revision": "rev", "tasks": tasks})
        )
    return folder
