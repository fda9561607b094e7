"""One fault tried: the command line in a process of its own, under limits, and whether it was survived.

A process is a fork of this one, which has imported the libraries, so that a start costs no seconds.
"""

from __future__ import annotations

import io
import os
import re
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil

from selfpos.errors import printable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DONE, REFUSED, STOPPED = (0,), (1, 2), (129, 130, 143)
SECONDS = 15.0  # of a processor, in which a command must have ended, unless a fault says otherwise
PATIENCE = 6  # times as long by the clock, for others may use the processors
MEMORY = 1000  # MB of address space beyond what the fork has
STEPS_TO_GO_ON = re.compile(r"\..*\.(search|checkpoints)|.*\.checkpoints")  # after a disk that is full, too
LEFT_TO_GO_ON = re.compile(r"\..*\.(tmp-[0-9a-f]+|search|checkpoints)|.*\.checkpoints")


@dataclass(frozen=True)
class Seen:
    """How a process ended: its exit status (negative: a signal, None: it ran over time), and what it said."""

    status: int | None
    out: str
    err: str
    seconds: float
    megabytes: int

    @property
    def sentences(self) -> list[str]:
        """What `selfpos` said of its end."""
        return [line for line in self.err.splitlines() if line.startswith("selfpos: ")]


@dataclass(frozen=True)
class Trial:
    """A command line under a fault.

    Args:
        fault: what is wrong; trials of one fault are counted together.
        words: the command line.
        out: what it would write.
        statuses: that may come of it.
        before: is done in the process first, such as putting a fault into it.
        strike: is done from outside while it runs, with the process's id.
        right: says what is wrong with what is there afterwards; empty where nothing is.
        seconds: of a processor, in which it ends.
        memory: MB that it may use.
        says: a pattern that the sentence matches, which may then be one of the command line's own.
    """

    fault: str
    words: Sequence[str | Path | int]
    out: Path | None = None
    statuses: Sequence[int] = REFUSED
    before: Callable[[], object] | None = None
    strike: Callable[[int], object] | None = None
    right: Callable[[Seen], str] | None = None
    seconds: float = SECONDS
    memory: int = MEMORY
    says: str = ""
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of one trial: `why` says why it was not survived, and is empty where it was."""

    fault: str
    why: str
    saw: str


def outcome(fault: str, reasons: Iterable[str], seen: Seen, saw: str = "") -> Outcome:
    """What came of a fault, by the reasons why it was not survived; empty ones count as none."""
    why = "; ".join(reason for reason in reasons if reason)
    said = saw or (seen.sentences or [f"(done, status {seen.status})"])[-1].removeprefix("selfpos: ")
    return Outcome(fault, why and f"{why}: {seen.err[-1500:]}", said)


def tried(trial: Trial) -> Outcome:
    """Carry out the trial and judge it."""
    seen = run(lambda: command_line(trial), strike=trial.strike, seconds=trial.seconds, memory=trial.memory)
    return outcome(trial.fault, wrongs(trial, seen), seen)


def wrongs(trial: Trial, seen: Seen) -> Iterator[str]:
    """Why the trial was not survived."""
    told = seen.out + seen.err
    if seen.status is None:
        yield f"ran for more than {trial.seconds:.0f} s"
        return
    if seen.status not in trial.statuses:
        yield f"status {seen.status}, expected {' or '.join(map(str, trial.statuses))}"
    if "Traceback (most recent call last)" in told:
        yield "traceback"
    if seen.status > 0 and len(seen.sentences) != 1:
        yield f"{len(seen.sentences)} sentences"
    if any(printable(line) != line for sentence in seen.sentences for line in sentence.splitlines()):
        yield "a sentence that a terminal obeys"
    if seen.status and trial.says and not re.search(trial.says, told):
        yield f"says nothing of {trial.says!r}"
    if not trial.says and any("--help)" in sentence for sentence in seen.sentences):
        yield "the command line was wrong"
    if trial.out is not None and trial.words[0] != "eval-mteb":  # its output is added to by many
        yield from left_over(trial.out, seen.status)
    if trial.right is not None and (wrong := trial.right(seen)):
        yield wrong


def left_over(out: Path, status: int) -> Iterator[str]:
    """What is half-written: an output after a refusal, or what was written beside it and is kept for none."""
    if status in REFUSED and out.exists():
        yield f"{out.name} is there"
    if out.is_dir() and (broken := unreadable(out)):
        yield f"{broken} cannot be read"
    beside = [path.name for path in out.parent.iterdir() if path.name.startswith(f".{out.name}.")]
    going_on = {True: LEFT_TO_GO_ON, False: STEPS_TO_GO_ON}[status in STOPPED]
    kept = [name for name in beside if going_on.fullmatch(name)]
    if rest := sorted(set(beside) - set(kept)):
        yield f"{rest[0]} is left"


def unreadable(folder: Path) -> str:
    """The first file in `folder` that the tools users have cannot read; empty where all are whole."""
    import json

    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.rglob("*")):
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="numpy"):
                    pass
            elif file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
        except (SafetensorError, ValueError):
            return file.relative_to(folder).as_posix()
    return ""


def command_line(trial: Trial) -> int:
    """Run the command line in this process; returns its exit status."""
    from selfpos import cli

    os.environ.update(trial.env)
    if trial.cwd is not None:
        os.chdir(trial.cwd)
    if trial.before is not None:
        trial.before()
    sys.argv = ["selfpos", *map(str, trial.words)]
    cli.selfpos = _listening(cli.selfpos)
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _listening(work: Any) -> Callable[..., object]:
    """`work` with signals let through, which `_be` holds back before it; and again after it."""

    def begun(*args: object, **kwargs: object) -> object:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        done = work(*args, **kwargs)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # one that comes now came after the work
        return done

    return begun


def run(
    work: Callable[[], int],
    *,
    strike: Callable[[int], object] | None = None,
    seconds: float = SECONDS,
    memory: int = MEMORY,
) -> Seen:
    """Do `work` in a fork of this process, with at most `memory` MB more and `seconds` of a processor."""
    sys.stdout.flush()
    sys.stderr.flush()
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()  # which no limit of files counts
    begun = time.monotonic()
    child = os.fork()
    if not child:
        _be(work, out_end, err_end, memory)
    texts: dict[int, bytes] = {out: b"", err: b""}
    for end in (out_end, err_end):
        os.close(end)
    reader = threading.Thread(target=_read, args=(texts,), daemon=True)
    reader.start()
    if strike is not None:
        strike(child)
    ended, used = _wait(child, begun, seconds)
    taken = time.monotonic() - begun
    reader.join(timeout=5)
    said = [texts[end].decode(errors="backslashreplace") for end in (out, err)]
    return Seen(ended, said[0], said[1], taken, used)


def _read(texts: dict[int, bytes]) -> None:
    """Read pipes to their ends, and close them."""
    waiting = set(texts)
    while waiting:
        for pipe in select.select(list(waiting), [], [])[0]:
            part = os.read(pipe, 65536)
            texts[pipe] += part
            if not part:
                waiting.remove(pipe)
                os.close(pipe)


def _be(work: Callable[[], int], out: int, err: int, memory: int) -> NoReturn:
    """The child: takes its limits, works, and ends without what this process would do at its end."""
    status = 1
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", write_through=True)
        sys.stderr = io.TextIOWrapper(
            io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has a process ignore
        limit = address_space() + memory * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def address_space() -> int:
    """Bytes of address space that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _wait(child: int, begun: float, seconds: float) -> tuple[int | None, int]:
    """The exit status of `child`, None where it takes longer and is killed, and the most MB that it used."""
    late = False
    process = psutil.Process(child)
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if sum(process.cpu_times()[:2]) > seconds or time.monotonic() > begun + PATIENCE * seconds:
            late = True
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    with suppress(ProcessLookupError):  # a process of its own that it left
        os.killpg(child, signal.SIGKILL)
    return (None if late else os.waitstatus_to_exitcode(status)), usage.ru_maxrss // 1000
