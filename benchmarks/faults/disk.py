"""A disk that is full, files that may not grow, folders and files that may not be written or read, and two
starts on one output.
"""

from __future__ import annotations

import ctypes
import resource
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from kills import after, again, unharmed
from place import Place
from trial import DONE, REFUSED, Outcome, Seen, Trial, command_line, left_over, outcome, run, tried, wrongs
from works import Work, contents, difference, others, started, works

SIZES = (4, 12, 40, 120, 400, 1200)  # kB that fit on the disk
GROWTH = (100, 2_000, 20_000, 60_000)  # bytes to which a file may grow


def outcomes(place: Place) -> Iterator[Outcome]:
    done = place.fresh()
    first = works(place)
    assert started(first["run"], done).status == 0, "the run does not work unharmed"
    everything = first | others(place, done / "out")
    for work in everything.values():
        expected, seconds = unharmed(place, work)
        for size in SIZES:
            yield full(place, work, expected, size)
        for most in GROWTH:
            yield grown(place, work, expected, most)
        yield from unwritable(place, work)
        if work.name not in ("report", "compare"):
            yield from twice(place, work, expected, seconds)
    for trial in unreadable_inputs(place):
        yield tried(trial)


# ---------------------------------------------------------------- full


def full(place: Place, work: Work, expected: dict[str, str], size: int) -> Outcome:
    """The work in a file system of so many kB, where one can be mounted."""
    folder = place.fresh()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        return Outcome(f"a full disk: {work.name}", "no file system could be mounted (root is needed)", "")
    try:
        seen = started(work, folder)
        subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)  # for a second start
        return _judged(f"a full disk: {work.name}", work, folder, seen, expected)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def grown(place: Place, work: Work, expected: dict[str, str], most: int) -> Outcome:
    """The work where no file may have more than so many bytes."""
    folder = place.fresh()
    limited = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))
    seen = started(work, folder, before=limited)
    return _judged(f"files that may not grow: {work.name}", work, folder, seen, expected)


def _judged(fault: str, work: Work, folder: Path, seen: Seen, expected: dict[str, str]) -> Outcome:
    trial = Trial(fault, [work.name], None, (0, 1))
    why = [*wrongs(trial, seen)]
    if seen.status == 0:
        why += [difference(contents(folder, work.out), expected)]
    elif work.adds:  # what it has done may stay, for a second start to go on with
        why += [again(work, folder, expected)]
    elif seen.status is not None:
        why += left_over(folder / work.out, seen.status)
    return outcome(fault, why, seen, "" if seen.status else "(done: it fits)")


# ---------------------------------------------------------------- permissions

NO_RIGHTS = (1, 2)  # capabilities of root: to write, and to read, what others may not


def as_anyone() -> None:
    """Have this process obey permissions, as one that is not root does."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()
    libc.capget(header, held)
    for right in NO_RIGHTS:
        held[0] &= ~(1 << right)
        held[1] &= ~(1 << right)
    if libc.capset(header, held):
        raise OSError(ctypes.get_errno(), "capset")


def unwritable(place: Place, work: Work) -> Iterator[Outcome]:
    folder = place.fresh()
    fault = f"an output that may not be written: {work.name}"
    folder.chmod(0o555)
    seen = started(work, folder, before=as_anyone)
    reasons = [*wrongs(Trial(fault, [work.name], None, REFUSED), seen)]
    reasons += [f"{path.name} is there" for path in folder.iterdir()]
    folder.chmod(0o755)
    yield outcome(fault, reasons, seen)


def unreadable_inputs(place: Place) -> Iterator[Trial]:
    """Files and folders of what is given that may not be read."""
    for name in ("model.safetensors", "config.json", "modules.json", "1_Pooling", ".", "tokenizer.json"):
        for verb in (place.merge, place.finetune, None):
            model = place.copy(place.base)
            (model / name).chmod(0)
            out = place.fresh() / "out"
            words = verb(out, base=model) if verb else place.score(out, model=model)
            # a merge copies no side file that it cannot read, and says so or refuses
            yield Trial("a model that may not be read", words, out, before=as_anyone, memory=2000)
    for words_of in (
        lambda file, out: place.finetune(out, data=file),
        lambda file, out: ["run", file, "--out", out],
        lambda file, out: ["merge", file, "--out", out],
        lambda file, out: [*place.merge(out, method="self-positioning"), "--probe", file],
    ):
        file = place.fresh() / "x.jsonl"
        shutil.copy(place.pairs, file)
        file.chmod(0)
        out = place.fresh() / "out"
        says = "not readable|Permission denied"
        yield Trial(
            "a file that may not be read", words_of(file, out), out, before=as_anyone, memory=2000, says=says
        )


# ---------------------------------------------------------------- two at once


def twice(place: Place, work: Work, expected: dict[str, str], seconds: float) -> Iterator[Outcome]:
    """A second start on an output that a first one is writing."""
    for share in (0.05, 0.3, 0.6):
        folder = place.fresh()
        second: list[Seen] = []

        def begin(child: int, folder: Path = folder, share: float = share, seen: list[Seen] = second) -> None:
            after(share * seconds, 0)(child)  # signal 0 only asks whether it is there
            seen.append(
                run(lambda: command_line(Trial(work.name, work.words(folder))), memory=3000, seconds=60)
            )

        first = started(work, folder, strike=begin)
        fault = f"two starts on one output: {work.name}"
        statuses = (*DONE, *REFUSED)
        why = [*wrongs(Trial(fault, [work.name], None, statuses), first)]
        why += wrongs(Trial(fault, [work.name], None, statuses), second[0])
        if {first.status, second[0].status}.isdisjoint(DONE):
            why.append(f"none of the two was done: {first.err[-200:]} {second[0].err[-200:]}")
        why.append(again(work, folder, expected))
        said = [*second[0].sentences, *first.sentences, "(both done)"][0].removeprefix("selfpos: ")
        yield Outcome(fault, "; ".join(reason for reason in why if reason), said)
