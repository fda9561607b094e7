"""Speed and memory of positioning: ratios in one run, each contender in a process of its own. Needs a quiet
machine, 20 minutes of one core.

    python benchmarks/positioning.py            # all, with specialists trained for it on the embedded corpus
    python benchmarks/positioning.py --quick    # everything once on tiny random models: does it run? The
    numbers mean nothing python benchmarks/positioning.py --vectors A B C --probe PROBE --base BASE   # the
    searches on specialists of your own

1. one step against forward and backward of plain fine-tuning (time) and an AdamW step (memory), for N = 2, 4,
   8, 16 vectors, and with the activations of 16 texts at a time (`chunk`);
2. against a graph through the merge (torch.func.functional_call over θ0 + Σ c_i V_i, all vectors in memory),
   the form of FusionBench's layer-wise wrapper: same gradients, time, memory;
3. the low-rank step against the dense step on the same LoRA vectors, and again at the width and depth of
BERT-base (`wide`);
4. what searches cost to reach the validation loss of the paper's 1,000 Adam steps, all with losses over the
   base's, no price on coefficients and points chosen by the validation loss: the linearised search, CMA-ES,
   LM-Cocktail's softmax of losses, and a grid of five points a vector (one vector after the other).

Time is the median with the allocator as it is. Memory is the peak of anonymous pages above the idle process
(pages of mapped files can be dropped), taken in a second process whose allocator gives freed blocks of 64 KB
and more back at once: glibc otherwise keeps what activations leave behind, half a gigabyte here, and the peak
then tells of its heap and not of what a step needs. What has been measured is kept in --work, and the same
command goes on from there; times that are compared are best measured in one go, `--only steps` for one.
Results go to benchmarks/results/positioning.json and .md after every part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from positioning_contenders import CONTENDERS
from positioning_inputs import ADAPTERS, SHAPES, WORDS, make_models, make_random_probe, make_specialists
from positioning_report import write_report

from selfpos.storage.atomic import write_text

HERE = Path(__file__).parent
COUNTS = (2, 3, 4, 8, 16)
GRAPHS = (2, 3, 8)
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def run(
    contender: str, arguments: dict[str, Any], *, own: bool, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """What `contender` measures, in a process of its own; or, for a try, in this one."""
    if not own:
        return CONTENDERS[contender](**arguments)
    words = [sys.executable, str(HERE / "positioning_contenders.py"), contender, json.dumps(arguments)]
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | quiet | (environment or {}))
    if done.returncode:
        raise SystemExit(f"{contender} {arguments} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def step_jobs(counts: tuple[int, ...]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name → contender and its arguments."""
    dense = {f"step {n}": ("step", {"sources": [f"v{i}" for i in range(n)]}) for n in counts}
    graphs = {f"graph {n}": ("graph", {"sources": [f"v{i}" for i in range(n)]}) for n in GRAPHS}
    return {
        "forward and backward": ("plain", {"adam": False}),
        "AdamW step": ("plain", {"adam": True}),
        **dense,
        "step 4, chunk 16": ("step", {"sources": [f"v{i}" for i in range(4)], "chunk": 16}),
        **graphs,
        **adapter_jobs(),
    }


def adapter_jobs() -> dict[str, tuple[str, dict[str, Any]]]:
    """The two ways to take a step over adapters."""
    sources = [f"a{i}" for i in range(ADAPTERS)]
    return {
        "adapters, dense": ("step", {"sources": sources, "low_rank": False}),
        "adapters, low rank": ("step", {"sources": sources}),
    }


class Kept:
    """What has been measured so far, by section and name, in a file of the folder `work`; measured there
    once."""

    def __init__(self, work: Path) -> None:
        self._file = work / "found.json"
        self.found: dict[str, dict[str, Any]] = (
            json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}
        )

    def __call__(self, section: str, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        known = self.found.setdefault(section, {})
        if name not in known:
            known[name] = measure()
            write_text(self._file, json.dumps(self.found, indent=1))
        found: dict[str, Any] = known[name]
        return found


def steps(folder: Path, options: argparse.Namespace, kept: Kept) -> None:
    """Time and memory of every kind of step."""
    compare("steps", step_jobs(COUNTS), folder, options, kept)


def wide(folder: Path, options: argparse.Namespace, kept: Kept) -> None:
    """The two steps over adapters on a wider and deeper model."""
    shape = "tiny" if options.quick else "base"
    place = folder / f"wide-{shape}"
    if not (place / "made").exists():
        place.mkdir(exist_ok=True)
        make_models(place, SHAPES[shape], 0)
        (place / "made").touch()
    compare("wide", adapter_jobs(), place, options, kept)


def compare(
    section: str,
    jobs: dict[str, tuple[str, dict[str, Any]]],
    folder: Path,
    options: argparse.Namespace,
    kept: Kept,
) -> None:
    """Time and memory of the steps in `jobs`, on the models in `folder`."""

    def measure(contender: str, arguments: dict[str, Any]) -> dict[str, Any]:
        arguments = arguments | {"folder": str(folder)}
        own = not options.quick or arguments.get("adam", False)
        timed = run(contender, arguments | {"repeats": options.repeats}, own=own)
        held = (
            run(contender, arguments | {"repeats": min(2, options.repeats)}, own=own, environment=GIVES_BACK)
            if own
            else timed
        )
        return {
            "seconds": timed["seconds"],
            "megabytes": held["megabytes"],
            "megabytes_with_heap": timed["megabytes"],
            "gradient": timed["result"],
        }

    for name, (contender, arguments) in jobs.items():
        found = kept(
            section, name, lambda contender=contender, arguments=arguments: measure(contender, arguments)
        )  # type: ignore[misc]
        print(f"{name}: {found['seconds']:.3f} s, {found['megabytes']:.0f} MB", flush=True)


def searches(folder: Path, options: argparse.Namespace, kept: Kept) -> None:
    """Every search from the same start to the same validation part."""
    if options.probe:
        given = {
            "base": options.base,
            "vectors": [str(vector) for vector in options.vectors],
            "probe": str(options.probe),
        }
    elif options.quick:
        if not (folder / "probe").exists():
            make_random_probe(folder, folder / "probe", 32)
        given = {
            "base": str(folder / "base"),
            "vectors": [str(folder / f"v{n}") for n in range(3)],
            "probe": str(folder / "probe"),
        }
    else:
        vectors = make_specialists(folder, steps=30, probe=192)
        given = {
            "base": "all-MiniLM-L6-v2",
            "vectors": [str(vector) for vector in vectors],
            "probe": str(folder / "probe"),
        }
    free = {
        "extrapolation": 0.0,
        "max_length": options.max_length,
    }  # no price on coefficients: all look for the loss alone
    paper = {
        "preset": "paper",
        "steps": options.steps,
        "validation": 0.5,
        "normalise": "base",
        "temperature": 0.05,
        "penalty": 0.0,
        "max_length": options.max_length,
    }
    wanted: dict[str, dict[str, Any]] = {
        f"paper, {options.steps} Adam steps": paper,
        "linearised": free,
        "CMA-ES": free | {"search": "cma-es", "evaluations": options.evaluations},
        "softmax of losses": free | {"search": "loss-softmax"},
    }
    own = not options.quick
    for number, (name, settings) in enumerate(wanted.items()):
        arguments = given | {"trajectory": str(folder / f"way{number}.jsonl"), "settings": settings}
        found = kept("searches", name, lambda arguments=arguments: run("search", arguments, own=own))  # type: ignore[misc]
        print(f"{name}: {found['value']:.4f} in {found['seconds']:.1f} s", flush=True)
    kept("searches", "grid", lambda: run("grid", given | {"settings": free}, own=own))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--quick", action="store_true", help="tiny models, few steps: a try")
    parser.add_argument("--vectors", nargs="*", type=Path, default=[])
    parser.add_argument("--base", default="all-MiniLM-L6-v2")
    parser.add_argument("--probe", type=Path)
    parser.add_argument("--steps", type=int, default=1000, help="of the paper's search")
    parser.add_argument("--evaluations", type=int, default=70, help="of CMA-ES")
    parser.add_argument("--max-length", type=int, default=32, help="tokens of a probe text in the searches")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["steps", "wide", "searches"])
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("checkpoints/positioning-benchmark"),
        help="folder for models and what is measured",
    )
    parser.add_argument(
        "--out", type=Path, default=HERE / "results", help="folder for positioning.json and positioning.md"
    )
    options = parser.parse_args()
    if options.quick:
        options.shape, options.steps, options.evaluations, options.repeats = "tiny", 8, 8, 1
    facts = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("selfpos", "torch", "sentence-transformers")},
        "shape": options.shape,
        "quick": options.quick,
        "words": WORDS,
        "max_length": options.max_length,
    }
    results: dict[str, Any] = {"facts": facts}
    folder = options.work / ("quick" if options.quick else options.shape)
    if not (folder / "made").exists():
        folder.mkdir(parents=True)
        make_models(folder, SHAPES[options.shape], max(COUNTS))
        (folder / "made").touch()
    kept = Kept(folder)
    for section, measure in (("steps", steps), ("wide", wide), ("searches", searches)):
        if options.only in (None, section):
            measure(folder, options, kept)
            kept("whole", section, dict)
        if section in kept.found.get("whole", {}):
            results[section] = kept.found[section]
            write_report(options.out, results)
    print((options.out / "positioning.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
