"""A whole analysis on tiny models: of a recipe, of a run, with arms; its files, its section of the report,
its refusals.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from selfpos.analysis.findings import Findings, gradient_figure
from selfpos.analysis.study import analyse, measure_point
from selfpos.errors import SelfposError
from selfpos.positioning.live import LiveModel
from selfpos.positioning.objective import TaskProbe
from selfpos.recipe import AnalysisSettings
from selfpos.report import report_of_run
from selfpos.storage.model_folder import open_model
from selfpos.storage.run_folder import RunFolder
from tests.helpers.command import CommandLine, said
from tests.helpers.stand_ins import graded, pairs

SETTINGS = AnalysisSettings(batches=3, batch_size=4)


def recipe_of(folder: Path, base: Path) -> dict:
    words = ["one", "two", "three", "four", "five"]
    first, second = folder / "retrieval.jsonl", folder / "sts.jsonl"
    first.write_text(
        "".join(
            json.dumps({"anchor": f"ask {words[n % 5]} {n}", "positive": f"tell {n} {words[n % 5]}"}) + "\n"
            for n in range(60)
        )
    )
    second.write_text(
        "".join(
            json.dumps({"sentence1": f"this {n}", "sentence2": f"that {words[n % 5]} {n}", "score": n % 6})
            + "\n"
            for n in range(60)
        )
    )
    return {
        "name": "tiny",
        "base": str(base),
        "tasks": {
            "retrieval": {"type": "retrieval", "data": str(first)},
            "sts": {"type": "sts", "data": str(second)},
        },
        "training": {"batch_size": 4, "max_length": 16},
        "probe": {"per_task": 12},
        "merges": {"average": {"method": "average"}},
    }


@pytest.fixture
def recipe(tmp_path: Path, tiny_base: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(recipe_of(tmp_path, tiny_base)), encoding="utf-8")
    return file


@pytest.fixture
def run(recipe: Path, tiny_specialists: list[Path], tmp_path: Path) -> RunFolder:
    """The folder of a run as it would be left, but for what an analysis does not look at."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    shutil.copy(recipe, folder.recipe)
    for source, place in zip(
        tiny_specialists,
        (folder.specialist("retrieval"), folder.specialist("sts"), folder.joint),
        strict=True,
    ):
        shutil.copytree(source, place)
    scores = {
        "base": {"T": 0.1},
        "retrieval": {"T": 0.4},
        "sts": {"T": 0.2},
        "joint": {"T": 0.3},
        "average": {"T": 0.3},
    }
    folder.table.write_text(
        json.dumps({"tasks": {"T": {"type": "STS", "metric": "m"}}, "scores": scores}), encoding="utf-8"
    )
    return folder


def test_measured_gradients_are_those_of_autograd(tiny_base: Path) -> None:
    tasks = {probe.name: probe for probe in (pairs(), graded())}
    for probe in tasks.values():
        probe.type.prepare = lambda data, seed: data
    live = LiveModel(open_model(tiny_base), [])
    found = measure_point(
        live,
        {name: (probe.type, probe.dataset) for name, probe in tasks.items()},
        SETTINGS,
        temperature=0.1,
        seed=5,
    )

    generator = torch.Generator().manual_seed(5)
    rows, shares = [], 0.0
    for name, probe in tasks.items():
        task = TaskProbe(name, probe.type, probe.dataset, 0.1)
        for _ in range(3):
            batch = task.draw(4, generator)
            value = task.loss_of(batch, [live.embed(column) for column in batch.columns])
            gradients = torch.autograd.grad(value, list(live.parameters.values()), allow_unused=True)
            rows.append(
                torch.cat(
                    [gradient.flatten().double() for gradient in gradients if gradient is not None]
                ).numpy()
            )
    means = np.mean(rows[:3], 0), np.mean(rows[3:], 0)
    (pair,) = found["pairs"]
    assert pair["tasks"] == ("pairs", "graded")
    assert pair["raw_cosine"] == pytest.approx(
        means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1]), abs=1e-4
    )
    shares = np.mean([one @ other < 0 for one in rows[:3] for other in rows[3:]])
    assert pair["share"] == pytest.approx(shares)
    assert {"embeddings", "encoder.layer.0", "encoder.layer.1"} <= set(found["layers"])


def test_a_run_is_measured_at_every_model_and_told_in_its_report(run: RunFolder) -> None:
    folder, found = analyse(run.path, SETTINGS)
    assert folder == run.path / "analysis"
    assert list(found.gradients) == ["base", "retrieval", "sts", "joint"]
    assert found.gradients["base"] != found.gradients["joint"]
    assert not found.missing
    written = {file.name for file in folder.iterdir() if file.is_file()}
    assert {"analysis.json", "analysis.md", "section.html", "gradients.png"} <= written
    text = (folder / "analysis.md").read_text(encoding="utf-8")
    assert "How long are the vectors" in text
    assert '<h2 id="analysis">' in report_of_run(run).read_text(encoding="utf-8")

    before = (folder / "gradients/joint.json").stat().st_mtime_ns
    assert analyse(run.path, SETTINGS)[1] == found
    assert (folder / "gradients/joint.json").stat().st_mtime_ns == before
    assert analyse(run.path, SETTINGS.model_copy(update={"batches": 2}))[1] != found


def test_every_joint_model_is_measured_and_points_can_be_chosen(run: RunFolder, recipe: Path) -> None:
    made = yaml.safe_load(run.recipe.read_text()) | {
        "joint": {"joint": {}, "equal": {"mixture": "round-robin"}}
    }
    run.recipe.write_text(yaml.safe_dump(made))
    shutil.copytree(run.specialist("sts"), run.rival("equal"))
    _, found = analyse(run.path, SETTINGS.model_copy(update={"points": ["base", "equal"]}))
    assert list(found.gradients) == ["base", "equal"] and not found.missing
    with pytest.raises(SelfposError, match=r"no point named 'eqal'.*equal"):
        analyse(run.path, SETTINGS.model_copy(update={"points": ["eqal"]}))


def test_a_pair_lost_in_noise_or_without_interval_is_drawn() -> None:
    pair = {"cosine": 0.1, "low": None, "high": None, "raw_cosine": 0.1, "share": 0.5, "conflicting": False}
    couples = itertools.combinations(["a", "b", "c"], 2)
    pairs = [pair | {"tasks": couple, "cosine": None if "c" in couple else 0.1} for couple in couples]
    findings = Findings("many", "probe", {"base": {"pairs": pairs, "tasks": {}, "layers": {}}})
    axes = gradient_figure(findings).axes[0]
    assert [text.get_text() for text in axes.texts] == ["lost in noise"] * 2
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "b – c at base",
        "a – c at base",
        "a – b at base",
    ]


@pytest.mark.slow
def test_less_memory_changes_nothing_but_the_passes(run: RunFolder, tmp_path: Path) -> None:
    _, whole = analyse(run.path, SETTINGS)
    _, parts = analyse(run.path, SETTINGS.model_copy(update={"memory": 1e-4}), out=tmp_path / "again")
    (one,), (other,) = whole.gradients["base"]["pairs"], parts.gradients["base"]["pairs"]
    assert one["raw_cosine"] == pytest.approx(other["raw_cosine"], abs=1e-6)


@pytest.mark.slow
def test_arms_of_a_recipe_tell_records_from_steps(recipe: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(
        update={"arms": True, "arm_steps": 8, "arm_shares": [0.5, 1.0], "records": "training"}
    )
    folder, found = analyse(recipe, settings, out=tmp_path / "out")
    assert list(found.gradients) == ["base"]
    kinds = [(arm.task, arm.kind, arm.records, arm.steps) for arm in found.arms]
    assert [kind[1:] for kind in kinds if kind[0] == "sts"] == [
        ("equal epochs", 16, 4),
        ("equal steps", 16, 8),
        ("longest", 32, 8),
    ]
    assert all(arm.norm > 0 and (arm.angle > 0) == (arm.kind != "longest") for arm in found.arms)
    assert found.law is not None and found.law.by_steps > found.law.by_records
    stamps = {file: file.stat().st_mtime_ns for file in (folder / "arms").rglob("*.safetensors")}
    assert len(stamps) >= 6
    analyse(recipe, settings, out=tmp_path / "out")
    assert stamps == {file: file.stat().st_mtime_ns for file in (folder / "arms").rglob("*.safetensors")}


def test_an_unfinished_run_is_measured_as_far_as_it_got(run: RunFolder) -> None:
    shutil.rmtree(run.joint)
    _, found = analyse(run.path, SETTINGS)
    assert found.missing == ["model joint"]
    assert [vector["name"] for vector in found.vectors] == ["retrieval", "sts"]


def test_what_is_neither_run_nor_recipe_is_refused(selfpos: CommandLine, tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match="is no run: it has no recipe"):
        analyse(tmp_path)
    assert not list(tmp_path.iterdir())
    assert "there is no run folder and no recipe" in said(selfpos("analyse", tmp_path / "none"))
    assert "--batches" in said(selfpos("analyse", tmp_path, "--batches", "1"))


def test_batches_that_cannot_be_drawn_name_the_task(recipe: Path, tmp_path: Path) -> None:
    made = yaml.safe_load(recipe.read_text())
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps({"text": f"text {n}", "label": n % 20}) + "\n" for n in range(60)))
    made["tasks"]["labels"] = {"type": "classification", "data": str(labels)}
    made["probe"]["per_task"] = 3
    recipe.write_text(yaml.safe_dump(made))
    with pytest.raises(SelfposError, match=r"classification needs at least 2 labels|a batch needs 2 labels"):
        analyse(recipe, SETTINGS, out=tmp_path / "out")


def test_the_verb_prints_the_tables(selfpos: CommandLine, run: RunFolder) -> None:
    done = selfpos("analyse", run.path, "--batches", "3", "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    assert "Do the tasks' gradients conflict?" in done.stdout
    assert f"report: {run.report}" in done.stdout
    assert run.report.is_file()
