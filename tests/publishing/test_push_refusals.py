"""What stops a push before anything is sent, and that the token stays where it belongs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from selfpos.errors import SelfposError
from selfpos.publishing.plan import plan_push
from selfpos.publishing.session import hide
from tests.helpers.hub.client import Client, Done, environment
from tests.helpers.hub.faults import PULLS, REPO
from tests.helpers.hub.hub_state import TOKEN, Hub
from tests.helpers.hub.scored_run import write_manifest


def nothing_was_sent(hub: Hub) -> bool:
    return not hub.repos and not any(
        request.startswith(("PUT", "POST /api/repos")) or "/commit/" in request for request in hub.requests
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["alice/a b"], "no repository id"),
        (["merged"], "write USER/NAME"),
        ([REPO, "--branch", "a..b"], "no name for a branch"),
        ([REPO, "--branch", "v2", "--pr"], "not both"),
        ([REPO, "--pr"], "nothing to propose a change to"),
        ([REPO, "--license", "My Own"], "no licence identifier"),
        ([REPO, "--collection"], "push it alone, without --collection"),
    ],
)
def test_is_refused_in_a_sentence(
    words: list[str], said: str, hub: Hub, client: Client, merged: Path
) -> None:
    done = client("push", str(merged), *words)
    assert done.returncode == 2, done.stderr
    assert said in done.sentence
    assert nothing_was_sent(hub)


def test_organisations_of_the_user_are_allowed(hub: Hub, client: Client, merged: Path) -> None:
    assert client("push", str(merged), "guild/merged").returncode == 0
    assert "models/guild/merged" in hub.repos


def test_offline_is_said(hub: Hub, tmp_path: Path, merged: Path) -> None:
    env = environment(hub, tmp_path / "home") | {"HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "selfpos", "push", str(merged), REPO]
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2
    assert Done(done.returncode, done.stdout, done.stderr).sentence.endswith(
        "needs the network, and HF_HUB_OFFLINE is set; unset it"
    )
    assert hub.requests == []


@pytest.mark.parametrize("fault", PULLS)
def test_model_that_the_hub_does_not_have_or_cannot_give(
    fault: str, hub: Hub, client: Client, merged: Path, tmp_path: Path
) -> None:
    """A wrong name is the user's mistake, exit status 2; a Hub that fails over a right one is not.

    Gone the fault, the model is there.
    """
    name, pattern, what, status, says = PULLS[fault]
    repo = f"alice/{tmp_path.name}"
    assert client("push", str(merged), repo).returncode == 0
    if what:
        hub.fail(pattern, what)
    done = client("reproduce", name.format(repo=repo))
    assert done.returncode == status, done.stderr
    assert says in done.sentence
    hub.heal()
    assert (
        "was not made by a merge" in client("reproduce", repo).sentence
    )  # fetched: its records name no parents


def test_no_hub_at_all_is_said(client: Client, merged: Path) -> None:
    """Nobody listens: the port of the client's endpoint is closed."""
    done = client.python(f"""
import huggingface_hub.constants as c
from pathlib import Path
from selfpos.errors import OperationError
from selfpos.publishing.plan import plan_push
from selfpos.publishing.push import push
import huggingface_hub.hf_api as api
kept = c.ENDPOINT
c.ENDPOINT = api.constants.ENDPOINT = "http://127.0.0.1:9"
try:
    push(plan_push(Path({str(merged)!r}), "alice/merged"))
except OperationError as error:
    print(error)
finally:
    c.ENDPOINT = api.constants.ENDPOINT = kept
""")
    assert "the connection to http://127.0.0.1:9 failed" in done


def test_token_goes_to_the_hub_and_nowhere_else(hub: Hub, client: Client, merged: Path) -> None:
    done = client("push", str(merged), REPO)
    assert f"Bearer {TOKEN}" in hub.authorizations
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in content for content in hub.files(REPO).values())
    hub.fail(r"POST .*/commit/", 400, message=f"bad token {TOKEN} in request")
    (merged / "extra.txt").write_text("more")
    told = client("push", str(merged), REPO)
    assert "***" in told.sentence
    assert TOKEN not in told.stderr


def test_token_is_not_in_what_the_libraries_log(hub: Hub, tmp_path: Path, merged: Path) -> None:
    """With every log turned on, of a push that fails in the middle."""
    loud = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "RUST_LOG": "debug", "PYTHONWARNINGS": "default"}
    hub.fail(r"POST .*/commit/", 500)
    words = [sys.executable, "-m", "selfpos", "push", str(merged), REPO]
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment(hub, tmp_path / "home") | loud, check=False
    )
    assert done.returncode == 1
    assert "/commit/" in done.stderr  # loud indeed
    assert TOKEN not in done.stdout + done.stderr
    written = [file.read_bytes() for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert not any(TOKEN.encode() in content for content in written)


def test_hide_takes_out_the_token_in_use_and_those_that_look_like_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-token-of-another-kind")
    assert hide("a-token-of-another-kind and hf_abcdefghijklmnopqrstuvwxyz0123") == "*** and ***"


def test_token_in_a_file_is_a_problem(merged: Path) -> None:
    (merged / "notes.txt").write_text(f"export HF_TOKEN={TOKEN}\n")
    (problem,) = plan_push(merged, REPO).problems
    assert problem.startswith("notes.txt holds what looks like a Hugging Face access token")
    assert TOKEN not in problem


def test_a_model_without_its_tokenizer_or_configuration_is_a_problem(merged: Path) -> None:
    for file in ("tokenizer.json", "vocab.txt"):
        (merged / file).unlink(missing_ok=True)
    assert any("has no tokenizer" in problem for problem in plan_push(merged, REPO).problems)
    (merged / "config.json").unlink()
    assert any("has no config.json" in problem for problem in plan_push(merged, REPO).problems)


def test_pickles_and_strangers_are_left_out_and_said(merged: Path) -> None:
    (merged / "training_args.bin").write_bytes(b"x")
    (merged / "core.dump").write_bytes(b"x")
    (merged / ".cache").mkdir()
    (merged / ".cache" / "secret.json").write_text("{}")
    plan = plan_push(merged, REPO)
    assert {file.path for file in plan.files}.isdisjoint(
        {"training_args.bin", "core.dump", ".cache/secret.json"}
    )
    assert "training_args.bin is left out (a pickle may hold code)" in plan.notes
    assert "core.dump is left out (no part of a model)" in plan.notes


def test_what_is_no_model_is_refused(tmp_path: Path, merged: Path) -> None:
    with pytest.raises(SelfposError, match="there is no model folder"):
        plan_push(tmp_path / "nowhere", REPO)
    with pytest.raises(SelfposError, match="neither a sentence-transformers model"):
        plan_push(tmp_path, REPO)
    weights = merged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(SelfposError, match=r"model\.safetensors is truncated"):
        plan_push(merged, REPO)


def test_own_card_is_kept_on_request_and_checked(merged: Path) -> None:
    card = merged / "README.md"
    card.write_text("---\nlicense: mit\n---\n# mine\n")
    plan = plan_push(merged, REPO)
    assert "# merged" in plan.card
    assert any("--keep-card" in note for note in plan.notes)
    kept = plan_push(merged, REPO, keep_card=True)
    assert kept.card == card.read_text()
    assert next(file for file in kept.files if file.path == "README.md").content == card
    card.write_text("---\nlicense: [unclosed\n---\n# mine\n")
    assert any(
        "metadata is not valid" in problem for problem in plan_push(merged, REPO, keep_card=True).problems
    )
    card.unlink()
    assert any("--keep-card" in problem for problem in plan_push(merged, REPO, keep_card=True).problems)


def test_records_that_go_out_name_no_local_folder(merged: Path) -> None:
    base = {"name": "/home/me/base", "path": "/home/me/base", "hash": "1"}
    parent = {"name": "sts", "path": "/home/me/sts", "hash": "2"}
    write_manifest(
        merged, kind="merge", licence="mit", base=base, merge={"method": "ties", "sources": [parent]}
    )
    plan = plan_push(merged, REPO)
    assert not any(b"/home/me" in file.read() for file in plan.files)
    sent = json.loads(next(file for file in plan.files if file.path == "selfpos.json").read())
    assert sent["base"] == {"name": "base", "hash": "1"}
    assert any(note.startswith("base, sts are not on the Hub") for note in plan.notes)
