"""Jobs on a real Ray cluster of two workers on this machine."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from selfpos.errors import OperationError, SelfposError
from selfpos.jobs.job import Job, execute, locked
from selfpos.jobs.ray import execute_on_ray
from selfpos.recipe import Recipe
from selfpos.storage.run_folder import RunFolder
from tests.helpers.pipelines import MODELS, every_pipeline

pytest.importorskip("ray", reason="Ray is not installed (pip install 'selfpos[ray]')")


class TwoMachines:
    """A cluster with a head that has no CPU, and two machines with one each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )

    def address(self) -> str:
        """Where it is, once both machines are there."""
        while len(self._cluster.worker_nodes) < 2:
            self._cluster.add_node(num_cpus=1)
        self._cluster.wait_for_nodes()
        return str(self._cluster.address)

    def lose_one(self) -> None:
        """Switch a machine off in the middle of its work."""
        self._cluster.remove_node(next(iter(self._cluster.worker_nodes)), allow_graceful=False)

    def shutdown(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoMachines]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        machines = TwoMachines()
        yield machines
        machines.shutdown()


def write(folder: Path, name: str, text: str = "done") -> None:
    (folder / name).write_text(text, encoding="utf-8")


def hold(folder: Path, name: str) -> None:
    """Work that ends only when it is begun a second time; notes who does it."""
    note = folder / f"{name}.begun"
    if note.exists():
        write(folder, name)
        return
    write(folder, note.name, str(os.getpid()))
    time.sleep(300)


def refuse(message: str) -> None:
    raise OperationError(message)


def jobs_of(folder: Path, **work: Callable[[], None]) -> list[Job]:
    made = {name: work.get(name) or partial(write, folder, name) for name in "abc"}
    return [Job(name, {}, folder / name, made[name], ("a", "b") if name == "c" else ()) for name in "abc"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder(tmp_path / "run")
    with locked(folder):
        yield folder


def when(file: Path, then: Callable[[], object]) -> threading.Thread:
    """Do something as soon as `file` exists."""

    def watch() -> None:
        while not file.exists():
            time.sleep(0.05)
        time.sleep(0.2)
        then()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_is_begun_again_and_no_job_before_those_it_needs(
    cluster: TwoMachines, run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    address = cluster.address()
    begun = run.path / "b.begun"
    killer = when(begun, lambda: os.kill(int(begun.read_text()), 9))
    with caplog.at_level(logging.INFO, logger="selfpos"):
        done = execute_on_ray(jobs_of(run.path, b=partial(hold, run.path, "b")), run, address=address)
    killer.join()
    assert done == ["a", "b", "c"]
    assert "b: its worker was lost" in caplog.text and "b: started, attempt 2" in caplog.text
    assert json.loads(run.mark("b").read_text())["seconds"] < 60
    plain = jobs_of(run.path)
    assert (
        execute_on_ray(plain, run, address=address) == [] == execute(plain, run)
    )  # either goes on where the other was


@pytest.mark.slow
def test_what_a_job_says_is_said_and_what_is_done_is_kept(cluster: TwoMachines, run: RunFolder) -> None:
    address = cluster.address()
    with pytest.raises(OperationError, match="the disk is full"):
        execute_on_ray(jobs_of(run.path, c=partial(refuse, "the disk is full")), run, address=address)
    assert run.mark("a").exists() and run.mark("b").exists() and not run.mark("c").exists()
    assert execute(jobs_of(run.path), run) == ["c"]


def die() -> None:
    os._exit(1)


@pytest.mark.slow
def test_a_job_that_takes_its_worker_with_it_is_given_up(
    cluster: TwoMachines, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpos.jobs.ray.PAUSE", 0.0)
    address = cluster.address()
    with pytest.raises(OperationError, match="job a lost its worker 3 times"):
        execute_on_ray(jobs_of(run.path, a=die)[:1], run, address=address)


def test_nobody_at_an_address_is_one_sentence_at_once(run: RunFolder) -> None:
    with pytest.raises(SelfposError, match=r"no Ray cluster at '127.0.0.1:1' \(.*refused\); start one"):
        execute_on_ray(jobs_of(run.path), run, address="127.0.0.1:1")


def test_no_cluster_is_one_sentence(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def absent(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nand much more")

    monkeypatch.setattr(ray, "init", absent)
    with pytest.raises(
        SelfposError, match=r"no Ray cluster at 'auto' \(Could not find any running Ray instance\.\)"
    ):
        execute_on_ray(jobs_of(run.path), run, address="auto")


@pytest.mark.slow
def test_a_run_that_loses_a_machine_has_the_bytes_of_one_at_home(
    cluster: TwoMachines, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from selfpos.pipeline.run import run_recipe

    address = cluster.address()
    recipe = Recipe.model_validate(
        every_pipeline(tiny_base, tmp_path) | {"resources": {"training": {"cpus": 1}}}
    )
    away, home = RunFolder(tmp_path / "away"), RunFolder(tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    killer = when(away.specialist("pairs").with_name("pairs.checkpoints") / "step-2", cluster.lose_one)
    run_recipe(recipe, Path("away"), executor=partial(execute_on_ray, address=address))
    killer.join(timeout=1)
    assert not killer.is_alive()
    assert "its worker was lost" in away.log.read_text(encoding="utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run_recipe(recipe, home.path)
    torch.set_num_threads(threads)
    weights = sorted(file.relative_to(home.path) for file in home.path.rglob("*.safetensors"))
    assert len(weights) == 2 * (len(MODELS) - 1)
    assert all((away.path / file).read_bytes() == (home.path / file).read_bytes() for file in weights)
    assert json.loads(away.table.read_text()) == json.loads(home.table.read_text())
