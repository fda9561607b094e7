"""Fixtures of the publishing room: a hub on loopback, a process that talks to it, and a small merged model to send."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.publishing.hub_server import TOKEN, Hub, running_hub

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

    def __init__(self, hub: Hub, home: Path, *, xet: bool = False) -> None:
        self.env = environment(hub, home)
        if xet:
            del self.env["HF_HUB_DISABLE_XET"]
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
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    return kept | own


@pytest.fixture(scope="session")
def _running_hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(_running_hub: Hub) -> Hub:
    """The hub on loopback, empty and in good health."""
    _running_hub.reset()
    return _running_hub


@pytest.fixture(scope="session")
def client(_running_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    running = Client(_running_hub, tmp_path_factory.mktemp("hf-home"))
    yield running
    running.close()


def write_manifest(folder: Path, **fields: object) -> Path:
    (folder / "selfpos.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


@pytest.fixture
def merged(tiny_base: Path, tmp_path: Path) -> Path:
    """A model folder that says it was merged, with a licence, ready to be sent."""
    folder = tmp_path / "merged"
    shutil.copytree(tiny_base, folder)
    return write_manifest(folder, kind="merged", name="merged", licence="apache-2.0", merge={"method": "ties", "sources": []})
