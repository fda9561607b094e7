"""Speed and memory of a gradient step of positioning, as ratios of two things measured in one run.

    python benchmarks/positioning.py            # on a quiet machine, a quarter of an hour of one core
    python benchmarks/positioning.py --quick    # tiny models, each step once: does it run?

1. A step against forward and backward of plain fine-tuning (time) and an AdamW step (memory), for N = 2, 4,
   8, 16 vectors, and with the activations of 16 texts at a time (`chunk`).
2. A step against a graph through the merge (torch.func.functional_call over θ0 + Σ c_i V_i, all vectors in
   memory), the form of FusionBench's layer-wise wrapper: same gradients, time, memory.
3. The low-rank step against the dense step on the same LoRA vectors, and again at the width and depth of
   BERT-base.

Each step is measured in a process of its own, on models of random weights. Time is the median with the
allocator as it is. Memory is the peak of anonymous pages above the idle process (pages of mapped files can be
dropped), taken in a second process whose allocator gives freed blocks of 64 KB and more back at once: glibc
otherwise keeps what activations leave behind, half a gigabyte here, and the peak then tells of its heap and
not of what a step needs. Results go to benchmarks/results/positioning.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from positioning_steps import ADAPTERS, RANK, SHAPES, STEPS, WORDS, models_of

from selfpos.storage.atomic import write_text

HERE = Path(__file__).parent
COUNTS = (2, 3, 4, 8, 16)  # of vectors
GRAPHS = (2, 3, 8)  # of vectors in a graph through the merge
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(HERE.parent)}

Job = tuple[str, dict[str, Any]]
"""A name of STEPS and its arguments."""
Ratio = tuple[str, float, float | None]
"""What, the ratio, and the target that it should not exceed, if there is one."""


def step_jobs() -> dict[str, Job]:
    """Name → job, of every kind of step."""
    vectors = [f"v{number}" for number in range(max(COUNTS))]
    return {
        "forward and backward": ("plain", {"adam": False}),
        "AdamW step": ("plain", {"adam": True}),
        **{f"step {count}": ("step", {"sources": vectors[:count]}) for count in COUNTS},
        "step 4, chunk 16": ("step", {"sources": vectors[:4], "chunk": 16}),
        **{f"graph {count}": ("graph", {"sources": vectors[:count]}) for count in GRAPHS},
        **adapter_jobs(),
    }


def adapter_jobs() -> dict[str, Job]:
    """Name → job, of the two ways to take a step over adapters."""
    sources = [f"a{number}" for number in range(ADAPTERS)]
    return {
        "adapters, dense": ("step", {"sources": sources, "low_rank": False}),
        "adapters, low rank": ("step", {"sources": sources}),
    }


def run(job: Job, environment: dict[str, str]) -> dict[str, Any]:
    """What `job` measures, in a process of its own."""
    name, arguments = job
    words = [sys.executable, str(HERE / "positioning_steps.py"), name, json.dumps(arguments)]
    process = subprocess.run(words, capture_output=True, text=True, env=os.environ | QUIET | environment)
    if process.returncode:
        raise SystemExit(f"{name} {arguments} failed:\n{process.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return measured


def measure(jobs: dict[str, Job], folder: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Time, memory and gradient of the steps of `jobs`, on the models in `folder`."""
    steps = {}
    for label, (name, arguments) in jobs.items():
        arguments = arguments | {"folder": str(folder), "repeats": options.repeats}
        if options.quick and label != "AdamW step":  # a try starts one process, for time's sake
            timed = held = STEPS[name](**arguments)
        else:
            timed = run((name, arguments), {})
            held = run((name, arguments | {"repeats": min(2, options.repeats)}), GIVES_BACK)
        steps[label] = {
            "seconds": timed["seconds"],
            "megabytes": held["megabytes"],
            "megabytes_with_heap": timed["megabytes"],
            "gradient": timed["result"],
        }
        print(f"{label}: {timed['seconds']:.3f} s, {held['megabytes']:.0f} MB", flush=True)
    return steps


def step_ratios(steps: dict[str, Any]) -> list[Ratio]:
    """The numbers that the targets are about."""

    def ratio(first: str, second: str, what: str) -> float:
        return float(steps[first][what] / steps[second][what])

    memory = [steps[f"step {count}"]["megabytes"] for count in COUNTS if count != 3]
    ours, theirs = steps["step 3"]["gradient"], steps["graph 3"]["gradient"]
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / max(map(abs, theirs))
    plain, chunked = "forward and backward", "step 4, chunk 16"
    low_rank, dense = "adapters, low rank", "adapters, dense"
    through = "step / graph through the merge, N ="
    return [
        ("step, N = 4 / forward and backward: time", ratio("step 4", plain, "seconds"), 1.15),
        ("step, N = 4 / AdamW step: memory", ratio("step 4", "AdamW step", "megabytes"), 0.6),
        (
            "the same with activations of 16 texts at a time (chunk): memory",
            ratio(chunked, "AdamW step", "megabytes"),
            None,
        ),
        ("that chunked step / forward and backward: time", ratio(chunked, plain, "seconds"), None),
        ("memory for N = 2, 4, 8, 16: largest / smallest", max(memory) / min(memory), 1.1),
        ("gradient, N = 3: largest difference from the graph's, relative", difference, 1e-3),
        (f"{through} 2: memory", ratio("step 2", "graph 2", "megabytes"), None),
        (f"{through} 3: memory", ratio("step 3", "graph 3", "megabytes"), 0.5),
        (f"{through} 8: memory", ratio("step 8", "graph 8", "megabytes"), None),
        (f"{through} 3: time", ratio("step 3", "graph 3", "seconds"), None),
        ("low-rank step / dense step: time", ratio(low_rank, dense, "seconds"), 0.75),
        ("low-rank step / dense step: memory", ratio(low_rank, dense, "megabytes"), 0.6),
    ]


def wide_ratios(steps: dict[str, Any]) -> list[Ratio]:
    """The low-rank step on the wide model, as a share of the dense one."""
    low_rank, dense = steps["adapters, low rank"], steps["adapters, dense"]
    what = "the same two, 12 layers of width 768:"
    return [
        (f"{what} time", low_rank["seconds"] / dense["seconds"], 0.75),
        (f"{what} memory", low_rank["megabytes"] / dense["megabytes"], 0.6),
    ]


def counted(shape: str) -> list[Ratio]:
    """Multiplications of a low-rank step over a dense one's, in the products of a layer of BERT's: what time
    can come to at best.

    A dense step makes each product three times (forward, gradient of the input, gradient of the weight). A
    low-rank one makes it twice, with the factors beside it, and the widening product a third time, for that
    keeps its output out of memory.
    """
    _, width, _, _, inner = SHAPES[shape]
    linears = [(width, width)] * 4 + [(width, inner), (inner, width)]
    layer = sum(a * b for a, b in linears)
    beside = sum(ADAPTERS * RANK * (a + b) for a, b in linears)
    again = width * inner + ADAPTERS * RANK * (width + inner)
    kept, made_again = 2 * (layer + beside) / (3 * layer), (2 * (layer + beside) + again) / (3 * layer)
    return [
        ("the same two: multiplications counted", made_again, None),
        ("the same two: multiplications, were wide outputs kept", kept, None),
    ]


def on_paper(
    *, width: int = 4096, inner: int = 14336, keys: int = 1024, layers: int = 32, vocabulary: int = 32000
) -> list[tuple[str, float]]:
    """What a low-rank search over a base of 7·10⁹ weights (the shape of Mistral-7B) with eight adapters of
    rank 16 needs, in GB, part by part.

    Counted, not measured: weights and factors in float32; for each token and layer, in bf16, what the
    backward pass keeps of a gated layer whose weights have no gradient and whose widening products are made
    again: two norms' inputs (float32) and scales, queries, keys and values before and after their rotation,
    the attention's result, the activation function's result and the factors' products.
    """
    adapters, rank, tokens = 8, 16, 8 * 512
    linears = [
        (width, width),
        (width, keys),
        (width, keys),
        (width, width),
        (width, inner),
        (width, inner),
        (inner, width),
    ]
    weights = vocabulary * width + layers * (sum(a * b for a, b in linears) + 2 * width)
    factors = adapters * layers * rank * sum(a + b for a, b in linears)
    kept = (
        2 * 2 * 2 * width + 2 * (width + 2 * keys) + width + inner + len(linears) * adapters * rank
    )  # numbers of two bytes
    widest = 3 * tokens * inner * 2  # made again, of one layer at a time
    parts = [
        ("base, float32", 4 * weights),
        ("eight adapters of rank 16 on all linear layers, float32", 4 * factors),
        ("activations of 8 texts of 512 tokens, bf16", 2 * kept * tokens * layers),
        ("made again, one layer", widest),
        ("weights cast to bf16, which the backward pass keeps", 2 * weights),
    ]
    rows = [(name, size / 1e9) for name, size in parts]
    return [*rows, ("together (a large GPU has 80)", sum(size for _, size in rows))]


def report(facts: dict[str, Any], steps: dict[str, Any], wide: dict[str, Any]) -> dict[str, Any]:
    """The content of positioning.json."""
    ratios = [
        *step_ratios(steps),
        *counted(facts["shape"]),
        *wide_ratios(wide),
        *counted("tiny" if facts["quick"] else "base"),
    ]
    return {
        "facts": facts,
        "steps": steps,
        "ratios": [{"what": what, "found": ratio, "target": target} for what, ratio, target in ratios],
        "on_paper": dict(on_paper()),
        "wide": wide,
    }


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    facts = results["facts"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines = [
        "# Positioning: time and memory",
        "",
        f"{facts['date']}, {facts['processor']}, {facts['cores']} core(s), "
        f"Python {facts['python']}; {versions}.",
        "How it was measured: benchmarks/positioning.py, at its head.",
        "",
    ]
    if facts["quick"]:
        lines += ["**A quick try on tiny random models: the numbers mean nothing.**", ""]
    lines += [
        f"A model of shape `{facts['shape']}`, 32 pairs of texts of {facts['words']} words.",
        "",
        "| step | seconds | MB |",
        "|---|---:|---:|",
    ]
    for label, step in results["steps"].items():
        lines.append(f"| {label} | {step['seconds']:.3f} | {step['megabytes']:.0f} |")
    lines += ["", "| ratio | found | target |", "|---|---:|---:|"]
    for row in results["ratios"]:
        target = "–" if row["target"] is None else f"≤ {row['target']:g}"
        lines.append(f"| {row['what']} | {row['found']:.3g} | {target} |")
    lines += [
        "",
        "On paper, a low-rank search over a base of 7·10⁹ weights, batches in chunks of eight texts:",
        "",
        "| part | GB |",
        "|---|---:|",
    ]
    lines += [f"| {part} | {size:.1f} |" for part, size in results["on_paper"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--quick", action="store_true", help="tiny models, few steps: a try")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--work", type=Path, default=Path("checkpoints/positioning-benchmark"), help="folder for models"
    )
    parser.add_argument(
        "--out", type=Path, default=HERE / "results", help="folder for positioning.json and positioning.md"
    )
    options = parser.parse_args()
    if options.quick:
        options.shape, options.repeats = "tiny", 1
    facts = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("selfpos", "torch", "sentence-transformers")},
        "shape": options.shape,
        "quick": options.quick,
        "words": WORDS,
    }
    steps = measure(step_jobs(), models_of(options.work, options.shape, max(COUNTS)), options)
    wide_shape = "tiny" if options.quick else "base"
    wide = measure(adapter_jobs(), models_of(options.work, wide_shape, 0), options)
    results = report(facts, steps, wide)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "positioning.json", json.dumps(results, indent=1) + "\n")
    write_text(options.out / "positioning.md", markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
