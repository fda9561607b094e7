"""What merges cost beside a linear one, and beside copying the same bytes.

    python benchmarks/merging_costs.py --folder PLACE --shapes minilm xlmr-110m qwen3-0.6b

Each case is a process of its own on one core, its inputs in the page cache; CPU seconds, medians of three.
`merge and write` is the part after start-up, checks and hashes. `cp` copies one model and reads the others.
PLACE needs disk for nine models of a shape and eight outputs. Results: results/merging_costs.json and .md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from merging import copy_floor, facts, measure, warm, write_alone
from merging_contenders import Job, command
from merging_inputs import SHAPES, make_inputs

from selfpos.console import markdown_table

RESULTS = Path(__file__).parent / "results"
SWEPT = 8


def cost(words: list[str], out: Path, options: argparse.Namespace) -> float:
    """CPU seconds of a process that writes `out`, which is removed."""
    seconds = []
    for _ in range(options.repeats):
        shutil.rmtree(out, ignore_errors=True)
        run = measure(words, options.cores)
        if run["failed"]:
            raise SystemExit(run["failed"])
        seconds.append(run["cpu"])
    shutil.rmtree(out, ignore_errors=True)
    return statistics.median(seconds)


def sweep_command(job: Job, out: Path) -> list[str]:
    """Eight linear merges of the job's models in one pass."""
    merges = {f"scale-{index}": {"method": "linear", "weights": index / 10} for index in range(1, SWEPT + 1)}
    file = out.with_suffix(".yaml")
    file.write_text(json.dumps({"merges": merges}))  # JSON is YAML
    words = ["-m", "selfpos", "merge", "--base", str(job.base), "--vectors", *map(str, job.sources)]
    return [sys.executable, *words, "--sweep", str(file), "--out", str(out)]


def measure_shape(shape: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each case of a model's shape."""
    place, rows, linear = options.folder, [], 0.0
    for method, count in (("linear", 3), ("linear", 8), ("ties", 3), ("sweep", 3)):
        if count > options.most:
            continue
        base, sources = make_inputs(place, shape, count)
        job = Job(shape, method, base, sources)
        warm(job)
        words = (
            sweep_command(job, place / "out")
            if method == "sweep"
            else command("selfpos", job, place / "out", "")
        )
        assert words is not None
        row: dict[str, Any] = {"shape": shape, "method": method, "vectors": count}
        row["cpu"] = cost(words, place / "out", options)
        linear = linear or row["cpu"]
        row["over_linear"] = row["cpu"] / linear
        if method == "linear":
            row["write"] = write_alone(job, place, options)
            row["cp"] = copy_floor(job, place, options)["cp"]["cpu"]
            row["over_cp"] = row["write"] / row["cp"]
        print(row, flush=True)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    head = ["model", "merge", "vectors", "CPU s", "over linear ×3", "merge and write, s", "cp, s", "over cp"]
    names = {"sweep": f"{SWEPT} linear merges, `--sweep`"}
    cells = [
        [
            row["shape"],
            names.get(row["method"], row["method"]),
            str(row["vectors"]),
            f"{row['cpu']:.2f}",
            f"{row['over_linear']:.1f}×",
            *(
                [f"{row['write']:.2f}", f"{row['cp']:.2f}", f"{row['over_cp']:.1f}×"]
                if "cp" in row
                else ["", "", ""]
            ),
        ]
        for row in rows
    ]
    return markdown_table(head, cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["minilm", "xlmr-110m", "qwen3-0.6b"])
    parser.add_argument("--most", type=int, default=8, help="vectors at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=1)
    options = parser.parse_args()
    options.rivals = None
    rows = [row for shape in options.shapes for row in measure_shape(shape, options)]
    machine = facts(options)
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    text = (
        f"# What merges cost\n\n{machine['processor']}, one core, Python {machine['python']}, {versions}. "
        "CPU seconds, inputs in the page cache, medians; `python benchmarks/merging_costs.py`.\n\n"
        f"{table(rows)}\n"
    )
    (RESULTS / "merging_costs.json").write_text(json.dumps(machine | {"rows": rows}, indent=1) + "\n")
    (RESULTS / "merging_costs.md").write_text(text)


if __name__ == "__main__":
    main()
