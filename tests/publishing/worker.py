"""A process that carries out commands of `selfpos`, one after the other, with the real Hub client. Each line in is a call, each line out its result.

One process for many calls: the client takes a second to import and reads HF_ENDPOINT when it is imported.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
import traceback
import types
from typing import Any

import huggingface_hub.utils._http as http

# The client waits up to eight seconds between its tries; here it does not.
http.time = types.SimpleNamespace(**(vars(time) | {"sleep": lambda seconds: time.sleep(min(seconds, 0.02))}))


def call(words: list[str], env: dict[str, str | None], code: str | None) -> dict[str, Any]:
    """Run `selfpos words…`, or the Python `code`; everything written to standard output and error is caught at the level of the system."""
    before = {name: os.environ.get(name) for name in env}
    _set(env)
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
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
            _set(before)
        out.seek(0)
        err.seek(0)
        return {"returncode": status, "stdout": out.read().decode(), "stderr": err.read().decode()}


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


def _set(env: dict[str, str | None]) -> None:
    for name, value in env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(call(**json.loads(line))) + "\n")
        answers.flush()
