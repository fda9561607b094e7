"""The jobs of a run on a Ray cluster, several at a time, with the results and marks of `jobs.job.execute`."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from selfpos.console import log, log_to, progress, tell, warn
from selfpos.errors import OperationError, SelfposError, first_line
from selfpos.extras import need_extra
from selfpos.jobs.job import Job, carry_out, finish, job_keys, unfinished
from selfpos.storage.run_folder import RunFolder

ATTEMPTS = 3
"""How often a job starts before it is given up: one that takes a machine's last memory would do so again."""
SILENCE = 20.0
"""Seconds without an answer after which a cluster counts as lost; Ray would end this process after 60."""
PAUSE = 2.0
"""Seconds before a job starts again, in which what is left of the lost worker ends and frees its locks."""


def execute_on_ray(jobs: Sequence[Job], folder: RunFolder, *, address: str) -> list[str]:
    """Do the unfinished jobs on the cluster at `address` (`auto`: the one on this machine); return their
    names.

    A job is sent when those before it are done, with the CPUs and GPUs that it wants. Workers must see the
    run's folder and the models under the same paths. A job whose worker is lost starts again, up to ATTEMPTS
    times, from its checkpoint. Raises SelfposError as `execute` does, where there is no cluster, and what a
    job raises; OperationError where the cluster is lost, or a job lost its worker too often, after which the
    others are stopped.
    """
    need_extra("ray", "--ray")
    missing = unfinished(jobs, folder)
    if not missing:
        return []
    import ray
    from ray.exceptions import RayError, RayTaskError

    keys = job_keys(jobs)
    waiting = {job.name: job for job in missing}
    running: dict[Any, Job] = {}
    attempts: Counter[str] = Counter()
    done: list[str] = []
    with _connected(address), progress("jobs", len(missing), unit="jobs") as bar:
        _notice_missing_resources(missing)
        work = ray.remote(max_retries=0)(_on_worker)
        shipped = ray.put(list(jobs))  # once, for all jobs share the run's data
        last_answer = time.monotonic()
        try:
            while waiting or running:
                blocked = {*waiting, *(job.name for job in running.values())}
                for job in [job for job in waiting.values() if blocked.isdisjoint(job.after)]:
                    del waiting[job.name]
                    attempts[job.name] += 1
                    log.info(
                        "%s: started%s",
                        job.name,
                        f", attempt {attempts[job.name]}" if attempts[job.name] > 1 else "",
                    )
                    task = work.options(num_cpus=job.cpus, num_gpus=job.gpus, name=job.name)
                    running[task.remote(shipped, jobs.index(job), folder, str(Path.cwd()))] = job
                    bar.advance(0, running=", ".join(job.name for job in running.values()))
                ended, _ = ray.wait(list(running), timeout=1)
                for reference in ended:
                    job = running.pop(reference)
                    try:
                        seconds, failure = ray.get(reference)
                    except RayTaskError:
                        raise
                    except RayError as error:
                        if attempts[job.name] >= ATTEMPTS:
                            raise OperationError(
                                f"job {job.name} lost its worker {ATTEMPTS} times: {first_line(error)[:200]}"
                                "; check the workers' memory and start again: the run continues"
                            ) from None
                        log.warning(
                            "%s: its worker was lost (%s); it starts again", job.name, first_line(error)[:200]
                        )
                        tell(f"{job.name}: its worker was lost, it starts again", "yellow")
                        time.sleep(PAUSE)
                        waiting[job.name] = job
                        continue
                    if failure is not None:
                        kind, text = failure
                        raise kind(text)
                    finish(job, keys[job.name], seconds, folder)
                    done.append(job.name)
                    bar.advance(1, running=", ".join(job.name for job in running.values()))
                last_answer = _answered(address, last_answer)
        finally:
            for reference in running:
                with suppress(RayError):
                    ray.cancel(reference, force=True)
    return done


def _on_worker(
    jobs: list[Job], index: int, folder: RunFolder, where: str
) -> tuple[float, tuple[type[SelfposError], str] | None]:
    """Do one job in this process, a worker's.

    Returns the seconds it took, and the error that its user is to see, if any.
    """
    from selfpos.console import quiet_process

    job = jobs[index]
    threads = max(1, int(job.cpus))
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by what is not imported yet
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    try:
        if not Path(where).is_dir():
            raise OperationError(
                f"worker {socket.gethostname()} has no folder {where}: workers need the run's folders under "
                "the same paths"
            )
        os.chdir(where)
        if not folder.lock.exists():
            raise OperationError(
                f"worker {socket.gethostname()} does not see {folder.path}: the run's folder must lie on a "
                "file system they share"
            )
        quiet_process()
        with log_to(folder.log):
            return carry_out(job), None
    except OperationError as error:
        return 0.0, (OperationError, str(error))
    except SelfposError as error:
        return 0.0, (SelfposError, str(error))


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster at `address` while the block runs."""
    import logging

    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _reach(address)
        on_end = signal.getsignal(signal.SIGTERM)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise SelfposError(
            f"there is no Ray cluster at '{address}' ({first_line(error)[:200]}); start one with 'ray start "
            "--head', or give its address"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_end)  # in place of Ray's, which ends the process at once
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _answered(address: str, last: float) -> float:
    """When the cluster answered last, having asked again where that was seconds ago.

    Raises OperationError where it has been silent for SILENCE seconds.
    """
    import ray

    now = time.monotonic()
    if now - last < SILENCE / 4:
        return last
    try:
        _reach(ray.get_runtime_context().gcs_address if address == "auto" else address)
    except OSError:
        if now - last < SILENCE:
            return last
        raise OperationError(
            f"the Ray cluster at '{address}' has not answered for {now - last:.0f} s; start it and this run "
            "again: the run continues"
        ) from None
    return now


def _notice_missing_resources(jobs: Sequence[Job]) -> None:
    """Say so when no machine of the cluster has what a job asks for: it waits until one comes."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for cpus, gpus in sorted({(job.cpus, job.gpus) for job in jobs}):
        if not any(machine.get("CPU", 0) >= cpus and machine.get("GPU", 0) >= gpus for machine in machines):
            warn(
                f"no machine of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs; jobs that need them "
                "wait until one joins"
            )
