"""The results of benchmarks/merging.py as JSON and as a Markdown table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from merging_contenders import METHODS
from merging_inputs import SHAPES

RIVALS = ("mergekit", "sentence-transformers")
TITLES = {
    "selfpos": "selfpos",
    "mergekit": "mergekit",
    "sentence-transformers": "sentence-transformers",
    "LM_Cocktail": "LM_Cocktail",
}


def read_results(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What merging.json in `folder` holds, to be added to; nothing yet where there is none. Rows of other facts (machine, versions) end the program."""
    file = folder / "merging.json"
    if not file.is_file():
        return {"facts": facts, "startup_cpu": {}, "jobs": []}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if results["facts"] != facts:
        raise SystemExit(
            f"{file} holds rows of {results['facts']}, not of {facts}; name another folder with --results, or remove it"
        )
    return results


def add_row(results: dict[str, Any], row: dict[str, Any]) -> None:
    """Put a row to its place: by size of the model, method, number of vectors; an earlier row of the same three goes."""
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
    """How many times less selfpos needs than the better of mergekit and sentence-transformers; and the CPU time of its merging and writing
    alone over that of `cp`, its whole wall time over that of `cp` flushed to disk.
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
        f"{', '.join(dates)}; {facts['processor']}, {facts['cores_used']} core(s), Python {facts['python']}; {versions}.",
        "Each contender in its own process on the same inputs in the page cache, all contenders of a row after one another; CPU seconds from start",
        "to end of the process / peak anonymous memory in MB. Medians of three runs; * one run, ** the faster of two, where a run takes long.",
        "Outputs were checked against float64, and loaded again, before their times counted.",
        "`cp` copies one model's weights and reads the others; `over cp` is the CPU time in which selfpos merges and writes, without",
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
