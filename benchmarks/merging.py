"""Merging side by side: selfpos, mergekit, SentenceTransformer.merge, LM_Cocktail and plain `cp`, each in its
own process on the same inputs.

    python benchmarks/merging.py --rivals VENV/bin/python --shapes minilm bert-base xlmr-base qwen3-0.6b
    --counts 3 --methods linear ties

The rivals' Python needs mergekit 0.1.5, sentence-transformers 6.2 and LM_Cocktail 0.0.4; without --rivals
only selfpos and `cp` run. By default all are held to one core, so that CPU seconds compare; --cores 0 takes
all.

A row (shape, method, number of vectors) is measured in one go, all contenders after one another, and replaces
the row of that name in benchmarks/results/merging.json and .md; rows of another machine or other versions are
never mixed with it. Every output is checked before its time counts: at once, or with --defer in a later start
with --check, so that a quiet machine need not be kept waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merging_contenders import CONTENDERS, METHODS, STARTUP, Job, command, write_command
from merging_inputs import SHAPES, make_inputs
from merging_report import add_row, lost_on_reload, read_results, write_report, wrong_tensors

from selfpos.version import __version__

RESULTS = Path(__file__).parent / "results"


def measure(words: list[str], cores: int) -> dict[str, Any]:
    """Run a command; wall and CPU seconds (with those of its children), peak anonymous memory in MB, and what
    it said when it failed."""
    limit = (lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])) if cores else None
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=said, stderr=said, preexec_fn=limit, env=environment)
        peak = [0]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.005):
                try:
                    found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
                except OSError:
                    return
                peak[0] = max(peak[0], int(found[1]) if found else 0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        watcher.join()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    last = lines[-1][:300] if lines else ""
    failed = f"exit {process.returncode}: {last}" if process.returncode else None
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "anonymous_mb": peak[0] / 1024,
        "failed": failed,
        "said": last,
    }


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median CPU time (the faster of two), and of how many it is."""
    return sorted(runs, key=lambda run: run["cpu"])[(len(runs) - 1) // 2] | {"runs": len(runs)}


def enough(runs: list[dict[str, Any]], options: argparse.Namespace) -> bool:
    """Whether more runs would not pay: all repeats are done, or they have taken more CPU time than is to be
    spent on one contender."""
    return len(runs) >= options.repeats or sum(run["cpu"] for run in runs) > options.patience


def run_job(job: Job, contender: str, place: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """One contender's median run for a job; its last output stays in `place`, to be checked."""
    python = sys.executable if contender == "selfpos" else options.rivals
    out = output(job, contender, place)
    runs: list[dict[str, Any]] = []
    while not enough(runs, options):
        shutil.rmtree(out, ignore_errors=True)
        words = command(contender, job, out, python)
        if words is None:
            return None
        runs.append(measure(words, options.cores))
        if runs[-1]["failed"]:
            shutil.rmtree(out, ignore_errors=True)
            runs[-1]["failed"] = runs[-1]["failed"].replace(str(place), "…")
            del runs[-1]["said"]
            return runs[-1]
    result = median(runs) | {
        "output_mb": sum(file.stat().st_size for file in out.rglob("*.safetensors")) / 1e6
    }
    del result["said"]  # places of this machine
    return result


def output(job: Job, contender: str, place: Path) -> Path:
    """Where a contender writes."""
    return place / f"out {job.name} {contender}".replace(" ", "-")


def check_rows(rows: list[dict[str, Any]], place: Path) -> Iterator[dict[str, Any]]:
    """Add to each contender's result what its output got wrong or lost, row by row; remove the outputs."""
    checked = []
    for row in rows:
        job = Job(row["shape"], row["method"], *make_inputs(place, row["shape"], row["count"]))
        outputs = {name: out for name in CONTENDERS if (out := output(job, name, place)).exists()}
        if missing := [
            name
            for name, result in row["results"].items()
            if result and "output_mb" in result and name not in outputs
        ]:
            raise SystemExit(
                f"{job.name}: the output of {missing[0]} is not below {place}; measure the row again"
            )
        checked.append((job, outputs))
    for row, (job, outputs), lost in zip(rows, checked, lost_on_reload(checked), strict=True):
        for name, wrong in wrong_tensors(job, outputs).items():
            row["results"][name] |= {"wrong": wrong, "lost": lost[name]}
        row["checked"] = True
        print(
            job.name,
            {name: [*row["results"][name]["wrong"][:1], *lost[name]] for name in outputs},
            flush=True,
        )
        yield row
        for out in outputs.values():
            shutil.rmtree(out)


def copy_floor(job: Job, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Moving the bytes of a merge without merging: `cp` of one model's weights while the others are read; and
    the same flushed to disk."""
    files = sorted(map(str, job.base.glob("*.safetensors")))
    others = sorted(str(file) for source in job.sources for file in source.glob("*.safetensors"))
    target = place / "copy"
    move = f"cat {' '.join(others)} > /dev/null; cp {' '.join(files)} {target}"
    found = {}
    for name, script in {"cp": move, "cp_flushed": f"{move}; sync {target}/*"}.items():
        runs = []
        for _ in range(options.repeats):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            runs.append(measure(["sh", "-c", script], options.cores))
        found[name] = median(runs)
    shutil.rmtree(target, ignore_errors=True)
    return found


def write_alone(job: Job, place: Path, options: argparse.Namespace) -> float:
    """CPU seconds in which selfpos merges and writes, without start-up, checks and hashes."""
    out = place / "out-write"
    found = []
    for _ in range(options.repeats):
        shutil.rmtree(out, ignore_errors=True)
        found.append(float(measure(write_command(job, out), options.cores)["said"]))
    shutil.rmtree(out, ignore_errors=True)
    return statistics.median(found)


def warm(job: Job) -> None:
    """Read the inputs once, so that all contenders find them in the page cache."""
    for folder in [job.base, *job.sources]:
        for file in folder.rglob("*.safetensors"):
            with file.open("rb", buffering=0) as handle:
                while handle.read(1 << 24):
                    pass


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """The machine and the versions: what rows of one file have in common."""
    code = "import importlib.metadata as m, json, sys\n"
    code += "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    names = ["mergekit", "sentence-transformers", "LM_Cocktail", "torch", "transformers"]
    rivals = {}
    for name in names if options.rivals else []:
        done = subprocess.run([options.rivals, "-c", code, name], capture_output=True, text=True)
        rivals |= json.loads(done.stdout) if done.returncode == 0 else {}
    processor = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": processor[1] if processor else platform.processor(),
        "cores_used": options.cores or len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {"selfpos": __version__, "numpy": version("numpy"), **rivals},
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rivals", help="the Python in whose environment the rivals are installed")
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=SHAPES,
        default=["minilm", "bert-base", "xlmr-110m", "xlmr-base", "qwen3-0.6b"],
    )
    parser.add_argument("--counts", nargs="+", type=int, default=[3])
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=["linear", "task-arithmetic", "slerp", "ties", "ties-global"],
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--patience", type=float, default=60, help="CPU seconds after which a contender is not repeated"
    )
    parser.add_argument("--cores", type=int, default=1, help="cores that each process may use; 0 for all")
    parser.add_argument(
        "--work", type=Path, help="folder for inputs, kept for the next run [default: a temporary one]"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder for merging.json and merging.md"
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="NAME=REASON",
        help="contenders not to run, and what the table says",
    )
    parser.add_argument(
        "--defer", action="store_true", help="keep the outputs below --work for a later start with --check"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="measure nothing: check the outputs of these rows that --defer has kept",
    )
    options = parser.parse_args()
    options.without = dict(entry.split("=", 1) for entry in options.without)
    if (options.defer or options.check) and not options.work:
        parser.error("--defer and --check need --work")
    return options


def startup(contender: str, options: argparse.Namespace) -> float:
    """CPU seconds of importing what a contender needs."""
    python = sys.executable if contender == "selfpos" else options.rivals
    return statistics.median(
        measure([python, "-c", STARTUP[contender]], options.cores)["cpu"] for _ in range(3)
    )


def measure_row(job: Job, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders on one job, after one another."""
    warm(job)
    results: dict[str, Any] = copy_floor(job, place, options)
    for contender in options.contenders if options.rivals else ["selfpos"]:
        if contender in options.without:
            results[contender] = {"failed": None, "not_run": options.without[contender]}
            continue
        results[contender] = run_job(job, contender, place, options)
        if contender == "selfpos" and job.method == "linear":
            results[contender]["write_cpu"] = write_alone(job, place, options)
        print(job.name, contender, results[contender] or "has no such method", flush=True)
    row = {
        "shape": job.shape,
        "method": job.method,
        "count": len(job.sources),
        "date": time.strftime("%Y-%m-%d"),
        "checked": False,
    }
    return row | {"results": results}


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="merging-") as temporary:
        place = options.work or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        known = facts(options)

        def keep(row: dict[str, Any]) -> None:
            results = read_results(
                options.results, known
            )  # read again each time: rows may be checked while others are measured
            for contender in options.contenders if options.rivals else ["selfpos"]:
                if contender not in results["startup_cpu"]:
                    results["startup_cpu"][contender] = startup(contender, options)
            add_row(results, row)
            write_report(options.results, results)

        if options.check:
            asked = {"shape": options.shapes, "method": options.methods, "count": options.counts}
            rows = [
                row
                for row in read_results(options.results, known)["jobs"]
                if all(row[name] in values for name, values in asked.items())
            ]
            waiting = [row for row in rows if not row["checked"]]
            for row in check_rows(waiting, place):
                keep(row)
            return
        for shape in options.shapes:
            for count in options.counts:
                for method in options.methods:
                    row = measure_row(Job(shape, method, *make_inputs(place, shape, count)), place, options)
                    keep(row)
                    for checked in [] if options.defer else check_rows([row], place):
                        keep(checked)


if __name__ == "__main__":
    main()
