"""Sending a planned model to the Hugging Face Hub, and checking that it arrived."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
    ModelCard,
    constants,
)
from huggingface_hub.errors import RepositoryNotFoundError

from selfpos.console import log
from selfpos.errors import OperationError, SelfposError, on_one_line
from selfpos.publishing.plan import PICKLES, PushPlan
from selfpos.publishing.session import AGAIN, hub
from selfpos.storage.file_kinds import MANIFEST

if TYPE_CHECKING:
    from huggingface_hub.hf_api import FolderVerification

LARGE = 8_000_000  # bytes from which a file is sent alone
WEIGHTS = {".safetensors", ".gguf", ".onnx", *PICKLES}


@dataclass(frozen=True)
class Pushed:
    """What is on the Hub now; `revision` is the commit with all files, whose hashes equal ours."""

    repo: str
    repo_type: str
    revision: str
    url: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.repo}@{self.revision}", self.url, *self.notes])


def push(plan: PushPlan) -> Pushed:
    """Carry out `plan`: create the repository if necessary, send what it lacks, and compare hashes.

    A second call after a failure sends only what is missing. Raises SelfposError, before anything is sent,
    where the plan has problems, the token is missing, wrong or too weak, or the repository holds another
    model; OperationError where the Hub or the network fails.
    """
    if plan.problems:
        raise SelfposError("; ".join(plan.problems))
    with hub(f"pushing {plan.repo}", plan.repo) as api, _staged(plan) as stage:
        user = _check_token(api, plan)
        _validate_card(api, plan)
        notes: list[str] = []
        before = _check_target(api, plan, stage, notes)
        target = _open_target(api, plan, user, exists=before is not None)
        log.info("pushing %d files, %d bytes, to %s", len(plan.files), plan.total_bytes, plan.repo)
        commit = _upload(api, plan, stage, target)
        _compare(api, plan, stage, commit)
        if commit.oid == before:
            notes.append(f"{plan.repo} held all of it already")
        url = _url(plan, commit, target)
        return Pushed(plan.repo, plan.repo_type, commit.oid, url, tuple(notes))


@contextmanager
def _staged(plan: PushPlan) -> Iterator[Path]:
    """A temporary folder laid out as the repository will be, with links to the model's files."""
    with tempfile.TemporaryDirectory(prefix="selfpos-push-") as name:
        stage = Path(name).resolve()
        for file in plan.files:
            path = stage / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(file.content, Path):
                path.symlink_to(file.content.resolve())
            else:
                path.write_bytes(file.content)
        yield stage


def _check_token(api: HfApi, plan: PushPlan) -> str:
    """The user's name; the token must allow writing, and the user belong to the repository's owner."""
    who = api.whoami()
    name, owner = str(who["name"]), plan.repo.partition("/")[0]
    if (who.get("auth") or {}).get("accessToken", {}).get("role") == "read":
        raise SelfposError(
            f"the access token of {name} may only read; make one with write permission and log in with it: "
            "`hf auth login`"
        )
    owners = {name, *(str(org.get("name")) for org in who.get("orgs") or ())}
    if not plan.pull_request and owner not in owners:
        raise SelfposError(
            f"the access token belongs to {name}, who is not in {owner}; push to {name}/… or propose a "
            "change with --pr"
        )
    return name


def _validate_card(api: HfApi, plan: PushPlan) -> None:
    """Let the Hub check the card's metadata, which it would otherwise do after the upload."""
    card = (ModelCard if plan.repo_type == "model" else DatasetCard)(plan.card, ignore_metadata_errors=False)
    try:
        card.validate(repo_type=plan.repo_type)
    except ValueError as error:
        answer = on_one_line(error)
        with suppress(ValueError, LookupError, TypeError):  # JSON with a list of errors
            answer = "; ".join(fault["message"] for fault in json.loads(answer)["errors"])
        raise SelfposError(f"the Hub does not accept the card's metadata: {answer}") from None


def _check_target(api: HfApi, plan: PushPlan, stage: Path, notes: list[str]) -> str | None:
    """The current commit of the repository, None where there is none. Raises where it holds another model."""
    try:
        info = api.repo_info(plan.repo, repo_type=plan.repo_type)
    except RepositoryNotFoundError:
        if plan.pull_request:
            raise SelfposError(
                f"{plan.repo} does not exist, so there is nothing to propose a change to; push without --pr"
            ) from None
        return None
    if bool(info.private) != plan.private:
        notes.append(f"{plan.repo} was {'private' if info.private else 'public'} before and stays so")
    if plan.pull_request or plan.replace:
        return str(info.sha)
    if plan.branch is not None:
        refs = api.list_repo_refs(plan.repo, repo_type=plan.repo_type)
        if plan.branch not in {ref.name for ref in refs.branches}:
            return str(info.sha)
    state = _verification(api, plan, stage, plan.branch)
    changed = [entry["path"] for entry in state.mismatches]
    if (stage / MANIFEST).is_file() and MANIFEST not in [*changed, *state.extra_paths]:
        # The same record, so the same model: other files may have arrived damaged or not at all.
        return str(info.sha)
    foreign = [path for path in [*state.missing_paths, *changed] if PurePosixPath(path).suffix in WEIGHTS]
    if foreign:
        raise SelfposError(
            f"{plan.repo} exists and holds another model ({', '.join(sorted(foreign)[:3])}); choose another "
            "name, another branch with --branch, a pull request with --pr, or --replace to overwrite it"
        )
    return str(info.sha)


def _open_target(api: HfApi, plan: PushPlan, user: str, *, exists: bool) -> str | None:
    """Create repository and branch if necessary; returns the revision to commit to, None for main or a new
    PR.
    """
    if plan.pull_request:
        return _open_pull_request(api, plan, user)
    if not exists:
        api.create_repo(plan.repo, repo_type=plan.repo_type, private=plan.private, exist_ok=True)
    if plan.branch is not None:
        api.create_branch(plan.repo, repo_type=plan.repo_type, branch=plan.branch, exist_ok=True)
    return plan.branch


def _open_pull_request(api: HfApi, plan: PushPlan, user: str) -> str | None:
    """The pull request that an earlier call opened: the client would open a second one."""
    requests = api.get_repo_discussions(plan.repo, repo_type=plan.repo_type, discussion_type="pull_request")
    for request in requests:
        if request.author == user and request.title == plan.message and request.status in ("open", "draft"):
            return f"refs/pr/{request.num}"
    return None


def _upload(api: HfApi, plan: PushPlan, stage: Path, target: str | None) -> CommitInfo:
    """Send all files in one commit, so that a reader never sees half of them.

    Large files are sent one after the other: a second call does not send the finished ones again.
    """
    where: dict[str, Any] = {"repo_id": plan.repo, "repo_type": plan.repo_type, "revision": target}
    where["create_pr"] = plan.pull_request and target is None
    additions = {file.path: CommitOperationAdd(file.path, str(stage / file.path)) for file in plan.files}
    for file in plan.files:
        if file.size >= LARGE:
            api.preupload_lfs_files(additions=[additions[file.path]], free_memory=False, **where)
    operations: list[Any] = list(additions.values())
    if plan.replace:  # weights of the other model must not stay beside the new ones
        missing = _verification(api, plan, stage, target).missing_paths
        stale = [path for path in missing if PurePosixPath(path).suffix in WEIGHTS]
        operations = [*map(CommitOperationDelete, stale), *operations]
    return api.create_commit(operations=operations, commit_message=plan.message, **where)


def _verification(api: HfApi, plan: PushPlan, stage: Path, revision: str | None) -> FolderVerification:
    return api.verify_repo_checksums(plan.repo, repo_type=plan.repo_type, revision=revision, local_dir=stage)


def _compare(api: HfApi, plan: PushPlan, stage: Path, commit: CommitInfo) -> None:
    """Raise OperationError unless the commit holds every file with our content, by the Hub's hashes."""
    state = _verification(api, plan, stage, commit.oid)
    wrong = sorted(entry["path"] for entry in state.mismatches)
    if wrong or state.extra_paths:
        faults = [f"{', '.join(wrong)} arrived changed"] if wrong else []
        faults += [f"{', '.join(sorted(state.extra_paths))} did not arrive"] if state.extra_paths else []
        remedy = AGAIN if (stage / MANIFEST).is_file() else "send it again with --replace"
        raise OperationError(
            f"{plan.repo}@{commit.oid[:12]} is not what was sent: {' and '.join(faults)}; do not use it; "
            f"{remedy}"
        )


def _url(plan: PushPlan, commit: CommitInfo, target: str | None) -> str:
    if commit.pr_url:
        return str(commit.pr_url)
    prefix = "" if plan.repo_type == "model" else f"{plan.repo_type}s/"
    url = f"{constants.ENDPOINT}/{prefix}{plan.repo}"
    if target and target.startswith("refs/pr/"):
        return f"{url}/discussions/{target.removeprefix('refs/pr/')}"
    return f"{url}/tree/{target}" if target else url
