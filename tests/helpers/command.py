"""The command line in tests: in a warm process that serves many calls, or in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
"""`torchrun` in this environment; what to run follows."""


@dataclass(frozen=True)
class Done:
    """The result of one call of the command line."""

    returncode: int
    stdout: str
    stderr: str


class CommandLine:
    """Runs `selfpos` commands, or pieces of Python, in one process that stays warm."""

    def __init__(self, module: str = "tests.helpers.worker", env: dict[str, str] | None = None) -> None:
        self.env = dict(os.environ) if env is None else env
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self.env,
        )

    def __call__(self, *words: str | Path | int, cwd: Path | None = None, **env: str | None) -> Done:
        """`selfpos` with `words`; `env` sets (None: unsets) environment variables for this call."""
        return self._call([str(word) for word in words], env, cwd, None)

    def python(self, code: str, **env: str | None) -> str:
        """Run `code` and return what it prints; it must succeed."""
        done = self._call([], env, None, code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _call(self, words: list[str], env: dict[str, str | None], cwd: Path | None, code: str | None) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"words": words, "env": env, "cwd": str(cwd) if cwd else None, "code": code}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Done(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def own_process(*words: str | Path, cwd: Path | None = None, **env: str) -> Done:
    """`selfpos` with `words` in a process of its own: slower, for exit statuses, signals and imports."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | env
    command = [sys.executable, "-m", "selfpos", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def starting(tmp_path: Path, before: str) -> dict[str, str]:
    """The environment in which `selfpos` does `before` and then what `struck` does."""
    start = f"import signal, selfpos.cli\n{before}\nselfpos.cli.selfpos = struck\n"
    (tmp_path / "sitecustomize.py").write_text(start, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def said(done: Done) -> str:
    """The one sentence of a refused command (exit status 2); fails where there is a traceback."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr
