"""Workers of a Ray cluster that are killed while a run works on it. The cluster has two, on this machine."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
from kills import after, again, unharmed
from place import ROOT, Place
from trial import DONE, PATIENCE, REFUSED, Outcome, Seen, Trial, outcome, wrongs
from works import Work, contents, difference, started

from selfpos.jobs.ray import ATTEMPTS

NEEDS = "ray"
LOST_ONCE, LOST_ALWAYS, DRIVER_KILLED = 5, 1, 2  # how often each is tried
LOST = "its worker was lost, it starts again"
SECONDS = 60.0
RAYS_OWN = ("IDLE", "DashboardAgent", "RuntimeEnvAgent")  # processes with a title like a job's


@contextmanager
def around() -> Iterator[Cluster]:
    """A cluster on this machine, which ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        words += [f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2", f"--temp-dir={folder}"]
        words += ["--include-dashboard=false", "--object-store-memory=100000000"]
        seen = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = os.environ | {"PYTHONPATH": seen, "RAY_USAGE_STATS_ENABLED": "0"}
        head = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            yield Cluster(f"127.0.0.1:{port}", head.pid)
        finally:
            with suppress(psutil.NoSuchProcess):
                Cluster("", head.pid).end(0, head.pid)
            head.wait()


class Cluster:
    """Where a cluster is, and who works on it."""

    def __init__(self, address: str, head: int) -> None:
        self.address, self._head = address, psutil.Process(head)

    def wait(self) -> None:
        """Return once it listens, and somebody is there to work."""
        host, port = self.address.split(":")
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                if self._titles("raylet"):
                    return
            time.sleep(0.2)
        raise SystemExit("the Ray cluster does not start")

    def _titles(self, word: str) -> list[tuple[psutil.Process, str]]:
        found = []
        for process in self._head.children(recursive=True):
            with suppress(psutil.Error):
                line = " ".join(process.cmdline()).strip()  # a title leaves empty words behind it
                if word in line:
                    found.append((process, line))
        return found

    def end(self, seconds: float, child: int) -> None:
        """After so many seconds kill all that belongs to it."""
        time.sleep(seconds)
        for process in [*self._head.children(recursive=True), self._head]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def working(self) -> list[tuple[psutil.Process, str]]:
        """The processes that do a job, and its name."""
        titled = [(process, title.removeprefix("ray::")) for process, title in self._titles("ray::")]
        return [(process, job) for process, job in titled if job not in RAYS_OWN]


def outcomes(place: Place) -> Iterator[Outcome]:
    cluster, rng = place.hub, random.Random(24)
    cluster.wait()
    recipe = place.recipe(resources={"training": {"cpus": 1}})
    home = Work("run", lambda folder: ["run", recipe, "--out", folder / "out"], adds=True)
    expected, _ = unharmed(place, home)
    words = ("--ray", cluster.address)
    away = Work(
        "run on Ray", lambda folder: [*home.words(folder), *words], adds=True, seconds=SECONDS, memory=8000
    )
    _, seconds = unharmed(place, away)
    for _ in range(LOST_ONCE):
        strike = partial(lose, cluster, 1, rng.uniform(0, 0.5 * seconds))
        yield _lost(place, away, expected, strike, "a Ray worker lost", DONE)
    for _ in range(LOST_ALWAYS):
        strike = partial(lose, cluster, ATTEMPTS, rng.uniform(0, 0.5 * seconds))
        yield _lost(place, away, expected, strike, f"a Ray worker lost {ATTEMPTS} times at one job", REFUSED)
    for _ in range(DRIVER_KILLED):
        folder = place.fresh()
        started(away, folder, strike=after(rng.uniform(0, seconds), signal.SIGKILL))
        why = again(away, folder, expected)
        yield Outcome(
            "SIGKILL at a random moment: run on Ray", why, "the second start ends with the same bytes"
        )
    folder = place.fresh()  # the last, for nothing can work on this cluster afterwards
    seen = started(away, folder, strike=partial(cluster.end, 0.5 * seconds))
    trial = Trial("the whole Ray cluster lost", [away.name], None, (1,), says="has not answered")
    yield outcome(trial.fault, [*wrongs(trial, seen), again(home, folder, expected)], seen)


def lose(cluster: Cluster, times: int, seconds: float, child: int) -> None:
    """After so many seconds kill the worker of a job, and of the same job again, `times` times in all."""
    time.sleep(seconds)
    chosen, killed = "", set[int]()
    end = time.monotonic() + PATIENCE * SECONDS
    while len(killed) < times and time.monotonic() < end and _lives(child):
        found = [
            (one, job) for one, job in cluster.working() if one.pid not in killed and chosen in ("", job)
        ]
        if found:
            worker, chosen = found[0]
            with suppress(psutil.NoSuchProcess):
                worker.kill()
            killed.add(worker.pid)
        time.sleep(0.02)


def _lives(child: int) -> bool:
    """Whether it has not ended yet."""
    return psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE


def _lost(
    place: Place,
    work: Work,
    expected: dict[str, str],
    strike: Callable[[int], object],
    fault: str,
    statuses: tuple[int, ...],
) -> Outcome:
    folder = place.fresh()
    seen = started(work, folder, strike=strike)
    trial = Trial(fault, [work.name], None, statuses)
    why = "; ".join([*wrongs(trial, seen), *_said(seen)]) or _after(work, folder, expected, seen)
    return Outcome(fault, why and f"{why}: {seen.err[-600:]}", _words(seen))


def _after(work: Work, folder: Path, expected: dict[str, str], seen: Seen) -> str:
    """What is wrong with what a run left, or with what a second start makes of it."""
    first = difference(contents(folder, work.out), expected) if seen.status == 0 else ""
    return first or again(work, folder, expected)


def _said(seen: Seen) -> list[str]:
    return [] if LOST in seen.out + seen.err else ["says nothing of a worker"]


def _words(seen: Seen) -> str:
    """What the user saw: the sentence at the end, or the line about the worker."""
    lines = [line for line in (seen.out + seen.err).splitlines() if LOST in line]
    return (seen.sentences or lines or ["(nothing)"])[-1].removeprefix("selfpos: ")
