"""Pushing with the real client over real HTTP: what arrives, what a second start sends, and what each fault
leaves on either side.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.helpers.hub.client import Client
from tests.helpers.hub.faults import CASES, REPO, contents, other_model, play, uploads
from tests.helpers.hub.hub_state import Hub
from tests.helpers.hub.scored_run import write_manifest
from tests.helpers.models import make_specialist

WEIGHTS = {"model.safetensors", "2_Dense/model.safetensors"}
CONTENT = WEIGHTS | {"config.json", "modules.json", "README.md", "selfpos.json", "tokenizer.json"}


def test_push_sends_the_folder_and_says_where_it_is(hub: Hub, client: Client, merged: Path) -> None:
    before = {path: path.read_bytes() for path in merged.rglob("*") if path.is_file()}
    done = client("push", str(merged), REPO, "--message", "first light")
    assert done.returncode == 0, done.stderr
    files = hub.files(REPO)
    assert set(files) >= CONTENT
    assert all(
        files[path.relative_to(merged).as_posix()] == content
        for path, content in before.items()
        if path.name != "README.md"
    )
    assert {path: path.read_bytes() for path in merged.rglob("*") if path.is_file()} == before
    repo = hub.model(REPO)
    assert repo.private
    assert repo.messages[-1] == "first light"
    assert done.stdout.splitlines()[:2] == [f"{REPO}@{repo.branches['main']}", f"{hub.endpoint}/{REPO}"]


def test_public_by_flag_and_never_changed_afterwards(hub: Hub, client: Client, merged: Path) -> None:
    assert client("push", str(merged), REPO, "--public").returncode == 0
    assert not hub.model(REPO).private
    again = client("push", str(merged), REPO)
    assert "was public before and stays so" in again.stdout
    assert not hub.model(REPO).private


def test_second_push_of_the_same_sends_nothing(hub: Hub, client: Client, merged: Path) -> None:
    client("push", str(merged), REPO)
    hub.heal()
    done = client("push", str(merged), REPO)
    assert done.returncode == 0, done.stderr
    assert "held all of it already" in done.stdout
    assert uploads(hub) == 0
    assert not any("/commit/" in request for request in hub.requests)


def test_dry_run_speaks_to_nobody(hub: Hub, client: Client, merged: Path) -> None:
    done = client("push", str(merged), REPO, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    assert "model.safetensors" in done.stdout
    assert "base_model_relation" not in done.stdout  # no parent is on the Hub
    assert "# merged" in done.stdout


def test_branch_is_made_and_main_stays(hub: Hub, client: Client, merged: Path) -> None:
    client("push", str(merged), REPO)
    main = hub.model(REPO).branches["main"]
    other = make_specialist(merged, merged.parent / "other", seed=5)
    done = client("push", str(other), REPO, "--branch", "v2")
    assert done.returncode == 0, done.stderr
    assert hub.model(REPO).branches["main"] == main
    assert hub.files(REPO, "v2")["model.safetensors"] == (other / "model.safetensors").read_bytes()
    assert done.stdout.splitlines()[1].endswith("/tree/v2")


def test_pull_request_is_opened_once_and_continued(hub: Hub, client: Client, merged: Path) -> None:
    client("push", str(merged), REPO)
    other = make_specialist(merged, merged.parent / "other", seed=5)
    first = client("push", str(other), REPO, "--pr", "--message", "better weights")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[1].endswith("/discussions/1")
    assert hub.files(REPO)["model.safetensors"] == (merged / "model.safetensors").read_bytes()
    assert hub.files(REPO, "refs/pr/1")["model.safetensors"] == (other / "model.safetensors").read_bytes()
    shutil.copy(merged / "config.json", other / "extra.json")
    second = client("push", str(other), REPO, "--pr", "--message", "better weights")
    assert second.stdout.splitlines()[1].endswith("/discussions/1")
    assert len(hub.model(REPO).discussions) == 1
    assert "extra.json" in hub.files(REPO, "refs/pr/1")


def test_name_taken_by_another_model_is_refused_unless_replaced(
    hub: Hub, client: Client, merged: Path
) -> None:
    other = make_specialist(merged, merged.parent / "other", seed=5)
    write_manifest(other, name="other", licence="mit", kind="merged")
    (other / "2_Dense" / "model.safetensors").rename(other / "2_Dense" / "old.safetensors")
    assert client("push", str(other), REPO).returncode == 0
    stood = hub.files(REPO)
    refused = client("push", str(merged), REPO)
    assert refused.returncode == 2
    assert "holds another model" in refused.sentence
    assert hub.files(REPO) == stood
    assert client("push", str(merged), REPO, "--replace").returncode == 0
    assert hub.files(REPO)["model.safetensors"] == (merged / "model.safetensors").read_bytes()
    assert "2_Dense/old.safetensors" not in hub.files(REPO)


@pytest.mark.parametrize("xet", [True, False])
def test_large_files_that_arrived_are_not_sent_again(
    xet: bool, hub: Hub, client: Client, lfs_client: Client, merged: Path
) -> None:
    """Interrupted for good at the third of four, files are sent from there on."""
    rng = np.random.default_rng(xet)
    for piece in range(4):
        save_file(
            {f"w{piece}": rng.standard_normal(100_000, dtype=np.float32)},
            merged / f"piece-{piece}.safetensors",
        )
    one, pattern = (client, "POST /cas/v1/xorbs/") if xet else (lfs_client, "PUT /storage/")
    limit = int(one.python("import selfpos.publishing.push as p; print(p.LARGE); p.LARGE = 100_000"))
    try:
        hub.fail(pattern, "cut", skip=2)
        broken = one("push", str(merged), REPO)
        assert "the connection to" in broken.sentence
        assert hub.files(REPO) == {}
        assert hub.received > 700_000
        hub.heal()
        assert one("push", str(merged), REPO).returncode == 0
        assert 700_000 < hub.received < 900_000 + 200_000  # two pieces, and the model's own weights
    finally:
        one.python(f"import selfpos.publishing.push as p; p.LARGE = {limit}")
    assert hub.files(REPO)["piece-0.safetensors"] == (merged / "piece-0.safetensors").read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_fault_is_told_in_a_sentence_and_a_second_start_finishes(
    name: str, hub: Hub, client: Client, lfs_client: Client, merged: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    found = play(
        case, hub, lfs_client if case.lfs else client, merged, other_model(merged, tmp_path / "other")
    )
    assert found.status == case.status, found.sentence
    assert case.says in found.sentence
    assert found.here == "unchanged"
    if case.repo != REPO:
        assert (found.again, hub.repos) == (2, {})
        return
    assert (found.again, found.files > 0) == (0, case.whole or case.taken), (
        found
    )  # nothing half: all files, or none
    assert {path: hub.files(REPO)[path] for path in WEIGHTS} == {
        path: contents(merged)[path] for path in WEIGHTS
    }
    assert set(hub.files(REPO)) >= CONTENT
    if "commit" in case.pattern:
        assert found.sent[1] == 0  # what was stored before is not sent again
