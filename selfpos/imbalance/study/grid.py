"""A whole study: which units it consists of, and the driver that runs those that are still missing."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache, partial
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from selfpos.console import log, log_to, progress
from selfpos.devices import check_device
from selfpos.errors import OperationError, SelfposError
from selfpos.imbalance.study import results
from selfpos.imbalance.study.cell import Imbalance, Unit, run_unit
from selfpos.imbalance.study.checks import check_study
from selfpos.imbalance.study.images import ArrayImages
from selfpos.imbalance.study.methods.registry import Method, Refit, get_method
from selfpos.imbalance.study.profiles import Minority
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.sources import ImageData, read_images
from selfpos.storage.atomic import locked


def plan(recipe: ImbalanceRecipe, at_once: int = 1) -> list[Unit]:
    """All units in the order they run: first all of the grid for the first seeds.

    Raises SelfposError for an unknown method.

    `at_once` seeds are trained as one wide network. For convolutions on a CPU that is slower than one after
    the other (benchmarks/imbalance.py), so `run_grid` does it on GPUs and for heads only.
    """
    units: dict[Unit, None] = {}
    chunks = [range(start, min(start + at_once, recipe.seeds)) for start in range(0, recipe.seeds, at_once)]
    for seeds in chunks:
        for part in recipe.grid:
            own = tuple(seed for seed in seeds if part.seeds is None or seed < part.seeds)
            if not own:
                continue
            families = _families(part.methods or recipe.methods)
            chosen = part.minority if part.minority is not None else recipe.minority
            minority: Minority = chosen if isinstance(chosen, str) else tuple(chosen)
            shares: list[float | None] = [*part.mu] if part.mu else [None]
            for mu in shares:
                for rho in part.rho:
                    for parent, refits in families.items():
                        for rate in _rates(parent, recipe):
                            units[
                                Unit(Imbalance(part.profile, rho, mu, minority), parent, refits, rate, own)
                            ] = None
    return list(units)


def _families(names: list[str]) -> dict[str, tuple[str, ...]]:
    """Second stages by the method that trains their networks; that method runs and is recorded even when it
    was not named.
    """
    families: dict[str, list[str]] = {}
    for name in names:
        method = get_method(name)
        families.setdefault(method.parent, [])
        if isinstance(method, Refit):
            families[method.parent].append(name)
    return {parent: tuple(dict.fromkeys(refits)) for parent, refits in families.items()}


def _rates(parent: str, recipe: ImbalanceRecipe) -> list[float]:
    method = get_method(parent)
    adamw = isinstance(method, Method) and method.optimizer == "adamw"
    return recipe.training.adamw_rates if adamw else recipe.training.learning_rates


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    """A record's key, as `Unit.result_keys` has it."""
    return tuple(
        record[field] for field in ("profile", "rho", "mu", "minority_rule", "method", "rate", "seed")
    )


def pick_device(name: str) -> torch.device:
    """The device `name`; auto: a GPU when there is one. Raises SelfposError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_device(name)
    return torch.device(name)


def run_grid(
    recipe: ImbalanceRecipe,
    out: Path,
    *,
    data: str | None = None,
    images: ImageData | None = None,
    device: str = "auto",
    workers: int = 1,
) -> int:
    """Run the units of `recipe` whose results are not in the Parquet file `out` yet, adding each as it ends;
    return how many were run.

    A run stopped at any moment loses at most the units it was in. `data` replaces the recipe's images, or
    `images` do, which are in memory already and which one process only can train on. With several `workers`,
    on a CPU only, that many processes of one thread each train a unit apiece: small networks use cores far
    better so than by sharing every operation among them. Raises SelfposError when `out` was made with other
    settings or data, when another process writes it, and, before anything is trained, when a unit is
    impossible on these images; OperationError when a worker dies, or when the data change meanwhile.
    """
    place = pick_device(device)
    if workers > 1 and place.type != "cpu":
        raise SelfposError(
            f"--workers are processes on a CPU; on {place} a cell's networks are trained as one wide network "
            "instead"
        )
    if workers > 1 and images is not None:
        raise SelfposError(
            "several workers read the images themselves, and these are in memory; run with one worker, "
            f"found {workers}"
        )
    if recipe.network in ("head", "encoder") and images is None:
        raise SelfposError(
            f"recipe {recipe.name} is about texts; run it with `selfpos imbalance compare text`"
        )
    units = _units(recipe, place)
    missing = _missing(units, _kept(out, recipe))
    if not missing and results.data_of(out) is None:
        return 0
    source = data or recipe.data
    images = images or read_images(source, preprocessing=recipe.preprocessing)
    results.check_same_data(out, images)
    if not missing:
        return 0
    check_study(missing, recipe, images)
    images = _on_device(images, place)
    journal = out.with_suffix(".log")
    with log_to(journal), locked(journal):
        # What is missing is known for certain from here on only: another process may have added to the file.
        results.check_same_data(out, images)
        records = _kept(out, recipe)
        missing = _missing(units, records)
        log.info(
            "%s: %d of %d units to run on %s, data %s",
            recipe.name,
            len(missing),
            len(units),
            place,
            images.description,
        )
        # Results whose data were not noted stay so: whether these are the same is not known.
        fingerprint = results.data_of(out) if records else images.fingerprint
        for unit, found in _train(missing, recipe, images, source, place, workers):
            keys = unit.result_keys()
            records = [record for record in records if key_of(record) not in keys] + found
            results.write_results(out, records, recipe, fingerprint)
            log.info("%s: %.1f s per network", unit, found[0]["seconds"])
    return len(missing)


def _train(
    units: list[Unit],
    recipe: ImbalanceRecipe,
    images: ImageData,
    source: str,
    place: torch.device,
    workers: int,
) -> Iterator[tuple[Unit, list[dict[str, Any]]]]:
    """The units with their records, as they end, under a progress bar."""
    weight = recipe.training.iterations
    with progress(recipe.name, sum(len(unit.seeds) for unit in units) * weight, unit="network steps") as bar:
        if workers > 1:
            for unit, found in _in_processes(units, recipe, source, images.fingerprint, workers):
                bar.advance(len(unit.seeds) * weight, now=str(unit))
                yield unit, found
            return
        for unit in units:
            bar.advance(0, now=str(unit))
            yield unit, run_unit(unit, recipe, images, place, tick=partial(bar.advance, len(unit.seeds)))


def left_to_run(recipe: ImbalanceRecipe, out: Path, device: str = "auto") -> list[Unit]:
    """The units that `run_grid` would train."""
    return _missing(_units(recipe, pick_device(device)), _kept(out, recipe))


def _units(recipe: ImbalanceRecipe, place: torch.device) -> list[Unit]:
    alone = recipe.network == "encoder" or (place.type == "cpu" and recipe.network != "head")
    return plan(recipe, 1 if alone else recipe.networks_at_once)


def _kept(out: Path, recipe: ImbalanceRecipe) -> list[dict[str, Any]]:
    """The records in `out`, which must have been made with the settings of `recipe`."""
    if not out.exists():
        return []
    records, before = results.read_results(out)
    results.check_same_settings(out, before, recipe)
    return records


def _missing(units: list[Unit], records: list[dict[str, Any]]) -> list[Unit]:
    done = {key_of(record) for record in records}
    return [unit for unit in units if not unit.result_keys() <= done]


def _in_processes(
    units: list[Unit], recipe: ImbalanceRecipe, source: str, fingerprint: str, workers: int
) -> Iterator[tuple[Unit, list[dict[str, Any]]]]:
    """The units with their records, as they end. Leaving the loop early ends the processes at once."""
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        running = {pool.submit(_run_in_worker, unit, recipe, source, fingerprint): unit for unit in units}
        for future in as_completed(running):
            found, lines = future.result()
            for line in lines:
                log.handle(line)
            yield running[future], found
    except BrokenProcessPool:
        raise OperationError(
            "a worker was ended from outside, perhaps for want of memory; what was finished is kept, and "
            "the same command continues from there, with fewer --workers if need be"
        ) from None
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A parent that is killed ends no worker, and each would wait for its next unit for good."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_in_worker(
    unit: Unit, recipe: ImbalanceRecipe, source: str, fingerprint: str
) -> tuple[list[dict[str, Any]], list[logging.LogRecord]]:
    """The unit's records, and what was logged meanwhile, which is the parent's to write."""
    images = _read_once(source, recipe.preprocessing)
    if images.fingerprint != fingerprint:
        raise OperationError(f"the data at {source} changed while the study ran; what was finished is kept")
    lines: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(lines)
    log.addHandler(handler)
    try:
        found = run_unit(unit, recipe, images, torch.device("cpu"))
    finally:
        log.removeHandler(handler)
    return found, [lines.get() for _ in range(lines.qsize())]


@cache
def _read_once(source: str, preprocessing: str) -> ImageData:
    """A worker's images, read at its first unit."""
    return read_images(source, preprocessing=preprocessing)


def _on_device(data: ImageData, device: torch.device) -> ImageData:
    def move(images: Any) -> Any:
        return images.to(device) if isinstance(images, ArrayImages) else images

    return replace(data, train=move(data.train), test=move(data.test))
