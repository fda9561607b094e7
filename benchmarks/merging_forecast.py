"""How right the time is that `selfpos merge --dry-run` quotes: forecast and merge, of several sizes.

    python benchmarks/merging_forecast.py --folder PLACE --methods linear ties slerp
    python benchmarks/merging_forecast.py --folder PLACE --methods tsv-m --shapes minilm xlmr-110m --add

Each merge of three vectors is planned, forecast and carried out in one process, its inputs in the page cache;
seconds by the clock, from the plan to the finished folder. Results: results/merging_forecast.json and .md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from merging import facts, warm
from merging_contenders import Job
from merging_inputs import SHAPES, make_inputs

from selfpos.console import markdown_table
from selfpos.merging import execute, plan
from selfpos.merging.forecast import seconds_of

RESULTS = Path(__file__).parent / "results"


def measure(shape: str, method: str, place: Path) -> dict[str, Any]:
    """Seconds forecast, seconds for that, and seconds taken, of one merge."""
    base, sources = make_inputs(place, shape, 3)
    warm(Job(shape, method, base, sources))
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    planned = plan(base, sources, method, out)
    began = time.perf_counter()
    forecast = seconds_of(planned)
    tried = time.perf_counter()
    execute(planned, show=False)
    taken = time.perf_counter() - tried
    shutil.rmtree(out)
    return {"shape": shape, "method": method, "forecast": forecast, "trial": tried - began, "taken": taken}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["minilm", "xlmr-110m", "xlmr-base"])
    parser.add_argument("--methods", nargs="+", default=["linear", "ties", "slerp", "tsv-m"])
    parser.add_argument("--add", action="store_true", help="add to the results that there are")
    options = parser.parse_args()
    results = RESULTS / "merging_forecast.json"
    rows = json.loads(results.read_text())["rows"] if options.add else []
    for shape in options.shapes:
        for method in options.methods:
            rows.append(measure(shape, method, options.folder))
            print(rows[-1], flush=True)
    machine = facts(SimpleNamespace(rivals=None, cores=0))
    results.write_text(json.dumps(machine | {"rows": rows}, indent=1) + "\n")
    head = ["model", "method", "forecast, s", "taken, s", "forecast over taken", "the forecast itself, s"]
    cells = [
        [row["shape"], row["method"], f"{row['forecast']:.2f}", f"{row['taken']:.2f}",
         f"{row['forecast'] / row['taken']:.2f}", f"{row['trial']:.2f}"]
        for row in rows
    ]  # fmt: skip
    text = (
        f"# How right is the time that `merge --dry-run` quotes?\n\n{machine['processor']}, all cores, "
        f"Python {machine['python']}; three vectors, inputs in the page cache, one "
        "run; the two command lines at the head of `benchmarks/merging_forecast.py`.\n\n"
        f"{markdown_table(head, cells)}\n"
    )
    (RESULTS / "merging_forecast.md").write_text(text)


if __name__ == "__main__":
    main()
