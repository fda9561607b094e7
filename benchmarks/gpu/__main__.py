"""The parts of benchmarks/gpu.sh, each in a process of its own: one that fails costs its rows.

    python benchmarks/gpu [--small] [--only train merge]

A row compares two things measured in one part, one after the other, after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from parts import PARTS

from selfpos.console import markdown_table

RESULTS = Path(__file__).parent.parent / "results"
ALL = 450
"""Seconds for all parts, and what one of them may take: at most 60, and `big` 110."""
SECONDS = {"big": 110}


def run_part(name: str, small: bool, seconds: float) -> list[dict[str, Any]]:
    """The rows of a part, which may take so many seconds; one that says why where it failed."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        words = [sys.executable, __file__, "--part", name, "--rows", result.name]
        try:
            done = subprocess.run(
                words + ["--small"] * small,
                timeout=seconds,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            failure = done.stderr.strip().splitlines()[-1] if done.returncode and done.stderr.strip() else ""
            failure = failure or f"exit {done.returncode}" * bool(done.returncode)
        except subprocess.TimeoutExpired:
            failure = "took too long"
        text = Path(result.name).read_text()
    rows = [json.loads(line) for line in text.splitlines()]  # what was measured before a failure counts
    return rows + [{"part": name, "what": f"failed: {failure[:200]}"}] * bool(failure)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    head = ["part", "what", "value", "beside", "value", "ratio"]
    cells = [
        [
            row["part"],
            row["what"],
            f"{row['value']:.4g} {row['unit']}" if "value" in row else "",
            row.get("beside", ""),
            f"{row['other']:.4g} {row['unit']}" if "other" in row else "",
            f"{row['value'] / row['other']:.2f}" if row.get("other") else "",
        ]
        for row in rows
    ]
    return markdown_table(head, cells)


def machine() -> dict[str, Any]:
    """The card, or that there is none, and the versions."""
    import torch
    import transformers

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "device": card,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="tiny models, results are printed only")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        with options.rows.open("a") as file, tempfile.TemporaryDirectory() as folder:
            for row in PARTS[options.part](Path(folder), options.small):
                print(json.dumps({"part": options.part} | row), file=file, flush=True)
        return
    rows: list[dict[str, Any]] = []
    end = time.monotonic() + ALL
    for name in options.only:
        left = max(1.0, end - time.monotonic())
        # where it only has to run, on a slower CPU, a part has all the time that is left
        rows += run_part(name, options.small, left if options.small else min(left, SECONDS.get(name, 60)))
        print(f"{name} is done", file=sys.stderr, flush=True)
    facts = machine()
    text = (
        f"# On a GPU\n\n{', '.join(f'{name} {value}' for name, value in facts.items())}.\n\n{table(rows)}\n"
    )
    print(text)
    if not options.small:
        (RESULTS / "gpu.json").write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")
        (RESULTS / "gpu.md").write_text(text)


if __name__ == "__main__":
    main()
