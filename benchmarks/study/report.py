"""The study's table: every arm of every setting, with intervals over seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from settings import SETTINGS

from tests import UNSEEN

LEVEL = 0.9
OURS = "self-positioning"


def student(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The 90 % interval of a mean over seeds, each of which draws its own test records; none of one seed."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return None, None
    half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return mean - float(half), mean + float(half)


def _read(folder: Path, label: str) -> dict[int, dict[str, dict[str, Any]]]:
    """Seed → arm → result."""
    seeds: dict[int, dict[str, dict[str, Any]]] = {}
    for file in sorted((folder / label).glob("seed*/*.json")):
        seed = int(file.parent.name.removeprefix("seed"))
        seeds.setdefault(seed, {})[file.stem] = json.loads(file.read_text(encoding="utf-8"))
    return seeds


def summarise(folder: Path) -> dict[str, Any]:
    """The content of study.json."""
    settings = {}
    for label, setting in SETTINGS.items():
        seeds = _read(folder, label)
        if not seeds:
            continue
        tasks = list(setting.steps)
        arms: dict[str, Any] = {}
        for name in dict.fromkeys(arm for results in seeds.values() for arm in results):
            results = {seed: of_seed[name] for seed, of_seed in seeds.items() if name in of_seed}
            means = {seed: _mean(result, tasks) for seed, result in results.items()}
            low, high = student(list(means.values()))
            arms[name] = {
                "mean": _round(np.mean(list(means.values()))),
                "low": _round(low),
                "high": _round(high),
                "tasks": {task: _over(results, [task]) for task in tasks},
                "unseen": _over(results, UNSEEN) if name != "specialists" else None,
                "seconds": _round(np.mean([result["seconds"] for result in results.values()])),
                "draws": next(iter(results.values()))["draws"],
                "seeds": sorted(results),
            }
            ours = {seed: _mean(seeds[seed][OURS], tasks) for seed in results if OURS in seeds[seed]}
            if name != OURS and ours:
                gains = [ours[seed] - means[seed] for seed in ours]
                arms[name]["behind"] = dict(
                    zip(("mean", "low", "high"), map(_round, (np.mean(gains), *student(gains))), strict=True)
                )
        settings[label] = {"arms": arms, "seeds": sorted(seeds)}
    return {"settings": settings, "verdicts": verdicts(folder)}


def verdicts(folder: Path) -> dict[str, int]:
    """How often "better than X" held on the tests, for X the base and one tuned scale, over all searches."""
    counts = {"claims": 0, "right": 0, "merges": 0}
    for label, setting in SETTINGS.items():
        for arms in _read(folder, label).values():
            if OURS not in arms:
                continue
            counts["merges"] += 1
            ours = _mean(arms[OURS], list(setting.steps))
            for rival in arms[OURS]["position"]["rivals"]:
                arm = "base" if rival["name"] == "base" else "one-scale"
                known = rival["name"] == "base" or rival["name"].startswith("one scale for all")
                if known and arm in arms and rival["low"] > 0:
                    counts["claims"] += 1
                    counts["right"] += ours > _mean(arms[arm], list(setting.steps))
    return counts


def _gain(behind: dict[str, Any] | None) -> str:
    """The difference of an arm to Self Positioning, with its interval where there is one."""
    if behind is None:
        return ""
    text = f"{-behind['mean']:+.2f}"
    return text if behind["low"] is None else f"{text} ({-behind['high']:+.2f} to {-behind['low']:+.2f})"


def _mean(result: dict[str, Any], tasks: Sequence[str]) -> float:
    return float(np.mean([result["scores"][task] for task in tasks]))


def _over(results: dict[int, dict[str, Any]], tasks: Sequence[str]) -> float:
    return _round(np.mean([_mean(result, tasks) for result in results.values()]))


def _round(value: Any) -> float | None:
    return None if value is None else round(float(value), 2)


def write_report(results: Path) -> None:
    """Write study.json and study.md beside the folder of the arms' results."""
    from selfpos.console import markdown_table
    from selfpos.storage.atomic import write_text

    content = summarise(results / "study")
    write_text(results / "study.json", json.dumps(content, indent=1) + "\n")
    lines = ["# The study", "", "Made by `python benchmarks/study`; see `docs/study.md`.", ""]
    claims = content["verdicts"]
    lines += [
        f'"Better than X" was said {claims["claims"]} times of {claims["merges"]} merges, and was right '
        f"{claims['right']} times.",
        "",
    ]
    for label, setting in content["settings"].items():
        arms = setting["arms"]
        tasks = list(SETTINGS[label].steps)
        rows = []
        for name, arm in sorted(arms.items(), key=lambda item: -item[1]["mean"]):
            gain = _gain(arm.get("behind"))
            unseen = f"{arm['unseen']:.2f}" if arm["unseen"] is not None else ""
            scores = [f"{arm['tasks'][task]:.2f}" for task in tasks]
            rows.append([name, *scores, f"{arm['mean']:.2f}", gain, unseen, str(len(arm["seeds"]))])
        heads = ["arm", *tasks, "mean", "less Self Positioning", "unseen", "seeds"]
        lines += [f"## {label}", "", markdown_table(heads, rows), ""]
    write_text(results / "study.md", "\n".join(lines))
