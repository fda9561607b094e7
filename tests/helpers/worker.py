"""A process that carries out commands of `selfpos`, one after the other. Each line in is a call, each line
out its result.

One process for many calls: torch, transformers and mteb take seconds to import, and a test of the command
line should not.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.fsync = lambda _: None  # as in tests/conftest.py


def call(words: list[str], env: dict[str, str | None], cwd: str | None, code: str | None) -> dict[str, Any]:
    """Run `selfpos words…`, or the Python `code`; standard output and error are caught at file-descriptor
    level.
    """
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, _environment(env), _folder(cwd):
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
        try:
            status = _run(words, code)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])
        out.seek(0)
        err.seek(0)
        return {"returncode": status, "stdout": out.read().decode(), "stderr": err.read().decode()}


def serve() -> None:
    """Answer calls until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(call(**json.loads(line))) + "\n")
        answers.flush()


def _run(words: list[str], code: str | None) -> int:
    from selfpos.cli import main

    try:
        if code is not None:
            exec(compile(code, "<test>", "exec"), {"__name__": "__test__"})
        else:
            sys.argv = ["selfpos", *words]
            main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def _environment(env: dict[str, str | None]) -> Iterator[None]:
    """Set the variables in `env` (None: unset) while the block runs; undo what the call itself sets."""
    before = dict(os.environ)
    for name, value in env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    try:
        yield
    finally:
        for name in [name for name in os.environ if name not in before]:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _folder(cwd: str | None) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    serve()
