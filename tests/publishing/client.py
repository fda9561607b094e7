"""The command line in a process of its own, whose Hub is the one on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.publishing.hub_state import TOKEN, Hub

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Done:
    """What a call of the command line came to."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def sentence(self) -> str:
        """The one line that selfpos says on failing: no traceback, and no token anywhere."""
        assert "Traceback" not in self.stderr, self.stderr
        assert TOKEN not in self.stdout + self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("selfpos: ")]
        assert len(lines) == 1, self.stderr
        return lines[0]


class Client:
    """Runs the command line, or a piece of Python, in a process whose Hub is the one on loopback."""

    def __init__(self, hub: Hub, home: Path, *, xet: bool = True) -> None:
        self.env = environment(hub, home) | ({} if xet else {"HF_HUB_DISABLE_XET": "1"})
        self.temporary = home / "tmp"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.publishing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self.env,
        )

    def __call__(self, *words: str, **env: str | None) -> Done:
        """`selfpos` with `words`; `env` sets (None: unsets) environment variables for this call."""
        return self._call(list(words), env, None)

    def python(self, code: str, **env: str | None) -> str:
        """Run `code` and return what it prints; it must succeed."""
        done = self._call([], env, code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _call(self, words: list[str], env: dict[str, str | None], code: str | None) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "env": env, "code": code}) + "\n")
        self._process.stdin.flush()
        return Done(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """The environment of a process that takes `hub` for the Hugging Face Hub and keeps its cache in `home`."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1", "TMPDIR": str(home / "tmp"),
        # the Xet client waits seconds between its tries, up to six minutes; here it waits little, as often
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms", "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "3",
    }  # fmt: skip
    return kept | own
