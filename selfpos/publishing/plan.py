"""What a push would send, decided and checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.publishing.card import MARK, Card, build_card
from selfpos.publishing.licence import Licence, Lookup
from selfpos.publishing.metadata import check_metadata, check_repo
from selfpos.publishing.scores import FOLDER, Scores, published
from selfpos.storage.manifest import MANIFEST

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
    replace: bool
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

    def text(self) -> str:
        """The plan for a person: where to, what, the card, notes and problems."""
        place = "a pull request to " if self.pull_request else f"branch {self.branch} of " if self.branch else ""
        visible = "private" if self.private else "public"
        lines = [f"to {place}{self.repo} ({visible} where it is new): {len(self.files)} files, {_size(self.total_bytes)}", ""]
        lines += [f"{_size(file.bytes):>10}  {file.path}" for file in self.files]
        lines += ["", self.card.strip(), ""]
        lines += [f"note: {note}" for note in self.notes] + [f"problem: {problem}" for problem in self.problems]
        return "\n".join(lines).rstrip()


def plan_push(
    folder: Path,
    repo: str,
    *,
    private: bool = True,
    branch: str | None = None,
    pull_request: bool = False,
    replace: bool = False,
    message: str | None = None,
    licence: str | None = None,
    results: Path | None = None,
    keep_card: bool = False,
    lookup: Lookup | None = None,
) -> PushPlan:
    """Plan to send the model in `folder` to the Hub repository `repo`; nothing is sent or written.

    With `branch` or `pull_request` it goes there instead of to the main branch; `replace` lets it overwrite another model.
    `licence` decides where none follows from the parents; `results` holds scores, as for `card.write_card`;
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
        files = _with_scores(files, made.scores)
        if own.is_file() and MARK not in own.read_text(encoding="utf-8", errors="replace"):
            notes.append(
                f"{CARD} in the folder was not written by selfpos; the generated card is sent in its place (--keep-card sends yours)"
            )
    problems += _card_problems(made, text, keep_card)
    problems += _content_problems(folder, files)
    if not (folder / MANIFEST).is_file():
        notes.append(f"{folder} has no {MANIFEST}: the card says nothing of how the model was made, and it cannot be reproduced")
    return PushPlan(
        folder=folder, repo=repo, repo_type="model", private=private, branch=branch, pull_request=pull_request, replace=replace,
        message=message or f"Upload {folder.resolve().name} with selfpos", files=tuple(sorted(files, key=lambda file: file.path)), card=text,
        licence=made.licence, problems=tuple(problems), notes=tuple(notes),
    )  # fmt: skip


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.3g} GB"


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


def _with_scores(files: list[PlannedFile], scores: Scores | None) -> list[PlannedFile]:
    """`files` with the result files that the card's table was made from, in the place where they are looked for in a model folder."""
    if scores is None:
        return files
    kept = [file for file in files if not file.path.startswith(f"{FOLDER}/")]
    for path, found in published(scores).items():
        where = {"source": found} if isinstance(found, Path) else {"content": found}
        kept.append(PlannedFile(path, found.stat().st_size if isinstance(found, Path) else len(found), **where))  # type: ignore[arg-type]
    return kept


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
