"""The results of benchmarks/merging.py as JSON and as a Markdown table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RIVALS = ("mergekit", "sentence-transformers")
TITLES = {"selfpos": "selfpos", "mergekit": "mergekit", "sentence-transformers": "sentence-transformers", "LM_Cocktail": "LM_Cocktail"}


def write_report(folder: Path, results: dict[str, Any]) -> None:
    """Write merging.json and merging.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for job in results["jobs"]:
        job["ratios"] = ratios(job["results"])
    (folder / "merging.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "merging.md").write_text(markdown(results), encoding="utf-8")


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """How many times less selfpos needs than the better of mergekit and sentence-transformers; and the CPU time of its merging and writing
    alone over that of `cp`, its whole wall time over that of `cp` flushed to disk.
    """
    own = results.get("selfpos")
    if not own or own["failed"]:
        return {}
    found = {"cp_flushed_wall": own["wall"] / results["cp_flushed"]["wall"]}
    if "write_cpu" in own:
        found["cp_cpu"] = own["write_cpu"] / max(results["cp"]["cpu"], 0.01)
    valid = [results[name] for name in RIVALS if results.get(name) and not results[name]["failed"]]
    if valid:
        found["cpu"] = min(rival["cpu"] for rival in valid) / own["cpu"]
        found["memory"] = min(rival["anonymous_mb"] for rival in valid) / own["anonymous_mb"]
    return found


def markdown(results: dict[str, Any]) -> str:
    """Tables of CPU seconds / peak anonymous memory, with the machine above and the remarks below."""
    facts = results["facts"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    contenders = [name for name in TITLES if name in results["startup_cpu"]]
    lines = [
        "# Merging, side by side",
        "",
        f"{facts['date']}, {facts['processor']}, {facts['cores_used']} core(s), Python {facts['python']}; {versions}.",
        "Each contender in its own process on the same inputs in the page cache; CPU seconds from start to end of the process / peak anonymous",
        "memory in MB; the median of "
        + str(facts["repeats"])
        + " runs, or of fewer where one takes long. Outputs were checked against float64 before their times counted.",
        "`cp` copies one model's weights and reads the others; `over cp` is the CPU time in which selfpos merges and writes, without",
        "start-up, checks and hashes, over that.",
        "",
        "| model | method | vectors | " + " | ".join(contenders) + " | cp | over cp | less CPU | less memory |",
        "|---" * (7 + len(contenders)) + "|",
    ]
    remarks: dict[str, list[str]] = {}
    for job in results["jobs"]:
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
        lines.append("| " + " | ".join([*start, *cells, f"{job['results']['cp']['cpu']:.2f} s", over, *less]) + " |")
    lines += [
        "",
        "Start-up alone (import), CPU seconds: " + ", ".join(f"{name} {results['startup_cpu'][name]:.2f}" for name in contenders) + ".",
    ]
    lines += ["", *[f"[{number}] {remark} ({', '.join(where)})" for number, (remark, where) in enumerate(remarks.items(), start=1)]]
    return "\n".join(lines).rstrip() + "\n"


def _cell(result: dict[str, Any] | None) -> tuple[str, str]:
    """A cell, and a remark for below the table."""
    if result is None:
        return "–", ""
    if result["failed"]:
        return "fails", result["failed"]
    remarks = [*result.get("wrong", [])[:1], *result.get("lost", [])]
    return f"{result['cpu']:.2f} s / {result['anonymous_mb']:.0f}", "; ".join(remarks)
