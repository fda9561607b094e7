"""Fixtures of the publishing room: a hub on loopback, a process that talks to it, and a small merged model to
send.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.helpers.hub.client import Client
from tests.helpers.hub.hub_server import running_hub
from tests.helpers.hub.hub_state import Hub
from tests.helpers.hub.scored_run import write_manifest, write_run
from tests.helpers.models import make_specialist


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


@pytest.fixture(scope="session")
def lfs_client(_running_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client that has no Xet, so that large files go through LFS."""
    running = Client(_running_hub, tmp_path_factory.mktemp("lfs-home"), xet=False)
    yield running
    running.close()


SEEDS = count(100)


@pytest.fixture
def merged(tiny_base: Path, tmp_path: Path) -> Path:
    """A model folder that says it was merged, with a licence, ready to be sent: of weights that no other test
    has sent, since Xet remembers.
    """
    folder = make_specialist(tiny_base, tmp_path / "merged", seed=next(SEEDS))
    return write_manifest(
        folder, kind="merged", name="merged", licence="apache-2.0", merge={"method": "ties", "sources": []}
    )


@pytest.fixture
def run(tiny_base: Path, tmp_path: Path) -> Path:
    return write_run(tiny_base, tmp_path / "quick")
