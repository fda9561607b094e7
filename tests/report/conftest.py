"""A run with everything that a report can show, as files, without a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from selfpos.report import read_run, write_report
from selfpos.storage.run_folder import RunFolder
from tests.helpers.scored_runs import TYPES, WrittenReport, part_of, write_scores

MODELS = {
    "base": 0.40,
    "retrieval": 0.47,
    "pairs": 0.38,
    "joint": 0.46,
    "average": 0.42,
    "ties": 0.44,
    "positioned": 0.45,
    "by-layer": 0.46,
}


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> WrittenReport:
    """The report of a full run, drawn once for all tests that only read it."""
    folder = tmp_path_factory.mktemp("report")
    run, figures = write_full_run(folder / "full"), folder / "figures"
    page = write_report(read_run(run), run.report, figures_to=figures, formats=(".svg",)).read_text(
        encoding="utf-8"
    )
    return WrittenReport(run, page, figures)


@pytest.fixture
def full_run(tmp_path: Path) -> RunFolder:
    return write_full_run(tmp_path / "full")


def write_full_run(path: Path) -> RunFolder:
    """Eight models on three tasks; two searches, one by layer; an analysis and records of jobs."""
    run = RunFolder(path)
    run.path.mkdir()
    recipe = {
        "name": "full",
        "tasks": {
            "retrieval": {"type": "retrieval", "data": "corpus"},
            "pairs": {"type": "pair-classification", "data": "corpus"},
        },
        "merges": {"average": {"method": "average"}, "ties": {"method": "ties"}}
        | {name: {"method": "self-positioning"} for name in ("positioned", "by-layer")},
    }
    run.recipe.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    noise = np.random.default_rng(0)
    for model, quality in MODELS.items():
        parts = {task: part_of(task, quality, noise, 200) for task in TYPES}
        write_scores(run.scores(model), f"full/{model}", model.ljust(40, "0"), parts)
    run.geometry.write_text(
        json.dumps({"names": ["retrieval", "pairs"], "gram": [[4.0, 0.5], [0.5, 1.0]]}), encoding="utf-8"
    )
    layers = {
        f"encoder.layer.{layer}.output.weight": [0.6 + 0.1 * layer, 1.0 - 0.2 * layer] for layer in range(6)
    }
    for name, tensors in (("positioned", None), ("by-layer", {"embeddings.weight": [0.2, -0.3], **layers})):
        run.position(name).parent.mkdir(exist_ok=True)
        found = {
            "names": ["retrieval", "pairs"],
            "coefficients": [0.8, 0.6],
            "step": 15,
            "texts": 4321,
            "tensors": tensors,
        }
        found |= {
            "losses": {"retrieval": 0.9, "pairs": 0.5},
            "intervals": [[0.7, 0.9], [0.4, 0.7]],
            "verdict": "better than every rival",
        }
        run.position(name).write_text(json.dumps(found), encoding="utf-8")
        steps = [
            {
                "step": step,
                "coefficients": [0.8 - 0.6 * 0.8**step, 0.6],
                "losses": {"retrieval": 1 - 0.02 * step, "pairs": 0.5},
            }
            for step in range(20)
        ]
        judged = [
            {"step": step, "validation": {"retrieval": 1.02 - 0.02 * step, "pairs": 0.52}}
            for step in range(0, 20, 5)
        ]
        run.trajectory(name).write_text(
            "\n".join(json.dumps(line) for line in [*steps, *judged]), encoding="utf-8"
        )
    pairs = [{"tasks": ["retrieval", "pairs"], "cosine": -0.21, "low": -0.3, "high": -0.1}]
    run.analysis.parent.mkdir()
    run.analysis.write_text(
        json.dumps({"name": "full", "gradients": {"base": {"pairs": pairs}}}), encoding="utf-8"
    )
    (run.analysis.parent / "section.html").write_text(
        '<h2 id="analysis">Conflict and imbalance</h2>', encoding="utf-8"
    )
    for job, seconds in {
        "specialist/retrieval": 40.0,
        "joint": 80.0,
        "merge/ties": 1.5,
        "scores/base": 9.0,
    }.items():
        run.mark(job).parent.mkdir(exist_ok=True)
        run.mark(job).write_text(json.dumps({"key": "", "seconds": seconds}), encoding="utf-8")
    specialist = {
        "kind": "specialist",
        "seed": 0,
        "samples": 960,
        "peak_memory_bytes": 1.2e9,
        "tasks": {"retrieval": {"records": 900, "hash": "a" * 64}},
    }
    run.specialist("retrieval").mkdir(parents=True)
    (run.specialist("retrieval") / "selfpos.json").write_text(json.dumps(specialist), encoding="utf-8")
    merged = {
        "kind": "merge",
        "merge": {"method": "ties", "seed": 0, "sources": [{"name": "retrieval", "hash": "b" * 64}]},
    }
    run.merged("ties").mkdir(parents=True)
    (run.merged("ties") / "selfpos.json").write_text(json.dumps(merged), encoding="utf-8")
    return run
