"""Whether the contenders' outputs are right before their speed counts: every tensor against float64, and the models as they load again."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from merging_contenders import DENSITY, Job

from selfpos.storage import ModelFolder, open_model
from selfpos.storage.model_folder import weight_files
from selfpos.storage.numbers import to_float32
from selfpos.storage.tensor_file import read_header

TOLERANCE = {"F32": 2e-6, "BF16": 2e-3}  # of weights around 0.05
TIE = 1e-9  # float32 models tell magnitudes of their differences apart no better
BLOCK = 1 << 20

Outputs = Mapping[str, Path]
"""A contender's output folder, by its name."""


def wrong_tensors(job: Job, outputs: Outputs) -> dict[str, list[str]]:
    """What is wrong with the weights of each output; nothing when all is right. TIES of whole vectors is not computed again here (the tests do)."""
    base = open_model(job.base)
    sources = [open_model(source) for source in job.sources]
    made = {name: _weights(out) for name, out in outputs.items()}
    faults: dict[str, list[str]] = {name: [] for name in outputs}
    for key, entry in base.tensors.items():
        there = {name: model for name, model in made.items() if key in model.tensors}
        for name in made.keys() - there.keys():
            faults[name].append(f"{key} is missing")
        if job.method == "ties-global":
            continue
        off, worst = dict.fromkeys(there, 0), dict.fromkeys(there, 0.0)
        about = statistics(job.method, base, sources, key)
        for start in range(0, entry.numel, BLOCK):
            piece = slice(start, min(start + BLOCK, entry.numel))
            tuned = [_read(source, key, piece) for source in sources]
            expected, either_way = reference(job.method, _read(base, key, piece), tuned, about)
            for name, model in there.items():
                tolerance = TOLERANCE["BF16" if "BF16" in (entry.dtype, model.tensors[key].dtype) else "F32"]
                distance = np.abs(_read(model, key, piece) - expected)
                distance[either_way] = 0
                off[name] += np.count_nonzero(distance > tolerance)
                worst[name] = max(worst[name], float(distance.max()))
        faults_here = {
            name: f"{key}: {count} of {entry.numel} elements off, by up to {worst[name]:.2g}"
            for name, count in off.items()
            if count
        }
        for name, fault in faults_here.items():
            faults[name].append(fault)
    return faults


def _weights(out: Path) -> ModelFolder:
    return ModelFolder(
        out,
        (),
        {
            key: entry
            for file, prefix in weight_files(out)
            for key, entry in read_header(file, prefix)[0].items()
        },
    )


def _read(model: ModelFolder, key: str, piece: slice) -> np.ndarray:
    return to_float32(model.raw(key)[piece], model.tensors[key].dtype).astype(np.float64)


def statistics(
    method: str, base: ModelFolder, sources: list[ModelFolder], key: str
) -> list[tuple[float, float]]:
    """What the reference needs to know of a whole tensor. TIES: per vector, the smallest magnitude kept where the share of elements is rounded up,
    and where down. SLERP: of the first two models, (norm, norm) and (inner product, 0).
    """
    whole = slice(None)
    if method == "slerp":
        one, two = (_read(source, key, whole) for source in sources[:2])
        return [(float(np.linalg.norm(one)), float(np.linalg.norm(two))), (float(one @ two), 0.0)]
    if method != "ties":
        return []
    found = []
    start = _read(base, key, whole)
    for source in sources:
        size = np.abs(_read(source, key, whole) - start)
        most, least = (
            size.size - max(1, rounding(DENSITY * size.size)) for rounding in (math.ceil, math.floor)
        )
        ordered = np.partition(size, sorted({most, least}))
        found.append((float(ordered[most]), float(ordered[least])))
    return found


def reference(
    method: str, start: np.ndarray, tuned: list[np.ndarray], about: list[tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Merged elements in float64, and which of them may be otherwise; `about` is what `statistics` found."""
    nowhere = np.zeros(start.shape, bool)
    if method == "linear":
        return np.mean(tuned, axis=0), nowhere
    if method == "task-arithmetic":
        return start + sum(value - start for value in tuned), nowhere
    if method == "ties":
        return ties(start, [value - start for value in tuned], about)
    if method != "slerp":
        raise SystemExit(f"there is no reference for {method}; leave it away")
    (first, second), (inner, _) = about
    cosine = inner / first / second
    both = tuned[0] + tuned[1]
    if abs(cosine) > 0.9995:
        return both / 2, nowhere
    return both * math.sin(math.acos(cosine) / 2) / math.sin(math.acos(cosine)), nowhere


def ties(
    start: np.ndarray, vectors: list[np.ndarray], limits: list[tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """TIES by tensor. Either way may go: elements that tie with the threshold (contenders keep all of them, or as many as make up the share, and
    round the share up or down), and those whose votes cancel (contenders take neither sign, or the positive one).
    """
    kept, either_way = [], np.zeros(start.shape, bool)
    for vector, (low, high) in zip(vectors, limits, strict=True):
        size = np.abs(vector)
        kept.append(vector * (size >= low))
        either_way |= (size >= low - TIE) & (size <= high + TIE)
    total = sum(kept)
    either_way |= (np.abs(total) < TIE) & np.any([vector != 0 for vector in kept], axis=0)
    agrees = [(np.sign(vector) == np.sign(total)) & (vector != 0) for vector in kept]
    count = np.maximum(sum(mask.astype(np.int64) for mask in agrees), 1)
    return start + sum(vector * mask for vector, mask in zip(kept, agrees, strict=True)) / count, either_way


RELOAD = """
import json, sys
from sentence_transformers import SentenceTransformer
for folder in sys.argv[1:]:
    try:
        model = SentenceTransformer(folder, device="cpu")
        facts = {"modules": [type(module).__name__ for module in model], "dimension": model.get_sentence_embedding_dimension(), "prompts": model.prompts}
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    print("FACTS", json.dumps(facts))
"""


def lost_on_reload(jobs: list[tuple[Job, Outputs]]) -> list[dict[str, list[str]]]:
    """For each job, what each output has lost of its parents when sentence-transformers loads it: modules, dimension, prompts. One process loads
    them all, after one another.
    """
    folders = [folder for job, outputs in jobs for folder in (job.sources[0], *outputs.values())]
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, *map(str, folders)], capture_output=True, text=True, check=True
    )
    facts = iter(
        [
            json.loads(line.removeprefix("FACTS "))
            for line in done.stdout.splitlines()
            if line.startswith("FACTS ")
        ]
    )
    found = []
    for _, outputs in jobs:
        parent = next(facts)
        found.append({name: _losses(parent, next(facts)) for name in outputs})
    return found


def _losses(parent: dict[str, object], facts: dict[str, object]) -> list[str]:
    if "error" in facts:
        return [f"does not load: {facts['error']}"]
    return [f"{fact}: {value} became {facts[fact]}" for fact, value in parent.items() if value != facts[fact]]
