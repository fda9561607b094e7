"""Xet storage, which the client takes for large files wherever `hf_xet` is installed, as it is by default,
and LFS, which it takes elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.hub.client import Client
from tests.helpers.hub.faults import REPO, contents, uploads
from tests.helpers.hub.hub_state import Hub

DOWNLOAD = "from huggingface_hub import snapshot_download as d; print('AT', d({repo!r}, cache_dir={cache!r}))"


@pytest.mark.parametrize("xet", [True, False])
def test_what_is_pushed_comes_back_with_the_same_bytes(
    xet: bool, hub: Hub, client: Client, lfs_client: Client, merged: Path, tmp_path: Path
) -> None:
    one = client if xet else lfs_client
    assert one("push", str(merged), REPO).returncode == 0
    assert any(
        request.startswith("POST /cas/v1/xorbs" if xet else "PUT /storage") for request in hub.requests
    )
    hub.heal()
    place = one.python(DOWNLOAD.format(repo=REPO, cache=str(tmp_path / "cache"))).rpartition("AT ")[2].strip()
    assert any(request.startswith("GET /xorbs") for request in hub.requests) == xet
    fetched, sent = contents(Path(place)), contents(merged)
    assert all(fetched[path] == content for path, content in sent.items() if path != "README.md")
    hub.heal()
    again = one("push", str(merged), REPO)
    assert "held all of it already" in again.stdout
    assert uploads(hub) == 0
