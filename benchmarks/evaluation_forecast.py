"""How right the time is that `selfpos eval-mteb --dry-run` quotes.

    python benchmarks/evaluation_forecast.py --data FOLDER --tasks STSBenchmark SciFact

For each task alone, and for all together: the forecast, and the time that scoring all-MiniLM-L6-v2 takes
without a cache. Seconds by the clock, of as many threads as OMP_NUM_THREADS says. Results:
results/evaluation_forecast.json and .md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RESULTS = Path(__file__).parent / "results"
HEAD = ["tasks", "texts", "forecast, s", "taken, s", "taken over forecast", "the forecast took, s"]


def measure(names: list[str], data: Path) -> dict[str, Any]:
    from selfpos.evaluation import evaluate, select_tasks
    from selfpos.evaluation.forecast import forecast
    from selfpos.storage.locate import locate_model

    model = locate_model("all-MiniLM-L6-v2")
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        expected = forecast(model, select_tasks(names, data_dir=data), Path(folder))
        trial = time.perf_counter() - began
        began = time.perf_counter()
        evaluate(model, select_tasks(names, data_dir=data), folder)
        taken = time.perf_counter() - began
    return {
        "tasks": names, "texts": sum(expected.texts.values()), "embedding": expected.embedding,
        "rest": expected.rest, "taken": taken, "trial": trial,
    }  # fmt: skip


def main() -> None:
    from selfpos.console import markdown_table

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--note", required=True, help="what the machine is, and what else ran on it")
    options = parser.parse_args()
    measured = [measure([name], options.data) for name in options.tasks]
    measured.append(measure(options.tasks, options.data))
    rows = []
    for row in measured:
        expected = row["embedding"] + row["rest"]
        name = row["tasks"][0] if len(row["tasks"]) == 1 else "all"
        seconds = (expected, row["taken"], row["taken"] / expected, row["trial"])
        texts = [f"{seconds[0]:.0f}", f"{seconds[1]:.0f}", f"{seconds[2]:.2f}", f"{seconds[3]:.0f}"]
        rows.append([name, f"{row['texts']:,}", *texts])
    content = {"note": options.note, "rows": measured}
    (RESULTS / "evaluation_forecast.json").write_text(json.dumps(content, indent=1) + "\n")
    text = [
        "# Forecast of an evaluation",
        "",
        f"all-MiniLM-L6-v2; {options.note}.",
        "",
        markdown_table(HEAD, rows),
    ]
    (RESULTS / "evaluation_forecast.md").write_text("\n".join([*text, ""]))
    print("\n".join(text))


if __name__ == "__main__":
    main()
