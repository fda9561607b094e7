"""A whole study: the units that it consists of, and the run of those that are missing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch

from selfpos.console import log, log_to, progress
from selfpos.devices import check_device, default_device
from selfpos.errors import OperationError, SelfposError
from selfpos.imbalance.study import results
from selfpos.imbalance.study.data import ImageData, read_images
from selfpos.imbalance.study.methods import get_method
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.results import Record
from selfpos.imbalance.study.unit import Imbalance, Unit, check_study, run_unit
from selfpos.signals import ENDING_SIGNALS
from selfpos.storage.atomic import locked

Trainings = Generator[tuple[Unit, list[Record]], None, None]


def plan(recipe: ImbalanceRecipe, at_once: int = 1) -> list[Unit]:
    """All units in the order they run: first all of the grid for the first seeds.

    `at_once` seeds are trained as one wide network. For convolutions on a CPU that is slower than one after
    the other (benchmarks/imbalance.py), so `run_grid` does it on GPUs and for heads only.
    """
    units: dict[Unit, None] = {}
    for start in range(0, recipe.seeds, at_once):
        for part in recipe.grid:
            seeds = tuple(range(start, min(start + at_once, recipe.seeds, part.seeds or recipe.seeds)))
            if not seeds:
                continue
            families = _families(part.methods or recipe.methods)
            shares: list[float | None] = [*part.mu] if part.mu else [None]
            for mu, rho, (parent, refits) in product(shares, part.rho, families.items()):
                imbalance = Imbalance(part.profile, rho, mu)
                adamw = get_method(parent).optimizer == "adamw"
                for rate in recipe.training.adamw_rates if adamw else recipe.training.learning_rates:
                    units[Unit(imbalance, parent, tuple(refits), rate, seeds)] = None
    return list(units)


def _families(names: list[str]) -> dict[str, list[str]]:
    """Second stages by the method that trains their networks, and runs even when it is not named."""
    families: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        parent = get_method(name).parent
        refits = families.setdefault(parent or name, [])
        if parent is not None:
            refits.append(name)
    return families


def pick_device(name: str) -> torch.device:
    """The device `name`; auto: a GPU when there is one. Raises SelfposError for one that is not there."""
    check_device(name)
    if name == "auto":
        name = default_device()
    return torch.device(name)


def run_grid(
    recipe: ImbalanceRecipe, out: Path, images: ImageData, device: torch.device, workers: int = 1
) -> int:
    """Run the units of `recipe` whose results are not in the Parquet file `out`; return their number.

    Each unit is added as it ends. Each of several `workers`, on a CPU, trains units on one thread. Impossible
    units, and other settings or data than those of `out`, are refused before anything is trained.
    """
    if workers > 1 and device.type != "cpu":
        raise SelfposError(
            f"--workers are processes on a CPU; {device} trains a cell's networks as one wide network"
        )
    missing, _ = _missing(recipe, out, images, device)
    if not missing:
        return 0
    check_study(missing, recipe, images)
    journal = out.with_suffix(".log")
    # The lock makes folder and file, so it comes after all that may be refused.
    with locked(journal), log_to(journal):
        # What is missing is known for certain from here on only: another process may have added to the file.
        missing, records = _missing(recipe, out, images, device)
        log.info("%s: %d units to run on %s, data %s", recipe.name, len(missing), device, images.description)
        # Results without a fingerprint stay so: whether the data are the same is not known.
        fingerprint = results.data_of(out) if records else images.fingerprint
        if workers > 1:
            trained = _in_processes(missing, recipe, images, journal, workers)
        else:
            trained = _one_by_one(missing, recipe, images, device)
        with closing(trained):  # at once, which ends the workers, though an error's traceback holds it
            for unit, added in trained:
                keys = unit.result_keys()
                records = [record for record in records if results.key(record) not in keys] + added
                results.write_results(out, records, recipe, fingerprint)
                log.info("%s: %.1f s per network", unit, added[0]["seconds"])
    return len(missing)


def _missing(
    recipe: ImbalanceRecipe, out: Path, images: ImageData, device: torch.device
) -> tuple[list[Unit], list[Record]]:
    """The units whose results are not in `out`, and the records there, made with the same settings."""
    alone = recipe.network == "encoder" or (device.type == "cpu" and recipe.network != "head")
    units = plan(recipe, 1 if alone else recipe.networks_at_once)
    records = results.read_same(out, recipe, images) if out.exists() else []
    done = {results.key(record) for record in records}
    return [unit for unit in units if not unit.result_keys() <= done], records


def _steps(units: list[Unit], recipe: ImbalanceRecipe) -> int:
    return sum(len(unit.seeds) * unit.iterations(recipe.training) for unit in units)


def _one_by_one(
    units: list[Unit], recipe: ImbalanceRecipe, images: ImageData, device: torch.device
) -> Trainings:
    images = images.to(device)
    with progress(recipe.name, _steps(units, recipe), unit="network steps") as bar:
        for unit in units:
            bar.advance(0, now=str(unit))
            yield unit, run_unit(unit, recipe, images, device, tick=partial(bar.advance, len(unit.seeds)))


def _in_processes(
    units: list[Unit], recipe: ImbalanceRecipe, images: ImageData, journal: Path, workers: int
) -> Trainings:
    """The units with their records, as they end. Leaving the loop early ends the processes at once."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker)
    shared = (recipe, images.description, images.fingerprint, journal)
    try:
        running = {pool.submit(_run_in_worker, unit, *shared): unit for unit in units}
        with progress(recipe.name, _steps(units, recipe), unit="network steps") as bar:
            for future in as_completed(running):
                unit, records = running[future], future.result()
                bar.advance(_steps([unit], recipe), now=str(unit))
                yield unit, records
    except BrokenProcessPool:
        raise OperationError(
            "a worker was ended from outside, perhaps for lack of memory; finished units are kept, and the "
            "same command continues, with fewer --workers if need be"
        ) from None
    finally:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    for number in (signal.SIGINT, *ENDING_SIGNALS):
        signal.signal(number, signal.SIG_IGN)  # the parent answers them
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A killed parent does not end its workers: each would wait for its next unit forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_in_worker(
    unit: Unit, recipe: ImbalanceRecipe, source: str, fingerprint: str, journal: Path
) -> list[Record]:
    images = _read_once(source, recipe.preprocessing)
    if images.fingerprint != fingerprint:
        raise OperationError(f"the data at {source} changed while the study ran; finished units are kept")
    with log_to(journal):
        return run_unit(unit, recipe, images, torch.device("cpu"))


@cache
def _read_once(source: str, preprocessing: str) -> ImageData:
    """A worker's images, read at its first unit."""
    return read_images(source, preprocessing=preprocessing)
