"""Fixtures of the publishing room: a hub on loopback, a process that talks to it, and a small merged model to send."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.publishing.hub_server import TOKEN, Hub, running_hub

# The client waits up to eight seconds between its tries; here it does not.
_START = """
import sys, time, types
import huggingface_hub.utils._http as http
http.time = types.SimpleNamespace(**(vars(time) | {"sleep": lambda seconds: time.sleep(min(seconds, 0.02))}))
"""
_VERB = _START + "from selfpos.cli import main; main()"


@dataclass
class Client:
    """Runs the command line, or a piece of Python, as a process whose Hub is the one on loopback."""

    hub: Hub
    home: Path
    token: str | None = TOKEN
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """`selfpos` with `words`."""
        return self._run(["-c", _VERB, *words], env)

    def python(self, code: str, *words: str, **env: str) -> str:
        """Run `code` and return what it prints; it must succeed."""
        done = self._run(["-c", _START + code, *words], env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {"HF_ENDPOINT": self.hub.endpoint, "HF_HOME": str(self.home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
               "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}  # fmt: skip
        return kept | own | ({"HF_TOKEN": self.token} if self.token else {}) | self.env | env

    def _run(self, words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        root = Path(__file__).parent.parent.parent
        return subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=120, cwd=root, env=self.environment(env), check=False
        )


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub, tmp_path / "hf-home")


def write_manifest(folder: Path, **fields: object) -> Path:
    (folder / "selfpos.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


@pytest.fixture
def merged(tiny_base: Path, tmp_path: Path) -> Path:
    """A model folder that says it was merged, with a licence, ready to be sent."""
    folder = tmp_path / "merged"
    shutil.copytree(tiny_base, folder)
    return write_manifest(folder, kind="merged", name="merged", licence="apache-2.0", merge={"method": "ties", "sources": []})


Push = Callable[..., subprocess.CompletedProcess[str]]
