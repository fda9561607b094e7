"""The results of benchmarks/positioning_study.py, so far, as JSON and as Markdown tables."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.storage.atomic import write_text

LEVEL = 0.9  # of every interval
REFERENCE = "Self Positioning"
# the point of the ablation that the others are compared with
DEFAULT = "model, normalise base, 192 records, extrapolation 0.02"


def write_report(folder: Path, results: Path) -> None:
    """Gather every job's file below `folder` and write positioning_study.json and .md into `results`."""
    jobs = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(
            file for table in ("rivals", "ablation") for file in folder.glob(f"scores/*/seed*/{table}/*.json")
        )
    ]
    results.mkdir(parents=True, exist_ok=True)
    rows = summarise(jobs)
    # whole or not at all: two processes may do a seed each
    write_text(results / "positioning_study.json", json.dumps({"rows": rows, "jobs": jobs}, indent=1) + "\n")
    write_text(results / "positioning_study.md", markdown(rows, any(job["quick"] for job in jobs)))


def summarise(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each stage, setting and model: mean scores over seeds, and by how much its mean differs
    from the reference's, seed by seed.

    The task arithmetic whose scale the probe chose is a row of its own: the position's comparison on the
    validation part names it.
    """
    jobs = [*jobs, *chosen_by_probe(jobs)]
    means = {
        (job["stage"], job["setting"], job["name"], job["seed"]): float(np.mean(list(job["scores"].values())))
        for job in jobs
    }
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for job in jobs:
        found[job["stage"], job["setting"], job["name"]].append(job)
    rows = []
    for (stage, setting, name), group in found.items():
        seeds = [job["seed"] for job in group]
        reference = REFERENCE if stage == "rivals" else DEFAULT
        pairs = [(means[stage, setting, name, s], means.get((stage, setting, reference, s))) for s in seeds]
        differences = [own - other for own, other in pairs if other is not None]
        rows.append(
            {
                "stage": stage,
                "setting": setting,
                "name": name,
                "seeds": len(seeds),
                "scores": {
                    task: float(np.mean([job["scores"][task] for job in group]))
                    for task in group[0]["scores"]
                },
                "code": sorted({job["code"] for job in group if "code" in job}),
                "mean": float(np.mean([own for own, _ in pairs])),
                "difference": interval(differences),
                "seconds": float(np.mean([job["position"]["seconds"] for job in group]))
                if "position" in group[0]
                else None,
            }
        )
    return rows


def chosen_by_probe(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Task arithmetic with the scale that suits the probe's validation part best, as the position of the
    same seed and setting found it."""
    by_place = {(job["stage"], job["setting"], job["seed"], job["name"]): job for job in jobs}
    found = []
    for job in jobs:
        if job["stage"] == "rivals" and job["name"] == REFERENCE:
            name = next(
                rival["name"]
                for rival in job["position"]["rivals"]
                if rival["name"].startswith("task arithmetic")
            )
            if taken := by_place.get(("rivals", job["setting"], job["seed"], name)):
                found.append(taken | {"name": "task arithmetic, scale by the probe"})
    return found


def interval(differences: list[float]) -> dict[str, float | None]:
    """Mean of the seeds' differences with Student's interval; one seed has none."""
    from scipy.stats import t

    if not differences:
        return {"mean": None, "low": None, "high": None}
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return {"mean": mean, "low": None, "high": None}
    reach = float(
        t.ppf((1 + LEVEL) / 2, len(differences) - 1) * np.std(differences, ddof=1) / len(differences) ** 0.5
    )
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def markdown(rows: list[dict[str, Any]], quick: bool) -> str:
    """A table for each stage and setting, best first."""
    lines = [
        "# Self Positioning on real text",
        "",
        "How: benchmarks/positioning_study.py, at its head. "
        "Differences are seed by seed, with 90 % intervals over seeds.",
    ]
    if quick:
        lines += ["", "**A quick try: the numbers mean nothing.**"]
    for stage, setting in dict.fromkeys((row["stage"], row["setting"]) for row in rows):
        chosen = sorted(
            (row for row in rows if (row["stage"], row["setting"]) == (stage, setting)),
            key=lambda row: -row["mean"],
        )
        tasks = list(chosen[0]["scores"])
        against = REFERENCE if stage == "rivals" else "the default"
        lines += [
            "",
            f"## {stage}, {setting}",
            "",
            f"| model | {' | '.join(tasks)} | mean | less {against} | search | seeds |",
        ]
        lines.append("|---" + "|---:" * (len(tasks) + 4) + "|")
        for row in chosen:
            scores = " | ".join(f"{row['scores'][task]:.2f}" for task in tasks)
            seconds = "–" if row["seconds"] is None else f"{row['seconds']:.0f} s"
            lines.append(
                f"| {row['name']} | {scores} | {row['mean']:.2f} | {_shown(row['difference'])} "
                f"| {seconds} | {row['seeds']} |"
            )
    return "\n".join(lines) + "\n"


def _shown(difference: dict[str, float | None]) -> str:
    if difference["mean"] is None:
        return "–"
    reach = "" if difference["low"] is None else f" ({difference['low']:+.2f} to {difference['high']:+.2f})"
    return f"{difference['mean']:+.2f}{reach}"
