"""Whether a contender's output is right before its speed counts: every tensor against float64, and the model as it loads again."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from merging_contenders import DENSITY, Job

from selfpos.storage import ModelFolder, open_model
from selfpos.storage.model_folder import weight_files
from selfpos.storage.tensor_file import read_header

TOLERANCE = {"F32": 2e-6, "BF16": 2e-3}  # of weights around 0.05
MISSED = 1e-6  # share of elements that may differ: those that tie with a threshold, or that one side rounds up and the other down


def wrong_tensors(job: Job, out: Path, contender: str) -> list[str]:
    """What is wrong with the weights in `out`; nothing when all is right. TIES of whole vectors is not computed again here (the tests do)."""
    base = open_model(job.base)
    sources = [open_model(source) for source in job.sources]
    written = {key: entry for file, prefix in weight_files(out) for key, entry in read_header(file, prefix)[0].items()}
    made = ModelFolder(out, (), written)
    faults = []
    for key, entry in base.tensors.items():
        if key not in written:
            faults.append(f"{key} is missing")
            continue
        expected = reference(job.method, base, sources, key, rounding=math.ceil if contender == "selfpos" else math.floor)
        if expected is None:
            continue
        found = made.read_float32(key).astype(np.float64)
        off = np.abs(found - expected) > TOLERANCE[written[key].dtype if entry.dtype != "BF16" else "BF16"]
        if np.count_nonzero(off) > max(1, MISSED * entry.numel):
            faults.append(f"{key}: {np.count_nonzero(off)} of {entry.numel} elements off, by up to {np.abs(found - expected).max():.2g}")
    return faults


def reference(method: str, base: ModelFolder, sources: list[ModelFolder], key: str, rounding: Callable[[float], int]) -> np.ndarray | None:
    """One merged tensor in float64, or None for what is not computed again. `rounding` is how a share of elements becomes a number of them."""
    start = base.read_float32(key).astype(np.float64)
    tuned = [source.read_float32(key).astype(np.float64) for source in sources]
    if method == "linear":
        return np.mean(tuned, axis=0)
    if method == "task-arithmetic":
        return start + sum(value - start for value in tuned)
    if method == "slerp":
        one, two = tuned[0], tuned[1]
        cosine = float(np.sum(one * two) / np.linalg.norm(one) / np.linalg.norm(two))
        if abs(cosine) > 0.9995:
            return (one + two) / 2
        angle = np.arccos(cosine)
        return (one + two) * np.sin(angle / 2) / np.sin(angle)
    if method != "ties":
        return None
    kept = []
    for value in tuned:
        vector = value - start
        size = np.abs(vector).ravel()
        count = max(1, rounding(DENSITY * size.size))
        kept.append(vector * (np.abs(vector) >= np.partition(size, size.size - count)[size.size - count]))
    sign = np.sign(sum(kept))
    agrees = [(np.sign(vector) == sign) & (vector != 0) for vector in kept]
    count = np.maximum(sum(mask.astype(np.int64) for mask in agrees), 1)
    return start + sum(vector * mask for vector, mask in zip(kept, agrees, strict=True)) / count


RELOAD = """
import json, sys
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
facts = {"modules": [type(module).__name__ for module in model], "dimension": model.get_sentence_embedding_dimension(), "prompts": model.prompts}
print(json.dumps(facts))
"""


def lost_on_reload(job: Job, out: Path) -> list[str]:
    """What the output has lost of its parents when sentence-transformers loads it: modules, dimension, prompts."""
    facts = []
    for folder in (job.sources[0], out):
        done = subprocess.run([sys.executable, "-c", RELOAD, str(folder)], capture_output=True, text=True)
        if done.returncode:
            return [f"does not load: {done.stderr.strip().splitlines()[-1][:200]}"]
        facts.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return [f"{name}: {facts[0][name]} became {facts[1][name]}" for name in facts[0] if facts[0][name] != facts[1][name]]
