"""Xet storage, which the client takes for large files wherever `hf_xet` is installed, as it is by default: our part must work with it, too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.publishing.conftest import Client
from tests.publishing.hub_server import XET, Hub

pytest.importorskip("hf_xet")
REPO = "alice/merged"


@pytest.fixture
def xet_client(hub: Hub, tmp_path: Path) -> Iterator[Client]:
    client = Client(hub, tmp_path / "home", xet=True)
    yield client
    client.close()


def test_push_goes_through_xet_and_is_compared_by_sha256(hub: Hub, xet_client: Client, merged: Path) -> None:
    hub.fail(r"GET .*/xet-write-token/", 403)
    refused = xet_client("push", str(merged), REPO)
    assert refused.returncode == 2
    assert "may not do this with alice/merged" in refused.sentence
    assert hub.files(REPO) == {}
    hub.heal()
    done = xet_client("push", str(merged), REPO)
    assert done.returncode == 0, done.stderr
    assert hub.xorbs
    assert not any(request.startswith("PUT /storage") for request in hub.requests)
    weights = (merged / "model.safetensors").read_bytes()
    assert hub.files(REPO)["model.safetensors"] == XET + f"{hashlib.sha256(weights).hexdigest()} {len(weights)}".encode()
    hub.heal()
    again = xet_client("push", str(merged), REPO)
    assert "held all of it already" in again.stdout
    assert not any("/commit/" in request for request in hub.requests)
