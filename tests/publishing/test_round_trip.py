"""End to end: specialists merged, published with their parents, loaded by id as a stranger would, and made
again byte for byte.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from selfpos.publishing.plan import plan_push
from selfpos.storage.hashing import content_hash
from tests.helpers.hub.client import Client
from tests.helpers.hub.hub_state import Hub
from tests.helpers.hub.scored_run import write_manifest
from tests.helpers.models import make_specialist

TEXTS = ["a bc d", "e", "f g h i j k"]
ENCODE = """
import json
from sentence_transformers import SentenceTransformer
model = SentenceTransformer({name!r}, device="cpu")
rows = [model.encode_query({texts!r}).tolist(), model.encode_document({texts!r}).tolist()]
print("EMBEDDINGS" + json.dumps(rows))
"""


def stranger(client: Client) -> Client:
    """`client` as a process on another machine is: its cache is empty."""
    for folder in ("hub", "xet"):
        shutil.rmtree(client.temporary.parent / folder, ignore_errors=True)
    return client


def encode(client: Client, name: str) -> np.ndarray:
    printed = client.python(ENCODE.format(name=name, texts=TEXTS))
    return np.array(json.loads(printed.partition("EMBEDDINGS")[2]))


@pytest.fixture
def family(hub: Hub, client: Client, tiny_base: Path, tmp_path: Path) -> Path:
    """A folder with two local specialists, `retrieval` and `sts`, of a base that is published as alice/base,
    and their merge.
    """
    done = client("push", str(tiny_base), "alice/base", "--license", "apache-2.0")
    assert done.returncode == 0, done.stderr
    base = {"name": "alice/base", "repo": "alice/base", "hash": content_hash(tiny_base)}
    for seed, name in enumerate(["retrieval", "sts"], start=1):
        write_manifest(
            make_specialist(tiny_base, tmp_path / name, seed=seed),
            kind="specialist",
            name=name,
            base=base,
            tasks={name: {"type": name}},
        )
    vectors = [str(tmp_path / name) for name in ("retrieval", "sts")]
    done = client(
        "merge",
        "--base",
        "alice/base",
        "--vectors",
        *vectors,
        "--method",
        "ties",
        "--out",
        str(tmp_path / "merged"),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.mark.slow
def test_collection_is_published_loaded_and_reproduced(hub: Hub, client: Client, family: Path) -> None:
    dry = client("push", str(family / "merged"), "alice/quick", "--collection", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert set(hub.repos) == {"models/alice/base"}

    done = client("push", str(family / "merged"), "alice/quick", "--collection")
    assert done.returncode == 0, done.stderr
    assert set(hub.repos) == {
        f"models/alice/{name}" for name in ("base", "quick", "quick-retrieval", "quick-sts")
    }
    (collection,) = hub.collections.values()
    assert [item["id"] for item in collection["items"]] == [
        "alice/quick",
        "alice/quick-retrieval",
        "alice/quick-sts",
    ]
    assert "collection: " in done.stdout
    sent = json.loads(hub.files("alice/quick")["selfpos.json"])
    commit = hub.model("alice/quick-sts").branches["main"]
    assert {"name": "sts", "repo": "alice/quick-sts", "revision": commit}.items() <= sent["merge"]["sources"][
        1
    ].items()
    assert not any(
        str(family).encode() in content
        for name in hub.repos
        for content in hub.files(name.removeprefix("models/")).values()
    )
    card = hub.files("alice/quick")["README.md"].decode()
    assert "base_model:\n- alice/base\n- alice/quick-retrieval\n- alice/quick-sts\n" in card
    assert "license: apache-2.0\n" in card

    from sentence_transformers import SentenceTransformer

    mine = SentenceTransformer(str(family / "merged"), device="cpu")
    np.testing.assert_array_equal(
        encode(stranger(client), "alice/quick"),
        np.array([mine.encode_query(TEXTS), mine.encode_document(TEXTS)]),
    )

    local = family / "elsewhere"
    local.mkdir()
    for name in ("retrieval", "sts"):
        shutil.move(family / name, local / name)  # gone from where they were: the Hub has them
    again = stranger(client)("reproduce", "alice/quick", "--out", str(family / "again"))
    assert again.returncode == 0, again.stderr
    assert "byte for byte" in again.stdout
    for file in ("model.safetensors", "2_Dense/model.safetensors", "config.json", "tokenizer.json"):
        assert (
            (family / "again" / file).read_bytes()
            == (family / "merged" / file).read_bytes()
            == hub.files("alice/quick")[file]
        )


@pytest.mark.slow
def test_collection_stopped_halfway_continues_without_repeating(
    hub: Hub, client: Client, family: Path
) -> None:
    hub.fail(r"POST /api/models/alice/quick-sts/commit", 500)
    words = ["push", str(family / "merged"), "alice/quick", "--collection"]
    broken = client(*words)
    assert broken.returncode == 1
    assert "status 500" in broken.sentence
    assert "models/alice/quick" not in hub.repos
    assert hub.collections == {}
    first = hub.model("alice/quick-retrieval").branches["main"]
    hub.heal()
    done = client(*words)
    assert done.returncode == 0, done.stderr
    assert hub.model("alice/quick-retrieval").branches["main"] == first
    hub.heal()
    assert client(*words).returncode == 0
    assert not any("/commit/" in request for request in hub.requests)
    assert len(hub.collections) == 1


@pytest.mark.slow
def test_positioned_model_with_its_probe_set(hub: Hub, client: Client, family: Path) -> None:
    """Coefficients that were searched for: the records go into the weight files, so what publishing adds must
    not change the bytes.
    """
    probe = family / "probe"
    probe.mkdir()
    lines = [
        {"task": "retrieval", "type": "retrieval", "record": {"anchor": f"a{row}", "positive": "b"}}
        for row in range(3)
    ]
    (probe / "probe.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    client.python(f"""
from pathlib import Path
from selfpos.merging import merge
from selfpos.storage.locate import locate_model
from selfpos.publishing.card import write_card
folder = Path({str(family)!r})
found = {{"coefficients": [0.7, 0.4], "losses": {{"retrieval": 1.0}}, "steps": 9, "step": 8}}
found |= {{"seed": 3, "seconds": 1.5}}
vectors = [folder / "retrieval", folder / "sts"]
merge(locate_model("alice/base"), vectors, "linear", folder / "sp", weights=[0.7, 0.4],
      provenance={{"positioning": found}})
write_card(folder / "sp")
""")
    words = ["push", str(family / "sp"), "alice/sp", "--collection", "--probe", str(probe)]
    assert "--probe-license ID publishes it" in client(*words, "--dry-run").stdout
    done = client(*words, "--probe-license", "cc0-1.0")
    assert done.returncode == 0, done.stderr
    sent = hub.repos["datasets/alice/sp-probe"].tree("main") or {}
    assert sent["probe.jsonl"][0] == (probe / "probe.jsonl").read_bytes()
    assert b"license: cc0-1.0\n" in sent["README.md"][0]
    assert b"| retrieval | retrieval | 3 |" in sent["README.md"][0]
    card = hub.files("alice/sp")["README.md"].decode()
    assert "datasets:\n- alice/sp-probe\n" in card
    assert "Merged by **self-positioning**" in card
    (collection,) = hub.collections.values()
    assert {"id": "alice/sp-probe", "type": "dataset"}.items() <= collection["items"][-1].items()
    again = stranger(client)("reproduce", "alice/sp")
    assert again.returncode == 0, again.stderr
    assert "byte for byte" in again.stdout


def test_local_folder_is_reproduced_in_place(client: Client, family: Path) -> None:
    done = client("reproduce", str(family / "merged"))
    assert done.returncode == 0, done.stderr
    assert "byte for byte" in done.stdout


def test_folders_of_this_disk_are_in_no_file_that_goes_out(
    client: Client, family: Path, tiny_base: Path
) -> None:
    """A base and vectors given as folders: their paths are in the local records, and nowhere in what is
    published.
    """
    vectors = [str(family / name) for name in ("retrieval", "sts")]
    done = client(
        "merge",
        "--base",
        str(tiny_base),
        "--vectors",
        *vectors,
        "--method",
        "slerp",
        "--out",
        str(family / "local"),
    )
    assert done.returncode == 0, done.stderr
    assert str(tiny_base) in (family / "local" / "selfpos.json").read_text()
    plan = plan_push(family / "local", "alice/local", licence="mit")
    assert plan.problems == ()
    for file in plan.files:
        assert str(tiny_base).encode() not in file.read(), file.path
        assert str(family).encode() not in file.read(), file.path
    assert client("reproduce", str(family / "local")).returncode == 0


def test_changed_weights_are_told_tensor_by_tensor(client: Client, family: Path) -> None:
    weights = family / "merged" / "2_Dense" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    done = client("reproduce", str(family / "merged"))
    assert done.returncode == 1
    assert "2_Dense/model.safetensors differs (1 of 2 tensors" in done.sentence


def test_parent_that_is_gone_is_asked_for_and_another_is_refused(client: Client, family: Path) -> None:
    (family / "sts").rename(family / "moved")
    gone = client("reproduce", str(family / "merged"))
    assert gone.returncode == 2
    assert "--parent sts=FOLDER" in gone.sentence
    assert client("reproduce", str(family / "merged"), "--parent", f"sts={family / 'moved'}").returncode == 0
    wrong = client("reproduce", str(family / "merged"), "--parent", f"sts={family / 'retrieval'}")
    assert wrong.returncode == 2
    assert "expected content hash" in wrong.sentence


def test_what_was_not_merged_is_refused(client: Client, family: Path, tiny_base: Path) -> None:
    trained = client("reproduce", str(family / "sts"))
    assert trained.returncode == 2
    assert "not made by a merge" in trained.sentence
    assert "no selfpos.json" in client("reproduce", str(tiny_base)).sentence
