"""All pipelines in one run on a tiny model, killed again and again, beside the same run left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from selfpos.pipeline.run import run_recipe
from selfpos.recipe import Recipe
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest
from selfpos.storage.run_folder import RunFolder
from tests.helpers.pipelines import MODELS, every_pipeline

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def whole(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of every pipeline that nothing stopped."""
    folder = tmp_path_factory.mktemp("pipelines")
    return run_recipe(Recipe.model_validate(every_pipeline(tiny_base, folder)), folder / "whole")


@pytest.fixture(scope="module")
def killed(
    tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, RunFolder, list[list[str]]]:
    """A run left alone, the same run killed six times, and the jobs that were finished at each kill."""
    folder = tmp_path_factory.mktemp("pipelines")
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(every_pipeline(tiny_base, folder), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "tests.helpers.killing", str(file), str(folder), "1", "6"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return RunFolder(folder / "whole"), RunFolder(folder / "killed"), json.loads(done.stdout)


@pytest.mark.nightly
def test_kill_9_at_any_moment_ends_with_the_same_bytes(
    killed: tuple[RunFolder, RunFolder, list[list[str]]],
) -> None:
    whole, other, finished = killed
    assert len({len(jobs) for jobs in finished}) >= 4, "the kills fell on one place"
    weights = sorted(file.relative_to(whole.path) for file in whole.path.rglob("*.safetensors"))
    assert len(weights) == 2 * (len(MODELS) - 1)  # transformer and dense layer of each but the base
    assert all((other.path / file).read_bytes() == (whole.path / file).read_bytes() for file in weights)
    first, second = (json.loads(run.table.read_text(encoding="utf-8")) for run in (whole, other))
    assert first == second
    tokens = [json.loads(run.pipelines.read_text(encoding="utf-8"))["pipelines"] for run in (whole, other)]
    assert [took["tokens"] for took in tokens[0].values()] == [took["tokens"] for took in tokens[1].values()]
    assert not [
        file for file in other.path.rglob("*") if ".tmp" in file.name or file.name.endswith(".checkpoints")
    ]


@pytest.mark.nightly
def test_a_killed_run_repeats_no_finished_job(killed: tuple[RunFolder, RunFolder, list[list[str]]]) -> None:
    _, other, finished = killed
    log = other.log.read_text(encoding="utf-8")
    for mark in finished[-1]:
        assert log.count(f"{mark.replace('.', '/', 1)}: finished in") == 1


@pytest.mark.slow
def test_every_pipeline_is_merged_scored_and_accounted_for(whole: RunFolder) -> None:
    table = json.loads(whole.table.read_text(encoding="utf-8"))
    assert list(table["scores"]) == MODELS
    expected = {
        "separate": (2, 12),
        "plain": (1, 12),
        "surgery": (1, 6),
        "max-3-1": (1, 12),
        "iterative": (2, 12),
        "bagging": (2, 12),
    }
    told = json.loads(whole.pipelines.read_text(encoding="utf-8"))
    assert told["equal"] == "draws"
    pipelines = told["pipelines"]
    assert {name: (took["trainings"], took["steps"]) for name, took in pipelines.items()} == expected
    assert {took["draws"] for took in pipelines.values()} == {96}
    for took in pipelines.values():
        assert took["tokens"] > 96 and took["seconds"] > 0 and took["peak_memory_bytes"] > 1e7
    stage = read_manifest(whole.stage("iterative-2-retrieval"))
    assert stage is not None and stage["start"] == {
        "name": "pairs",
        "hash": content_hash(whole.specialist("pairs")),
    }
    plain, on_probe = (read_manifest(whole.rival(name)) for name in ("plain", "surgery"))
    assert plain is not None and on_probe is not None
    assert all(
        on_probe["tasks"][task]["records"] == found["records"] + 12 for task, found in plain["tasks"].items()
    )
    half, all_of_it = (read_manifest(whole.bag(name)) for name in ("bagging-1", "bagging-2"))
    assert half is not None and all_of_it is not None
    for task, found in half["tasks"].items():
        assert found["records"] == round(all_of_it["tasks"][task]["records"] / 2)
    page = whole.report.read_text(encoding="utf-8")
    assert "What each pipeline took to train" in page and "The number of draws was held equal." in page


def test_the_recipe_of_every_pipeline_is_valid(tiny_base: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(every_pipeline(tiny_base, tmp_path))
    # The first stage, on pairs for as many steps as the specialist, is that specialist.
    assert recipe.trained == [
        "retrieval",
        "pairs",
        "plain",
        "surgery",
        "max-3-1",
        "iterative-2-retrieval",
        "bagging-1",
        "bagging-2",
    ]
