"""The command line in a process of its own, whose Hub is the one on loopback."""

from __future__ import annotations

import os
from pathlib import Path

from tests.helpers.command import CommandLine
from tests.helpers.command import Done as PlainDone
from tests.helpers.hub.hub_state import TOKEN, Hub


class Done(PlainDone):
    """The result of one call, in which no token may show."""

    @property
    def sentence(self) -> str:
        """The one line that selfpos says on failing: no traceback, and no token anywhere."""
        assert "Traceback" not in self.stderr, self.stderr
        assert TOKEN not in self.stdout + self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("selfpos: ")]
        assert len(lines) == 1, self.stderr
        return lines[0]


class Client(CommandLine):
    """Runs the command line, or a piece of Python, in a process whose Hub is the one on loopback."""

    def __init__(self, hub: Hub, home: Path, *, xet: bool = True) -> None:
        self.temporary = home / "tmp"
        super().__init__(
            "tests.helpers.hub.worker", environment(hub, home) | ({} if xet else {"HF_HUB_DISABLE_XET": "1"})
        )

    def __call__(self, *words: str | Path | int, cwd: Path | None = None, **env: str | None) -> Done:
        done = super().__call__(*words, cwd=cwd, **env)
        return Done(done.returncode, done.stdout, done.stderr)


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """The environment of a process whose Hub is `hub` and whose cache is in `home`."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
        "TMPDIR": str(home / "tmp"),
        # the Xet client waits seconds between its tries, up to six minutes; here it waits little, as often
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "3",
    }
    return kept | own
