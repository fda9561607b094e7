"""The Hub that fails, moves or is left in the middle: pushes and fetches over real HTTP, against a small Hub
on loopback (tests/helpers/hub/hub_server.py).
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from kills import after
from place import Place
from signalled import SIGNALS
from trial import DONE, REFUSED, Outcome, Seen, Trial, command_line, run, tried, wrongs

REPO = "alice/merged"
KILLS = 25
SEEDS = count(1000)


@contextmanager
def around() -> Iterator[Any]:
    """The Hub on loopback, for a process that has not yet imported the client: it reads then where it is."""
    from tests.helpers.hub.client import environment
    from tests.helpers.hub.hub_server import running_hub

    with running_hub() as hub, tempfile.TemporaryDirectory() as home:
        os.environ.pop("HF_HUB_OFFLINE", None)
        os.environ |= environment(hub, Path(home))
        import tests.helpers.hub.worker  # the client without waits between its tries

        assert tests.helpers.hub.worker
        yield hub


def outcomes(place: Place) -> Iterator[Outcome]:
    hub = place.hub
    yield from faults(place, hub)
    yield from fetches(place, hub)
    yield from moved(place, hub)
    yield from struck(place, hub)


def ready(place: Place) -> Path:
    """A model to send, of weights of its own: Xet remembers what it has sent."""
    from tests.helpers.hub.scored_run import write_manifest
    from tests.helpers.models import make_specialist

    model = make_specialist(place.base, place.fresh() / "merged", seed=next(SEEDS))
    merge = {"method": "ties", "sources": []}
    return write_manifest(model, kind="merged", name="merged", licence="apache-2.0", merge=merge)


def arrived(hub: Any, model: Path) -> str:
    """What is wrong with what the Hub has of the model."""
    there = hub.files(REPO)
    sent = {file.relative_to(model).as_posix(): file for file in model.rglob("*") if file.is_file()}
    if missing := sorted(name for name in sent.keys() - there.keys() if not name.startswith(".")):
        return f"{missing[0]} did not arrive"
    other = [name for name in sent if name in there and there[name] != sent[name].read_bytes()]
    other = [name for name in other if name not in ("README.md", "selfpos.json")]  # made for the Hub
    return f"{other[0]} arrived changed" if other else ""


def push(model: Path, *, strike: Callable[[int], object] | None = None) -> Seen:
    trial = Trial("push", ["push", model, REPO])
    return run(lambda: command_line(trial), strike=strike, seconds=60, memory=3000)


def finished(hub: Any, model: Path) -> str:
    """What is wrong with a second start, when the fault is gone."""
    hub.heal()
    seen = push(model)
    return arrived(hub, model) if seen.status == 0 else f"the second start: {seen.err[-300:]}"


def faults(place: Place, hub: Any) -> Iterator[Outcome]:
    """The Hub's own faults, as the tests of publishing list them."""
    from tests.helpers.hub.faults import CASES, other_model

    for name, case in CASES.items():
        if case.lfs or case.patience is not None or case.env:
            continue
        hub.reset()
        hub.heal()
        model = ready(place)
        if case.taken:
            other = push(other_model(model, place.fresh() / "other"))
            assert other.status == 0, other.err
        if case.what:
            hub.fail(case.pattern, case.what, **case.more)
        words = ["push", model, case.repo, *case.words]
        trial = Trial(f"push: {name}", words, None, (case.status,), says=case.says, seconds=60, memory=3000)
        outcome = tried(trial)
        if not outcome.why and case.status == 1:
            outcome = Outcome(outcome.fault, finished(hub, model), outcome.saw)
        yield outcome


def fetches(place: Place, hub: Any) -> Iterator[Outcome]:
    """Faults while a base is fetched."""
    ways: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "429": (r"GET /api/models/", 429, {"headers": {"Retry-After": "30"}}),
        "500": (r"GET /api/models/", 500, {}),
        "503 for a file": (r"GET .*/resolve/", 503, {}),
        "404 for the model": (r"GET /api/models/", 404, {"code": "RepoNotFound"}),
        "a web page for an answer": (r"GET /api/models/", "page", {}),
        "a connection cut in a small file": (r"GET .*/resolve/", "cut", {"skip": 2}),
        "a connection cut in the weights": (r"GET /xorbs/", "cut", {}),
        "weights damaged on their way": (r"GET /xorbs/", "corrupt", {}),
    }
    for name, (pattern, what, more) in ways.items():
        hub.reset()
        hub.heal()
        model = ready(place)
        assert push(model).status == 0
        cache = place.fresh()
        hub.heal()
        hub.fail(pattern, what, **more)
        out = place.fresh() / "out"
        words = place.merge(out, base=REPO)  # type: ignore[arg-type]
        set_cache = partial(_cache_in, cache)
        trial = Trial(f"a base fetched: {name}", words, out, before=set_cache, seconds=60, memory=3000)
        outcome = tried(trial)
        hub.heal()
        again = Trial("again", words, out, DONE, before=set_cache, seconds=60, memory=3000)
        yield outcome if outcome.why else Outcome(outcome.fault, tried(again).why, outcome.saw)


def _cache_in(folder: Path) -> None:
    """Have the client keep what it fetches in `folder`: it has read where at its import."""
    import huggingface_hub.constants as constants
    import huggingface_hub.file_download as downloads

    constants.HF_HUB_CACHE = str(folder)
    downloads.HF_HUB_CACHE = str(folder)  # type: ignore[attr-defined]
    snapshot = __import__("huggingface_hub._snapshot_download", fromlist=["constants"])
    snapshot.constants.HF_HUB_CACHE = str(folder)


def moved(place: Place, hub: Any) -> Iterator[Outcome]:
    """A revision that moves while it is read: what comes is all of the one or all of the other."""
    from safetensors.numpy import load_file

    for number in range(3):
        hub.reset()
        hub.heal()
        old, new = ready(place), ready(place)
        assert push(old).status == 0
        hub.heal()
        hub.fail(r"GET .*/resolve/", "slow", seconds=0.2)
        out, cache = place.fresh() / "out", place.fresh()

        def move(child: int, new: Path = new, number: int = number) -> None:
            end = time.monotonic() + 20
            while sum("/resolve/" in request for request in hub.requests) <= number * 3:
                if time.monotonic() > end:
                    return
                time.sleep(0.01)
            repo = hub.model(REPO)
            tree = dict(repo.tree("main"))
            files = {
                file.relative_to(new).as_posix(): file.read_bytes() for file in new.rglob("*.safetensors")
            }
            repo.commit("main", tree | {name: (content, True) for name, content in files.items()}, "moved")

        def whole(seen: Seen, out: Path = out, old: Path = old, new: Path = new) -> str:
            if seen.status:
                return ""
            made = [load_file(out / name) for name in WEIGHTS_OF]
            for model in (old, new):
                read = [load_file(model / name) for name in WEIGHTS_OF]
                same = [(a[key] == b[key]).all() for a, b in zip(made, read, strict=True) for key in a]
                if all(same):
                    return ""
            return "what was merged is neither of the two revisions"

        words = ["merge", "--base", REPO, "--vectors", place.base, "--weights", 0]
        words += ["--method", "task-arithmetic", "--out", out]
        yield tried(
            Trial(
                "a revision that moves between two reads",
                words,
                out,
                (*DONE, *REFUSED),
                before=partial(_cache_in, cache),
                strike=move,
                right=whole,
                seconds=60,
                memory=3000,
            )
        )


WEIGHTS_OF = ("model.safetensors", "2_Dense/model.safetensors")


def _at_request(hub: Any, count: int, child: int) -> None:
    """Kill the child once the Hub has had so many requests."""
    end = time.monotonic() + 30
    while len(hub.requests) < count and time.monotonic() < end:
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)


def struck(place: Place, hub: Any) -> Iterator[Outcome]:
    """A push that is killed at a random moment or at a request, or told to end."""
    rng = random.Random(24)
    hub.reset()
    hub.heal()
    seconds = push(ready(place)).seconds
    for _ in range(KILLS):
        hub.reset()
        hub.heal()
        model = ready(place)
        push(model, strike=after(rng.uniform(0, seconds), signal.SIGKILL))
        yield Outcome(
            "SIGKILL at a random moment: push", finished(hub, model), "the second start sends it whole"
        )
    hub.heal()
    push(ready(place))
    for number in range(1, len(hub.requests) + 1):
        hub.reset()
        model = ready(place)
        push(model, strike=partial(_at_request, hub, number))
        yield Outcome(
            "SIGKILL at each request: push", finished(hub, model), "the second start sends it whole"
        )
    for number, status in SIGNALS.items():
        for share in (0.2, 0.5, 0.8):
            hub.reset()
            hub.heal()
            model = ready(place)
            seen = push(model, strike=after(share * seconds, number))
            why = "; ".join(wrongs(Trial("push", ["push"], None, (0, status)), seen)) or finished(hub, model)
            said = (seen.sentences or ["(done before it came)"])[-1].removeprefix("selfpos: ")
            yield Outcome(f"{signal.Signals(number).name}: push", why, said)
