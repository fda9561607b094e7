"""Each verb at its work, in a folder of its own: how it is started, and what it ends with, times aside."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from place import Place
from trial import Seen, Trial, command_line, run

# what differs from start to start; the loss curve is the mean since the last checkpoint after a kill
TIMES = re.compile(
    r"second|time|date|created|started|ended|duration|host|machine|path|speed|per_s|memory|elapsed|took|phases|resumed|loss_curve"
)
SEARCH = ("--param", "rounds=1", "--param", "compare=false")


@dataclass(frozen=True)
class Work:
    """A verb's work: `words` gives its command line for a folder, in which it writes `out`."""

    name: str
    words: Callable[[Path], list]
    out: str = "out"
    seconds: float = 60
    memory: int = 3000
    adds: bool = False  # to an output that others may have begun


def works(place: Place) -> dict[str, Work]:
    """What is killed and started again."""
    recipe = place.recipe()
    # checkpoints at each step, so that a kill falls between two
    made = [
        Work("merge", lambda folder: place.merge(folder / "out")),
        Work("finetune", lambda folder: place.finetune(folder / "out")),
        Work("search", lambda folder: [*place.search(folder / "out"), *SEARCH]),
        Work("eval-mteb", lambda folder: place.score(folder / "out"), adds=True),
        Work("run", lambda folder: ["run", recipe, "--out", folder / "out"], adds=True),
    ]
    return {work.name: work for work in made}


def others(place: Place, done: Path) -> dict[str, Work]:
    """The other verbs, on the finished run in `done`."""
    from tests.helpers.models import make_specialist

    data = f"sts={place.pairs}"
    near = make_specialist(place.base, place.fresh() / "near", seed=9, size=0.002)
    general = f"sts={place.lines('general.jsonl', _pairs('k', 40))}"
    made = [
        Work(
            "retain",
            lambda folder: [
                *("retain", place.base, near, "--domain", data, "--general", general),
                *("--alpha", "0.5", "--out", folder / "out"),
            ],
        ),
        Work("analyse", lambda folder: ["analyse", done, "--batches", 2, "--out", folder / "out"], adds=True),
        Work("overlap", lambda folder: _overlap(place, data, folder)),
        Work("report", lambda folder: ["report", done, "--out", folder / "out.html"], out="out.html"),
        Work("compare", lambda folder: ["compare", done, "--out", folder / "out.md"], out="out.md"),
        Work("reproduce", lambda folder: _reproduce(done, folder)),
    ]
    return {work.name: work for work in made}


def _pairs(letter: str, count: int) -> list[dict[str, Any]]:
    return [
        {"sentence1": f"{letter} {number}", "sentence2": f"{number} x", "score": number % 5}
        for number in range(count)
    ]


def _overlap(place: Place, data: str, folder: Path) -> list:
    words = ["overlap", data, "--tasks", "STSBenchmark", "--data-dir", place.test_data]
    return [*words, "--out", folder / "out.json", "--remove", folder / "out"]


def _reproduce(done: Path, folder: Path) -> list:
    return ["reproduce", done / "merged" / "average", "--out", folder / "out"]


def contents(folder: Path, out: str) -> dict[str, str]:
    """The files of an output → hash of what they hold, without times and the folder's own name."""
    top = folder / out
    files = [top] if top.is_file() else [file for file in sorted(top.rglob("*")) if file.is_file()]
    found = {}
    for file in files:
        name = file.relative_to(folder).as_posix()
        if re.search(r"(^|/)(cache|log|figures)(/|$)|\.log$|\.lock$|\.pt$|README\.md$|\.html$", name):
            continue
        content = file.read_bytes()
        if file.suffix in (".json", ".jsonl"):
            lines = content.decode().splitlines() if file.suffix == ".jsonl" else [content.decode()]
            content = json.dumps([_timeless(json.loads(line)) for line in lines], sort_keys=True).encode()
        found[name] = hashlib.sha256(content.replace(str(folder).encode(), b".")).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(inner) for name, inner in value.items() if not TIMES.search(str(name))}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def started(work: Work, folder: Path, **fault: Any) -> Seen:
    """Start the work in `folder`, with a strike or something done before."""
    trial = Trial(work.name, work.words(folder), before=fault.get("before"))
    return run(
        lambda: command_line(trial), strike=fault.get("strike"), seconds=work.seconds, memory=work.memory
    )


def difference(found: dict[str, str], expected: dict[str, str]) -> str:
    """What is wrong with an output beside that of an uninterrupted start."""
    if missing := sorted(expected.keys() - found.keys()):
        return f"{missing[0]} is missing"
    if more := sorted(found.keys() - expected.keys()):
        return f"{more[0]} is too much"
    other = sorted(name for name in found if found[name] != expected[name])
    return f"{other[0]} differs from that of an uninterrupted start" if other else ""
