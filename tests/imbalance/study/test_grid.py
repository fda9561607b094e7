"""The whole way: recipe, training, Parquet, resuming, report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from selfpos.errors import OperationError, SelfposError
from selfpos.imbalance.study import grid, results
from selfpos.imbalance.study import unit as unit_module
from selfpos.imbalance.study.data import read_images
from selfpos.imbalance.study.grid import plan
from selfpos.imbalance.study.methods import METHODS
from selfpos.imbalance.study.recipe import load_imbalance_recipe
from selfpos.imbalance.study.report import write_report
from selfpos.imbalance.study.results import read_results
from selfpos.imbalance.study.unit import Imbalance, Unit, draw_sample, run_unit, train_unit
from tests.helpers.companion import RECIPES, run_study, tiny_recipe, write_tiny


def test_shipped_recipes_are_valid_and_the_papers_grid_is_whole() -> None:
    plans = {path.stem: plan(load_imbalance_recipe(path)) for path in RECIPES.glob("*.yaml")}
    assert {"mnist", "mnist-small", "cifar10", "cifar10-small", "imagenet"} <= set(plans)

    def networks(name: str, grids: set[str]) -> int:
        paper = {"baseline", "ros", "rus", "two-phase-ros", "two-phase-rus"}
        keys = {
            key
            for unit in plans[name]
            if unit.imbalance.profile in grids
            for key in unit.result_keys()
            if key[3] in paper
        }
        return len(keys)

    assert networks("mnist", {"step", "linear"}) == 22_500
    assert networks("cifar10", {"step", "linear"}) == 640
    assert networks("imagenet", {"step"}) == 15
    small = load_imbalance_recipe(RECIPES / "mnist-small.yaml")
    assert small.seeds >= 5
    step = next(part for part in small.grid if part.profile == "step")
    assert (step.rho, step.mu) == ([10, 100, 1000, 5000], [0.2, 0.5, 0.8])


def test_recipe_mistakes_are_named(archive: Path, tmp_path: Path) -> None:
    def load(**changes: object) -> None:
        write_tiny(tmp_path / "r.yaml", archive, **changes)
        plan(load_imbalance_recipe(tmp_path / "r.yaml"))

    with pytest.raises(SelfposError, match="no field 'netwerk'; did you mean 'network'"):
        load(netwerk="lenet")
    with pytest.raises(SelfposError, match=r"'network': Input should be 'lenet', .* \(found 'lenett'\)"):
        load(network="lenett")
    with pytest.raises(SelfposError, match="'mu' belongs to profile step"):
        load(grid=[{"profile": "linear", "rho": [10], "mu": [0.5]}])
    with pytest.raises(SelfposError, match="needs 'validation'"):
        load(validation=0, training={"learning_rates": [0.1, 0.01]})
    several = {"adamw_rates": [1e-3, 1e-4]}
    for changes in (
        {"methods": ["ros", "adamw"]},
        {"grid": [{"profile": "linear", "rho": [10], "methods": ["adamw"]}]},
    ):
        with pytest.raises(SelfposError, match="several adamw_rates needs 'validation'"):
            load(validation=0, training=several, **changes)
        load(training=several, **changes)
    message = r"'training\.learning_rates\.1': Input should be greater than 0 \(found -0\.1\)"
    with pytest.raises(SelfposError, match=message):
        load(training={"learning_rates": [0.1, -0.1]})
    with pytest.raises(SelfposError, match=r"'training\.weight_decay': Input should be a finite number"):
        load(training={"weight_decay": float("nan")})
    for rho, mu, message in (
        (0.5, 0.5, "rho"),
        (float("nan"), 0.5, "rho"),
        (10, 1.2, "mu"),
        (10, float("nan"), "mu"),
        (10, 0.0, "mu"),
    ):
        with pytest.raises(SelfposError, match=rf"'grid\.0\.{message}\.0': Input should be"):
            load(grid=[{"profile": "step", "rho": [rho], "mu": [mu]}])
    with pytest.raises(SelfposError, match=r"profile balanced has no ratio; found rho \[10"):
        load(grid=[{"profile": "balanced", "rho": [10]}])
    for schedule in ({"policy": "multistep"}, {"policy": "inv", "drops": [0.5]}):
        with pytest.raises(SelfposError, match="'drops' belong to policy multistep, which needs them"):
            load(training={"schedule": schedule})
    texts = {"network": "head", "encoder": "any", "preprocessing": "gcn-zca"}
    with pytest.raises(SelfposError, match="'preprocessing' would do nothing with texts; leave it out"):
        load(**texts)
    for name, value in (("momentum", 0.5), ("weight_decay", 0.1)):
        with pytest.raises(SelfposError, match=f"'{name}' would do nothing with optimizer adamw"):
            load(training={"optimizer": "adamw", name: value})
    for schedule, message in (
        ({"gamma": 0.1, "power": 1}, "'gamma' and 'power' would do nothing with policy fixed"),
        ({"policy": "poly", "gamma": 0.1}, "'gamma' would do nothing with policy poly"),
        ({"policy": "inv", "factor": 0.5}, "'factor' would do nothing with policy inv"),
        ({"policy": "multistep", "drops": [0.5], "power": 1}, "'power' would do nothing with policy multis"),
    ):
        with pytest.raises(SelfposError, match=message):
            load(training={"schedule": schedule})
    for method in ("ros:nan", "rus:inf", "ros:0.5", "ros:x", "baseline:2"):
        with pytest.raises(SelfposError, match="only ros:R and rus:R take a ratio, a number of 1 or more"):
            load(methods=[method])
    part = {"profile": "step", "rho": [2, 10], "mu": [0.5], "minority": None}  # as results of 0.1 hold it
    load(grid=[part, part])
    with pytest.raises(
        SelfposError, match=r"'grid\.0'.*'minority' of a part of the grid was removed in 0\.2"
    ):
        load(grid=[part | {"minority": "lowest"}])
    with pytest.raises(SelfposError, match=r"'minority': Input should be 'random' or 'lowest'"):
        load(minority=[1, 2])
    with pytest.raises(SelfposError, match="did you mean 'baseline'"):
        load(methods=["baselin"])


def test_sample_and_its_size_matched_control(archive: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(archive)
    data = read_images(str(archive), preprocessing="scale")
    point = Imbalance("step", 10, 0.5)
    sample = draw_sample(data, point, recipe, 0)
    control = draw_sample(data, point, recipe, 0, size_matched=True)
    assert sorted(sample.counts.tolist()) == [4] * 5 + [40] * 5
    assert (sample.counts[sample.minority] == 4).all()
    assert control.counts.tolist() == [22] * 10
    assert not set(sample.index.tolist()) & set(sample.validation.tolist())
    assert np.bincount(data.train.labels[sample.validation]).tolist() == [10] * 10


def test_records_do_not_depend_on_who_trains_beside(archive: Path) -> None:
    recipe = tiny_recipe(archive)
    data = read_images(str(archive), preprocessing="scale")
    device = grid.pick_device("cpu")
    point = Imbalance("step", 10, 0.5)
    together = run_unit(Unit(point, "ros", ("two-phase-ros",), 0.01, (0, 1)), recipe, data, device)
    again = run_unit(Unit(point, "ros", ("two-phase-ros",), 0.01, (0, 1)), recipe, data, device)
    alone = run_unit(Unit(point, "ros", ("two-phase-ros",), 0.01, (1,)), recipe, data, device)
    for record in [*together, *again, *alone]:
        record.pop("seconds")
    assert together == again
    theirs = {(r["method"], r["rule"]): r for r in together if r["seed"] == 1}
    for record in alone:
        other = theirs[record["method"], record["rule"]]
        assert record["sizes"] == other["sizes"]
        assert record["auc"] == pytest.approx(other["auc"], abs=0.01)
        assert record["accuracy"] == pytest.approx(other["accuracy"], abs=0.05)


def test_the_training_side_of_the_gap_is_what_was_trained_on(archive: Path) -> None:
    recipe = tiny_recipe(archive, train_scored=8)
    data = read_images(str(archive), preprocessing="scale")
    point = Imbalance("step", 10, 0.5)
    for method, of_a_large_class in (("rus", 4), ("ros", 8), ("baseline", 8)):
        trained = train_unit(Unit(point, method, (), 0.01, (0, 1)), recipe, data, grid.pick_device("cpu"))
        for s, (sample, positions) in enumerate(zip(trained.samples, trained.positions, strict=True)):
            scored = trained.train[:, s]
            assert set(scored) <= set(sample.index[positions])
            counts = np.bincount(data.train.labels[scored], minlength=10)
            assert sorted(counts.tolist()) == [4] * 5 + [of_a_large_class] * 5
            assert np.bincount(data.train.labels[trained.whole[:, s]]).max() == 8


EVERYTHING = [*METHODS, "ros:5", "rus:5"]


@pytest.mark.slow
def test_every_method_end_to_end_with_report(archive: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        archive,
        curve_every=3,
        seeds=1,
        test_limit=8,
        train_scored=8,
        training={"iterations": 6, "batch_size": 16, "second_iterations": 2},
        methods=EVERYTHING,
        grid=[
            {"profile": "balanced", "methods": ["baseline"]},
            {"profile": "step", "rho": [10], "mu": [0.5]},
            {"profile": "linear", "rho": [10], "methods": ["baseline", "ros", "rus"]},
        ],
    )
    out = tmp_path / "results.parquet"
    assert run_study(recipe, out) == len(plan(recipe))
    records, stored = read_results(out)
    assert stored == recipe
    assert {record["method"] for record in records} == set(EVERYTHING)
    for record in records:
        assert record["total"] == sum(record["sizes"])
        assert record["iterations"] == (8 if record["method"] == "ros-long" else 6)
        assert 0 <= record["auc"] <= 1
        assert record["accuracy"] == pytest.approx(record["balanced_accuracy"])  # the test set is balanced
        assert record["balanced_accuracy"] == pytest.approx(np.mean(record["recalls"]))
    assert all(len(r["curve"]) == 2 for r in records if r["method"] == "ros")
    assert run_study(recipe, out) == 0
    claims = write_report(out, tmp_path / "report")
    assert [claim.name for claim in claims] == [f"A{n}" for n in range(1, 10)]
    figures = ("3-step", "4-linear", "5-same-total", "6-thresholding", "7-partial", "8-curves")
    files = {"report.md", *(f"figure-{name}.png" for name in figures)}
    assert {path.name for path in (tmp_path / "report").iterdir()} == files
    assert "| A9 |" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_dead_worker_is_a_sentence(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "_run_in_worker", die)
    recipe = tiny_recipe(archive, methods=["baseline"])
    with pytest.raises(OperationError, match="a worker was ended from outside"):
        run_study(recipe, tmp_path / "r.parquet", workers=2)


def test_workers_end_where_results_cannot_be_written(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    def in_processes(units: list[Unit], *_: object) -> Iterator[tuple[Unit, list[dict]]]:
        try:
            yield units[0], []
        finally:
            ended.append(True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(grid, "_in_processes", in_processes)
    monkeypatch.setattr(results, "write_results", full)
    with pytest.raises(OSError, match="No space left") as error:
        run_study(tiny_recipe(archive), tmp_path / "r.parquet", workers=2)
    assert ended == [True], f"workers go on while somebody holds {error}"


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_stopped_unit_is_run_again_and_finished_ones_are_not(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(archive, methods=["baseline", "ros", "rus"], networks_at_once=1)
    out = tmp_path / "r.parquet"
    ran: list[str] = []

    def stop_at_third(unit: Unit, *rest: object, **named: object) -> list:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(str(unit))
        return unit_module.run_unit(unit, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(grid, "run_unit", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run_study(recipe, out)
    assert len({(r["method"], r["seed"]) for r in read_results(out)[0]}) == 2
    monkeypatch.setattr(grid, "run_unit", unit_module.run_unit)
    assert run_study(recipe, out) == len(plan(recipe)) - 2
    assert {(r["method"], r["seed"]) for r in read_results(out)[0]} == {
        (m, s) for m in ("baseline", "ros", "rus") for s in (0, 1)
    }


@pytest.mark.slow
def test_workers_find_and_warn_as_one_process_does(archive: Path, tmp_path: Path) -> None:
    training = {"iterations": 12, "batch_size": 16, "learning_rates": [0.01, 1e12]}
    recipe = tiny_recipe(archive, methods=["baseline"], training=training)
    for workers in (1, 2):
        assert run_study(recipe, tmp_path / f"{workers}.parquet", workers=workers) == 4
    alone, workers_records = (
        {(r["rule"], r["rate"], r["seed"]): r for r in read_results(tmp_path / f"{n}.parquet")[0]}
        for n in (1, 2)
    )
    assert alone.keys() == workers_records.keys()
    for key, record in alone.items():
        assert record["auc"] == pytest.approx(workers_records[key]["auc"], abs=0.01)
    for journal in ("1.log", "2.log"):
        lines = (tmp_path / journal).read_text(encoding="utf-8")
        assert "WARNING baseline: the training of 1 of 1 networks diverged" in lines


def test_workers_train_on_the_same_data(archive: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(archive)
    with pytest.raises(OperationError, match="changed while the study ran"):
        grid._run_in_worker(plan(recipe)[0], recipe, str(archive), "0" * 64, tmp_path / "r.log")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "how"),
    [
        (1, signal.SIGKILL),
        pytest.param(2, signal.SIGKILL, marks=pytest.mark.nightly),
        pytest.param(1, signal.SIGINT, marks=pytest.mark.nightly),
        pytest.param(2, signal.SIGINT, marks=pytest.mark.nightly),
    ],
)
def test_killed_process_leaves_a_readable_file_and_no_workers(
    archive: Path, tmp_path: Path, workers: int, how: signal.Signals
) -> None:
    write_tiny(tmp_path / "r.yaml", archive, seeds=40, networks_at_once=1)
    out = tmp_path / "r.parquet"
    words = ["run", tmp_path / "r.yaml", "--out", out, "--device", "cpu", "--workers", workers]
    command = [sys.executable, "-m", "selfpos", "imbalance", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while not out.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    try:
        _, errors = process.communicate(timeout=30)  # waits for workers too: they have its standard error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if how == signal.SIGINT:
        assert process.returncode == 130, errors.decode()
        assert "the same command continues" in errors.decode()
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert len(read_results(out)[0]) >= 4
