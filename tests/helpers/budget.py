"""Fails a test that takes more CPU than a quick test may, unless it is marked `slow` or `nightly`.

`--cpu-budget SECONDS` switches it on; `make test` does. Child processes count, the warm command line among
them. The seconds are those of the core on which YARDSTICK was measured: on a slower or a shared one a test
may take longer, by as much as a fixed piece of work takes longer there at that moment.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

import psutil
import pytest

YARDSTICK = 0.24
"""CPU seconds of `_yardstick` on an idle core, once warm."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu-budget", type=float, help="CPU seconds that an unmarked test may take")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    budget = item.config.getoption("--cpu-budget")
    if budget is None or item.get_closest_marker("slow") or item.get_closest_marker("nightly"):
        return (yield)
    before = _cpu_seconds()
    outcome = yield
    used = _cpu_seconds() - before
    if used > budget:
        allowed = budget * max(1.0, _yardstick() / YARDSTICK)
        if used > allowed:
            pytest.fail(
                f"{used:.1f} s of CPU, and {allowed:.1f} s are allowed: make it quicker, or mark it slow",
                pytrace=False,
            )
    return outcome


def _yardstick() -> float:
    """CPU seconds of a fixed piece of work, Python and matrices as tests are: the least of three, for the
    first is slow on any machine.
    """
    import torch

    seconds = []
    for _ in range(3):
        before = time.process_time()
        sum(len(str(number)) for number in range(700_000))
        matrix = torch.ones(400, 400)
        for _ in range(60):
            matrix = matrix @ matrix / 400
        seconds.append(time.process_time() - before)
    return min(seconds)


def _cpu_seconds() -> float:
    """CPU seconds of this process, of its finished children and of its running ones."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
