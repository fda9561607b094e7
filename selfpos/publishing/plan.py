"""What a push would send, decided and checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.publishing.card import MARK, Card, build_card
from selfpos.publishing.facts import MANIFEST
from selfpos.publishing.licence import Licence, Lookup
from selfpos.publishing.metadata import check_metadata, check_repo

CARD = "README.md"
KINDS = {
    ".safetensors",
    ".json",
    ".jsonl",
    ".txt",
    ".md",
    ".model",
    ".vocab",
    ".tiktoken",
    ".jinja",
    ".yaml",
    ".yml",
    ".parquet",
    ".png",
    ".svg",
}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
BARE = {"LICENSE", "NOTICE", "LICENSE.txt", ".gitattributes"}
Content = bytes  # its name within PlannedFile, whose field `bytes` hides the type
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b|\bapi_org_[A-Za-z0-9]{30,}\b")


@dataclass(frozen=True)
class PlannedFile:
    """One file to send: its path in the repository, its size, and where it is, or its content where selfpos makes it."""

    path: str
    bytes: int
    source: Path | None = None
    content: Content | None = None


@dataclass(frozen=True)
class PushPlan:
    """All that a push would do. With `problems` it will not start; `notes` tell what the user may not expect."""

    folder: Path
    repo: str
    repo_type: str
    private: bool
    branch: str | None
    pull_request: bool
    message: str
    files: tuple[PlannedFile, ...]
    card: str
    licence: Licence | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.bytes for file in self.files)


def plan_push(
    folder: Path,
    repo: str,
    *,
    private: bool = True,
    branch: str | None = None,
    pull_request: bool = False,
    message: str | None = None,
    licence: str | None = None,
    results: Path | None = None,
    keep_card: bool = False,
    lookup: Lookup | None = None,
) -> PushPlan:
    """Plan to send the model in `folder` to the Hub repository `repo`; nothing is sent or written.

    `licence` decides where none follows from the parents; `results` holds MTEB result files (`folder/results` when absent);
    `keep_card` sends `folder/README.md` as it stands; `lookup` may ask the Hub for the licence of a parent.
    What speaks against the push is listed in `problems`. Raises SelfposError only where `folder` is no model at all.
    """
    if not folder.is_dir():
        raise SelfposError(f"there is no model folder {folder}")
    problems = [*_repo_problems(repo), *_target_problems(branch, pull_request)]
    notes: list[str] = []
    files = list(_files(folder, notes))
    made = build_card(folder, repo=repo, results=results, licence=licence, lookup=lookup)
    own = folder / CARD
    text = own.read_text(encoding="utf-8") if keep_card and own.is_file() else made.text
    if keep_card and not own.is_file():
        problems.append(f"{own} does not exist; leave out --keep-card to send a generated card")
    if not keep_card:
        made_here = {**made.extras, CARD: text.encode()}
        files = [file for file in files if file.path not in made_here]
        files += [PlannedFile(name, len(content), content=content) for name, content in made_here.items()]
        if own.is_file() and MARK not in own.read_text(encoding="utf-8", errors="replace"):
            notes.append(
                f"{CARD} in the folder was not written by selfpos; the generated card is sent in its place (--keep-card sends yours)"
            )
    problems += _card_problems(made, text, keep_card)
    problems += _content_problems(folder, files)
    if not (folder / MANIFEST).is_file():
        notes.append(f"{folder} has no {MANIFEST}: the card says nothing of how the model was made, and it cannot be reproduced")
    return PushPlan(
        folder=folder, repo=repo, repo_type="model", private=private, branch=branch, pull_request=pull_request,
        message=message or f"Upload {folder.resolve().name} with selfpos", files=tuple(sorted(files, key=lambda file: file.path)), card=text,
        licence=made.licence, problems=tuple(problems), notes=tuple(notes),
    )  # fmt: skip


def _repo_problems(repo: str) -> list[str]:
    try:
        check_repo(repo)
    except SelfposError as error:
        return [str(error)]
    return []


def _target_problems(branch: str | None, pull_request: bool) -> list[str]:
    if branch is not None and pull_request:
        return ["a pull request goes to the main branch; give a branch or ask for a pull request, not both"]
    if branch is not None and not re.fullmatch(r"(?!.*(\.\.|//|@\{))[A-Za-z0-9][\w./-]*[\w-]|[A-Za-z0-9]", branch):
        return [f"'{branch}' is no name for a branch"]
    return []


def _files(folder: Path, notes: list[str]) -> Iterator[PlannedFile]:
    """The files of a model folder worth sending; what is left out is noted."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
        if not path.is_file() or (hidden and path.name not in BARE):
            continue
        if path.name in BARE or path.suffix in KINDS:
            yield PlannedFile(name, path.stat().st_size, source=path)
        else:
            reason = "a pickle may hold code" if path.suffix in PICKLES else "no part of a model"
            notes.append(f"{name} is left out ({reason})")


def _card_problems(card: Card, text: str, keep_card: bool) -> list[str]:
    problems = check_metadata(text)
    if card.licence_fault and not (keep_card and re.search(r"^license: \S", text, re.MULTILINE)):
        problems.append(card.licence_fault)
    return problems


def _content_problems(folder: Path, files: list[PlannedFile]) -> list[str]:
    """No weights, an empty file, or a Hugging Face token in a text file."""
    problems = []
    if not any(file.path.endswith(".safetensors") for file in files):
        problems.append(f"{folder} holds no safetensors weights")
    for file in files:
        if file.path.endswith((".safetensors", ".parquet", ".png", ".model")) or file.bytes > 64 * 2**20:
            continue
        content = file.content if file.content is not None else file.source.read_bytes() if file.source else b""
        if TOKEN.search(content.decode("utf-8", errors="replace")):
            problems.append(f"{file.path} holds what looks like a Hugging Face access token; remove it before publishing")
    return problems
