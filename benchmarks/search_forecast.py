"""How right the time is that `selfpos merge --method self-positioning --dry-run` quotes.

    python benchmarks/search_forecast.py --name NAME --base BASE --vectors MODEL MODEL…

Searches over all vectors, and forecasts the search in the same process. Seconds by the clock; the vectors are
not separated. Rows of other names stay. Results: results/search_forecast.json and .md.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from merging import facts

from selfpos.console import markdown_table

RESULTS = Path(__file__).parent / "results"
HEAD = [
    "models", "vectors", "texts", "points, forecast", "points", "forecast, s", "taken, s",
    "taken over forecast at as many points", "MB forecast", "MB",
]  # fmt: skip


def measure(name: str, base: Path, sources: list[Path], probe: dict[str, Any]) -> dict[str, Any]:
    """One search and its forecast."""
    from selfpos.positioning.forecast import forecast
    from selfpos.positioning.position import position
    from selfpos.recipe import PositioningSettings

    settings = PositioningSettings(separate=False)
    began = time.perf_counter()
    with anonymous_memory() as memory:
        result = position(base, sources, probe, settings, seed=0)
    taken = time.perf_counter() - began
    expected = forecast(base, sources, probe, settings, seed=0)
    return {
        "models": name, "vectors": len(sources), "texts": expected.texts, "taken": taken,
        "points": result.texts / expected.texts, "fewest": expected.fewest, "most": expected.most,
        "seconds_a_point": expected.seconds, "forecast_memory": expected.memory, "memory": memory[0],
    }  # fmt: skip


@contextmanager
def anonymous_memory() -> Iterator[list[int]]:
    """A list of one number: the bytes that the block takes at most beyond those before it."""

    def now() -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])

    before, peak, done = now(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], now() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def cells(row: dict[str, Any]) -> list[str]:
    a_point = row["seconds_a_point"]
    return [
        row["models"], str(row["vectors"]), f"{row['texts']:,}", f"{row['fewest']} to {row['most']}",
        f"{row['points']:.1f}", f"{row['fewest'] * a_point:.0f} to {row['most'] * a_point:.0f}",
        f"{row['taken']:.0f}", f"{row['taken'] / (row['points'] * a_point):.2f}",
        f"{row['forecast_memory'] / 2**20:.0f}", f"{row['memory'] / 2**20:.0f}",
    ]  # fmt: skip


def main() -> None:
    import scipy.optimize  # noqa: F401 - what a search imports counts as the runtime
    import sentence_transformers  # noqa: F401

    from selfpos import probe_of
    from selfpos.data.probe import read_probe
    from selfpos.storage.locate import locate_model

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--probe", type=Path, help="default: what finetune held out for the vectors")
    parser.add_argument("--vectors", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    results = RESULTS / "search_forecast.json"
    rows = json.loads(results.read_text())["rows"] if results.exists() else []
    rows = [row for row in rows if row["models"] != options.name]
    probe = read_probe(options.probe) if options.probe else probe_of(options.vectors)
    rows.append(measure(options.name, locate_model(options.base), options.vectors, probe))
    machine = facts(SimpleNamespace(rivals=None, cores=0))
    results.write_text(json.dumps(machine | {"rows": rows}, indent=1) + "\n")
    text = (
        f"# How right is the time that `merge --method self-positioning --dry-run` quotes?\n\n"
        f"{machine['processor']}, Python {machine['python']}. A forecast has a range, for a search ends when "
        "it has found its point. Anonymous memory beyond the imported libraries.\n\n"
        f"{markdown_table(HEAD, [cells(row) for row in rows])}\n"
    )
    (RESULTS / "search_forecast.md").write_text(text)


if __name__ == "__main__":
    main()
