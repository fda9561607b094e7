"""Every fault that a push may meet, and what comes of it: the one list behind the tests and the table in
benchmarks/results.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.hub.client import Client
from tests.helpers.hub.hub_state import READ_TOKEN, Hub

REPO = "alice/merged"
PATIENCE = "import selfpos.publishing.session as s; print(s.ANSWER_SECONDS); s.ANSWER_SECONDS = {seconds}"
UPLOADS = ("PUT /storage/", "POST /cas/v1/xorbs/")


@dataclass(frozen=True)
class Case:
    """A fault, and what the first start must come to.

    `pattern`, `what` and `more` tell the hub to fail; `env` is the client's environment; `words` are added to
    the command; `lfs`: of a client without Xet; `taken`: the name holds another model; `whole`: everything
    arrived all the same, else nothing did but an empty repository; `patience`: seconds that the client waits
    for an answer.
    """

    status: int
    says: str
    pattern: str = ""
    what: int | str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str | None] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    repo: str = REPO
    lfs: bool = False
    taken: bool = False
    whole: bool = False
    patience: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What the user saw, what was left there and here, and what a second start did when the fault was gone.

    `files` had arrived after the first start; `sent` are uploads of large files, of the first and of the
    second start.
    """

    status: int
    sentence: str
    there: str
    files: int
    here: str
    again: int
    then: str
    sent: tuple[int, int]


CASES = {
    "no token": Case(2, "no Hugging Face access token", env={"HF_TOKEN": None}),
    "wrong token (401)": Case(2, "does not accept the access token", env={"HF_TOKEN": "hf_" + "Wrong" * 7}),
    "token that may only read": Case(2, "may only read", env={"HF_TOKEN": READ_TOKEN}),
    "owner that the token has nothing to do with": Case(
        2, "belongs to alice, who is not in bob", repo="bob/merged"
    ),
    "no permission to create (403)": Case(
        2,
        "write permission",
        r"POST /api/repos/create",
        403,
        {"message": "You don't have the rights to create a model"},
    ),
    "token revoked midway (401)": Case(
        2,
        "does not accept the access token",
        r"POST .*/commit/",
        401,
        {"message": "Invalid credentials in Authorization header"},
    ),
    "no permission to upload (403)": Case(
        2, "may not do this with alice/merged", r"GET .*/xet-write-token/", 403
    ),
    "repository gone midway (404)": Case(
        2, "does not exist on the Hub", r"POST .*/preupload/", 404, {"code": "RepoNotFound"}
    ),
    "name taken by another model": Case(2, "holds another model", taken=True),
    "name taken by what the token may not see (409)": Case(
        2,
        "the access token may not see it",
        r"POST /api/repos/create",
        409,
        {
            "message": "You already created this model repo",
            "body": {"url": "https://huggingface.co/alice/merged"},
        },
    ),
    "changed by someone else meanwhile (412)": Case(
        1, "someone else changed", r"POST .*/commit/", 412, {"message": "A commit has happened since"}
    ),
    "too many requests (429, retry-after 30)": Case(
        1, "wait 30 s", r"POST .*/preupload/", 429, {"headers": {"Retry-After": "30"}}
    ),
    "too many requests for storage (429)": Case(
        1, "accepts no more requests", r"POST /cas/v1/xorbs", 429, {"headers": {"Retry-After": "1"}}
    ),
    "storage quota (403)": Case(
        1,
        "has no room for it",
        r"POST .*/commit/",
        403,
        {"message": "Private repository storage limit reached"},
    ),
    "fault of the Hub (500) on storage": Case(1, "has a fault, status 500", r"POST /cas/v1/xorbs", 500),
    "fault of the Hub (500) on the list of chunks": Case(
        1, "has a fault, status 500", r"POST /cas/v1/shards", 500
    ),
    "fault of the Hub (500) on the commit": Case(1, "has a fault, status 500", r"POST .*/commit/", 500),
    "passing faults (503 twice)": Case(0, "", r"POST /cas/v1/xorbs", 503, {"times": 2}, whole=True),
    "metadata that the Hub does not accept (400)": Case(
        2, '"license" must be one of', words=("--license", "not-a-licence")
    ),
    "a web page for an answer": Case(1, "is not the Hub's", r"GET /api/whoami", "page"),
    "connection cut at the start": Case(1, "the connection to", r"GET /api/whoami", "cut"),
    "connection cut while uploading": Case(1, "the connection to", r"POST /cas/v1/xorbs", "cut"),
    "connection cut while committing": Case(1, "the connection to", r"POST .*/commit/", "cut"),
    "answer lost after committing": Case(1, "the connection to", r"POST .*/commit/", "lost", whole=True),
    "slow (half a second an answer)": Case(0, "", r"", "slow", {"seconds": 0.5, "times": 2}, whole=True),
    "no answer at all": Case(
        1, "did not answer for 0.2 s", r"POST .*/preupload/", "stall", {"seconds": 1.0}, patience=0.2
    ),
    "upload damaged on its way": Case(
        1, "as it does with damaged data", r"POST /cas/v1/xorbs", "corrupt", {"times": 1}
    ),
    "LFS: fault of the Hub (500) on storage": Case(
        1, "has a fault, status 500", r"PUT /storage", 500, lfs=True
    ),
    "LFS: connection cut while uploading": Case(1, "the connection to", r"PUT /storage", "cut", lfs=True),
    "LFS: connection cut at the second file": Case(
        1, "the connection to", r"PUT /storage", "cut", {"skip": 1}, lfs=True
    ),
    "LFS: upload damaged on its way": Case(
        1, "arrived changed", r"PUT /storage", "corrupt", {"times": 1}, lfs=True, whole=True
    ),
}


# Of `selfpos reproduce NAME` with a name of the Hub that is not in the client's cache: the name, what fails
# of which requests, status and words of what the user sees.
PULLS: dict[str, tuple[str, str, int | str, int, str]] = {
    "no such model (404)": ("alice/nobody", "", "", 2, "no model of that name"),
    "no such revision (404)": ("{repo}@v9", "", "", 2, "no revision v9"),
    "token refused (401)": ("{repo}", r"GET /api/models/", 401, 2, "does not accept the access token"),
    "fault of the Hub (503)": ("{repo}", r"GET /api/models/", 503, 1, "did not supply it"),
    "connection cut while a small file is fetched": (
        "{repo}",
        r"GET .*/resolve/",
        "cut",
        1,
        "did not supply it",
    ),
    "no permission for Xet (403)": ("{repo}", r"GET .*/xet-read-token/", 403, 1, "did not supply it"),
    "connection cut while chunks are fetched": ("{repo}", r"GET /xorbs/", "cut", 1, "did not supply it"),
    "head of a chunk damaged on its way": ("{repo}", r"GET /xorbs/", "corrupt", 1, "did not supply it"),
}


def play(case: Case, hub: Hub, client: Client, model: Path, other: Path) -> Outcome:
    """Push `model` into the fault, and again without it; `other` is the model that holds the name where it is
    taken.
    """
    if case.taken:
        assert client("push", str(other), case.repo).returncode == 0
        hub.heal()
    before = contents(model)
    if case.what:
        hub.fail(case.pattern, case.what, **case.more)
    if case.patience is not None:
        kept = client.python(PATIENCE.format(seconds=case.patience)).strip()
    first = client("push", str(model), case.repo, *case.words, **case.env)
    if case.patience is not None:
        client.python(PATIENCE.format(seconds=kept))
    sentence = first.sentence if first.returncode else first.stdout.strip().splitlines()[0]
    (there, files), sent = _there(hub, case), uploads(hub)
    leftovers = list(client.temporary.glob("selfpos-push-*"))
    here = "unchanged" if contents(model) == before and not leftovers else "CHANGED"
    hub.heal()
    second = client("push", str(model), case.repo, *(["--replace"] if case.taken else []))
    then = second.sentence if second.returncode else f"finishes{', with --replace' if case.taken else ''}"
    return Outcome(
        first.returncode, sentence, there, files, here, second.returncode, then, (sent, uploads(hub))
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _there(hub: Hub, case: Case) -> tuple[str, int]:
    """What the hub holds, and the number of files in the repository."""
    repo = hub.repos.get(f"models/{case.repo}")
    if repo is None:
        return "nothing", 0
    files = len(hub.files(case.repo))
    if files:
        return "the other model" if case.taken else f"all {files} files", files
    stored = f", {len(hub.objects)} of 2 large files stored" if hub.objects else ""
    return f"an empty {'private' if repo.private else 'public'} repository{stored}", 0


def uploads(hub: Hub) -> int:
    """Requests that sent large files, or packs of them."""
    return sum(request.startswith(UPLOADS) for request in hub.requests)


def other_model(model: Path, folder: Path) -> Path:
    """A copy of `model` with other weights and another story."""
    copy = Path(shutil.copytree(model, folder))
    for weights in copy.rglob("*.safetensors"):
        content = bytearray(weights.read_bytes())
        content[-4] ^= 1
        weights.write_bytes(bytes(content))
    manifest = copy / "selfpos.json"
    manifest.write_text(
        manifest.read_text(encoding="utf-8").replace('"merged"', '"other"', 1), encoding="utf-8"
    )
    return copy
