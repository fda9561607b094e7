"""The end of benchmarks/merging.py: outputs checked against float64 and loaded again, results as JSON and
Markdown."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from merging_contenders import DENSITY, METHODS, Job
from merging_inputs import SHAPES

from selfpos.storage.model_folder import ModelFolder, open_model, weight_files
from selfpos.storage.numbers import to_float32
from selfpos.storage.tensor_file import read_header

TOLERANCE = {"F32": 2e-6, "BF16": 2e-3}  # of weights around 0.05
TIE = 1e-9  # float32 models tell magnitudes of their differences apart no better
BLOCK = 1 << 20

Outputs = Mapping[str, Path]
"""A contender's output folder, by its name."""


def wrong_tensors(job: Job, outputs: Outputs) -> dict[str, list[str]]:
    """What is wrong with the weights of each output; nothing when all is right. TIES of whole vectors is not
    computed again here (the tests do)."""
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
    tensors: dict[str, Any] = {}
    for file, prefix, _ in weight_files(out):
        tensors |= read_header(file, prefix)[0]
    return ModelFolder(out, (), tensors)


def _read(model: ModelFolder, key: str, piece: slice) -> np.ndarray:
    return to_float32(model.raw(key)[piece], model.tensors[key].dtype).astype(np.float64)


def statistics(
    method: str, base: ModelFolder, sources: list[ModelFolder], key: str
) -> list[tuple[float, float]]:
    """What the reference needs to know of a whole tensor. TIES: per vector, the smallest magnitude kept where
    the share of elements is rounded up, and where down. SLERP: of the first two models, (norm, norm) and
    (inner product, 0).
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
        raise SystemExit(f"there is no reference for {method}; omit it")
    (first, second), (inner, _) = about
    cosine = inner / first / second
    both = tuned[0] + tuned[1]
    if abs(cosine) > 0.9995:
        return both / 2, nowhere
    return both * math.sin(math.acos(cosine) / 2) / math.sin(math.acos(cosine)), nowhere


def ties(
    start: np.ndarray, vectors: list[np.ndarray], limits: list[tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """TIES by tensor. Either way may go: elements that tie with the threshold (contenders keep all of them,
    or as many as make up the share, and round the share up or down), and those whose votes cancel (contenders
    take neither sign, or the positive one).
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
import sentence_transformers
for kind, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        model = getattr(sentence_transformers, kind)(folder, device="cpu")
        modules = [type(module).__name__ for module in model]
        facts = {"modules": modules, "prompts": model.prompts}
        if kind == "CrossEncoder":
            facts |= {"labels": model.num_labels, "activation": type(model.activation_fn).__name__}
        else:
            facts["dimension"] = model.get_embedding_dimension()
            facts["similarity"] = str(model.similarity_fn_name)
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    print("FACTS", json.dumps(facts))
"""


def lost_on_reload(jobs: list[tuple[Job, Outputs]]) -> list[dict[str, list[str]]]:
    """For each job, what each output has lost of its parents when sentence-transformers loads it in its
    class: modules, dimension, prompts, … One process loads them all, after one another.
    """
    words = [
        word
        for job, outputs in jobs
        for folder in (job.sources[0], *outputs.values())
        for word in (job.kind, str(folder))
    ]
    done = subprocess.run([sys.executable, "-c", RELOAD, *words], capture_output=True, text=True, check=True)
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


RIVALS = ("mergekit", "sentence-transformers")
TITLES = {
    "selfpos": "selfpos",
    "mergekit": "mergekit",
    "sentence-transformers": "sentence-transformers",
    "LM_Cocktail": "LM_Cocktail",
}


def read_results(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What merging.json in `folder` holds, to be added to; nothing yet where there is none. Rows of other
    facts (machine, versions) end the program."""
    file = folder / "merging.json"
    if not file.is_file():
        return {"facts": facts, "startup_cpu": {}, "jobs": []}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if results["facts"] != facts:
        raise SystemExit(
            f"{file} holds rows of {results['facts']}, not of {facts}; name another folder with --results, "
            "or remove it"
        )
    return results


def add_row(results: dict[str, Any], row: dict[str, Any]) -> None:
    """Put a row to its place: by size of the model, method, number of vectors; an earlier row of the same
    three goes."""
    kept = [other for other in results["jobs"] if _name(other) != _name(row)]
    results["jobs"] = sorted(
        [*kept, row],
        key=lambda job: (list(SHAPES).index(job["shape"]), METHODS.index(job["method"]), job["count"]),
    )


def _name(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["shape"], row["method"], row["count"]


def write_report(folder: Path, results: dict[str, Any]) -> None:
    """Write merging.json, and merging.md of the rows whose outputs have been checked, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for job in results["jobs"]:
        job["ratios"] = ratios(job["results"])
    (folder / "merging.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "merging.md").write_text(markdown(results), encoding="utf-8")


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """How many times less selfpos needs than the better of mergekit and sentence-transformers; and the CPU
    time of its merging and writing alone over that of `cp`, its whole wall time over that of `cp` flushed to
    disk.
    """
    own = results.get("selfpos")
    if not own or own["failed"]:
        return {}
    found = {"cp_flushed_wall": own["wall"] / results["cp_flushed"]["wall"]}
    if "write_cpu" in own:
        found["cp_cpu"] = own["write_cpu"] / max(results["cp"]["cpu"], 0.01)
    valid = [results[name] for name in RIVALS if results.get(name) and "output_mb" in results[name]]
    if valid:
        found["cpu"] = min(rival["cpu"] for rival in valid) / own["cpu"]
        found["memory"] = min(rival["anonymous_mb"] for rival in valid) / own["anonymous_mb"]
    return found


def markdown(results: dict[str, Any]) -> str:
    """Tables of CPU seconds / peak anonymous memory, with the machine above and the remarks below."""
    facts, rows = results["facts"], [job for job in results["jobs"] if job["checked"]]
    dates = sorted({job["date"] for job in rows})
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    contenders = [name for name in TITLES if name in results["startup_cpu"]]
    lines = [
        "# Merging, side by side",
        "",
        f"{', '.join(dates)}; {facts['processor']}, {facts['cores_used']} core(s), Python "
        f"{facts['python']}; {versions}.",
        "Each contender in its own process on the same inputs in the page cache, all contenders of a row "
        "after one another; CPU seconds from start",
        "to end of the process / peak anonymous memory in MB. Medians of three runs; * one run, ** the "
        "faster of two, where a run takes long.",
        "Outputs were checked against float64, and loaded again, before their times counted.",
        "`cp` copies one model's weights and reads the others; `over cp` is the CPU time in which selfpos "
        "merges and writes, without",
        "start-up, checks and hashes, over that.",
        "",
        "| model | method | vectors | "
        + " | ".join(contenders)
        + " | cp | over cp | less CPU | less memory |",
        "|---" * (7 + len(contenders)) + "|",
    ]
    remarks: dict[str, list[str]] = {}
    for job in rows:
        cells = []
        for name in contenders:
            cell, remark = _cell(job["results"].get(name))
            if remark:
                where = remarks.setdefault(f"{TITLES[name]}: {remark}", [])
                where.append(f"{job['shape']} {job['method']} ×{job['count']}")
                cell += f" [{list(remarks).index(f'{TITLES[name]}: {remark}') + 1}]"
            cells.append(cell)
        over = f"{job['ratios']['cp_cpu']:.1f}×" if "cp_cpu" in job["ratios"] else "–"
        less = [f"{job['ratios'][key]:.1f}×" if key in job["ratios"] else "–" for key in ("cpu", "memory")]
        start = [job["shape"], job["method"], str(job["count"])]
        lines.append(
            "| " + " | ".join([*start, *cells, f"{job['results']['cp']['cpu']:.2f} s", over, *less]) + " |"
        )
    lines += [
        "",
        "Start-up alone (import), CPU seconds: "
        + ", ".join(f"{name} {results['startup_cpu'][name]:.2f}" for name in contenders)
        + ".",
    ]
    lines += [
        "",
        *[
            f"[{number}] {remark} ({', '.join(where)})"
            for number, (remark, where) in enumerate(remarks.items(), start=1)
        ],
    ]
    return "\n".join(lines).rstrip() + "\n"


def _cell(result: dict[str, Any] | None) -> tuple[str, str]:
    """A cell, and a remark for below the table."""
    if result is None:
        return "–", ""
    if "not_run" in result:
        return "not run", result["not_run"]
    if result["failed"]:
        return "fails", result["failed"]
    remarks = [*result["wrong"][:1], *result["lost"]]
    return (
        f"{result['cpu']:.2f} s / {result['anonymous_mb']:.0f}{ {1: '*', 2: '**'}.get(result['runs'], '') }",
        "; ".join(remarks),
    )
