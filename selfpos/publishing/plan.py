"""What a push would send, decided and checked before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfpos.errors import SelfposError, printable
from selfpos.publishing.card import MARK, Card, build_card
from selfpos.publishing.facts import HubModel
from selfpos.publishing.metadata import MOST_CARD, Lookup, check_metadata, check_repo, hub_licence
from selfpos.publishing.scores import FOLDER, leaderboard_files, published_results
from selfpos.publishing.session import TOKEN
from selfpos.storage.file_kinds import ADAPTER, MANIFEST
from selfpos.storage.inside import leads_out
from selfpos.storage.model_folder import check_tokenizer, refuse_pickles

CARD = "README.md"
BINARY = (".safetensors", ".parquet", ".png", ".model")
TEXT_LIMIT = 64 * 2**20  # bytes up to which a text file is searched for tokens
TEXT = (".json", ".jsonl", ".txt", ".md", ".vocab", ".bpe", ".tiktoken", ".jinja", ".yaml", ".yml")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
NAMES = {"LICENSE", "NOTICE", ".gitattributes"}

Files = dict[str, Path | bytes]  # path in the repository → path here, or generated content


@dataclass(frozen=True)
class PlannedFile:
    """One file to send: its path in the repository, and its path here or its generated content."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def read(self) -> bytes:
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


@dataclass(frozen=True)
class PushPlan:
    """All that a push would do. With `problems` it does not start; `repo_type` is model or dataset.

    Without a `branch` it goes to the main one. `made_from` is the generated card of a model, from which the
    plan can be linked to published parents; None for a card that is sent as it is, and for a data set.
    """

    repo: str
    repo_type: str
    private: bool
    message: str
    files: tuple[PlannedFile, ...]
    card: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    branch: str | None = None
    pull_request: bool = False
    replace: bool = False
    made_from: Card | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def linked(self, published: Mapping[str, HubModel], probe_set: str | None) -> PushPlan:
        """The plan with records and card naming published parents and the probe set by their repositories."""
        if self.made_from is None:
            return self
        card = self.made_from.linked(published, probe_set)
        files = {file.path: file.content for file in self.files} | _records(card)
        return replace(self, files=in_order(files), card=card.text, made_from=card)

    def text(self) -> str:
        """The plan for a person: target, files, card, notes and problems."""
        where = f"branch {self.branch} of " if self.branch else ""
        if self.pull_request:
            where = "a pull request to "
        kind = "data set " if self.repo_type == "dataset" else ""
        visible = "private" if self.private else "public"
        size = f"{len(self.files)} files, {_size(self.total_bytes)}"
        lines = [f"to {where}{kind}{self.repo} ({visible} if it is new): {size}", ""]
        lines += [f"{_size(file.size):>10}  {file.path}" for file in self.files]
        lines += ["", self.card.strip(), ""]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"problem: {problem}" for problem in self.problems]
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
    overlap: Path | None = None,
    lookup: Lookup | None = hub_licence,
    card: Card | None = None,
) -> PushPlan:
    """Plan to send the model in `folder` to the Hub repository `repo`; nothing is sent or written.

    With `branch` or `pull_request` it goes there instead of to the main branch; `replace` overwrites another
    model. `keep_card` sends `folder/README.md` as it is; the other options are those of `build_card`, unless
    the `card` is made. Problems are listed in the plan: raises SelfposError only where `folder` is no model,
    or a file that the card is made from is damaged.
    """
    if not folder.is_dir():
        raise SelfposError(f"there is no model folder {folder}")
    if card is None:
        card = build_card(folder, repo=repo, results=results, licence=licence, overlap=overlap, lookup=lookup)
    files, notes = files_of(folder)
    own_card = files.get(CARD)
    if card.scores:
        files = {path: file for path, file in files.items() if not path.startswith(f"{FOLDER}/")}
        files |= published_results(card.scores)
        if card.models.this is not None:
            files |= leaderboard_files(card.scores, card.models.this)
    files |= {**card.extras, **_records(card)}
    text = card.text
    problems = target_problems(repo, branch, pull_request)
    if keep_card and isinstance(own_card, Path):
        files[CARD] = own_card
        text, fault = _own_text(own_card)
        problems += fault
    elif keep_card:
        problems.append(f"{folder} has no {CARD} of its own; leave out --keep-card to send a generated card")
    problems += check_metadata(text)
    if card.licence_fault and not re.search(r"^license: \S", text.partition("\n---\n")[0], re.MULTILINE):
        problems.append(card.licence_fault)
    if not card.facts.adapter:
        try:
            check_tokenizer(folder)
            refuse_pickles(folder)
        except SelfposError as error:
            problems.append(str(error))
    in_repository = in_order(files)
    problems += _content_problems(folder, in_repository)
    return PushPlan(
        repo=repo,
        repo_type="model",
        private=private,
        message=message or f"Upload {folder.resolve().name} with selfpos",
        files=in_repository,
        card=text,
        problems=tuple(problems),
        notes=(*notes, *_notes(folder, card, keep_card)),
        branch=branch,
        pull_request=pull_request,
        replace=replace,
        made_from=None if keep_card else card,
    )


def _own_text(card: Path) -> tuple[str, list[str]]:
    """The text of the user's own card, and what is wrong with it; empty where it is too long for one."""
    if card.stat().st_size > MOST_CARD:
        return "", [f"{card} has more than {MOST_CARD:,} bytes, which is no card; shorten it"]
    return card.read_text(encoding="utf-8", errors="replace"), []


def files_of(folder: Path) -> tuple[Files, list[str]]:
    """Path → file of the model in `folder`, and a note on each that is left out, with the reason."""
    files: Files = {}
    notes = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        name = "/".join(parts)
        hidden = [part.startswith(".") or part == "__pycache__" for part in parts]
        if name not in NAMES and any(hidden):
            if hidden.index(True) == len(parts) - 1:  # once for all that is below it
                notes.append(f"{printable(name)} is left out (hidden)")
        elif reason := _left_out(folder, path):
            notes.append(f"{printable(name)} is left out ({reason})")
        elif path.is_file():
            files[name] = path
    return files, notes


def _left_out(folder: Path, path: Path) -> str | None:
    """Why a path in `folder` is not sent; None for a folder and for what is sent."""
    if path.is_symlink() and leads_out(folder, path):
        return "a link to what lies outside the folder"
    if path.is_dir():
        return "a link to a folder" if path.is_symlink() else None
    if not path.is_file():
        return "a link to nothing" if path.is_symlink() else "no regular file"
    if path.name in NAMES or path.suffix in (*TEXT, *BINARY):
        return None
    return "a pickle may hold code" if path.suffix in PICKLES else "no part of a model"


def in_order(files: Files) -> tuple[PlannedFile, ...]:
    """The files by path."""
    return tuple(PlannedFile(path, files[path]) for path in sorted(files))


def target_problems(repo: str, branch: str | None, pull_request: bool) -> list[str]:
    """Faults in the target of a push, each a sentence."""
    problems = check_repo(repo)
    if branch is not None and pull_request:
        problems.append("a pull request goes to the main branch; give --branch or --pr, not both")
    if branch is not None and not re.fullmatch(r"(?!.*(\.\.|//))[A-Za-z0-9]([\w./-]*[\w-])?", branch):
        problems.append(f"'{branch}' is no name for a branch")
    return problems


def _content_problems(folder: Path, files: Sequence[PlannedFile]) -> list[str]:
    """No weights, or an access token in a text file."""
    problems = []
    if not any(file.path.endswith(".safetensors") for file in files):
        problems.append(f"{folder} holds no safetensors weights")
    for file in files:
        if file.path.endswith(BINARY) or file.size > TEXT_LIMIT:
            continue
        if TOKEN.search(file.read().decode("utf-8", errors="replace")):
            problems.append(
                f"{file.path} holds what looks like a Hugging Face access token; remove it before publishing"
            )
    return problems


def _records(card: Card) -> Files:
    """The card, and the model's records where they may not be published as they are."""
    facts = card.facts
    contents: Files = {CARD: card.text.encode()}
    public = facts.public_record()
    if public != facts.record:
        contents[MANIFEST] = (json.dumps(public, indent=2, ensure_ascii=False) + "\n").encode()
    base, config = facts.base, facts.summary.adapter
    if base and base.repo and config and config.get("base_model_name_or_path") != base.repo:
        linked = {**config, "base_model_name_or_path": base.repo, "revision": base.revision}
        contents[ADAPTER] = json.dumps(linked, indent=2, sort_keys=True).encode()
    return contents


def _notes(folder: Path, card: Card, keep_card: bool) -> list[str]:
    facts = card.facts
    notes = []
    if not card.scores:
        notes.append(
            "the card has no scores; --results FOLDER takes those of 'selfpos eval-mteb' "
            "(checkpoints/scores where it had no --out)"
        )
    elif card.models.this is None:
        notes.append(
            f"the card has no scores: those found are of {', '.join(card.scores.models)}, "
            f"none of them of {facts.name}"
        )
    for name in card.models.stale:
        notes.append(f"the scores of {name} are left out: they belong to other weights; score it again")
    own_card = folder / CARD
    replaced = not keep_card and own_card.is_file()
    if replaced and MARK not in own_card.read_text(encoding="utf-8", errors="replace"):
        notes.append(
            f"the folder's {CARD} was not written by selfpos; the generated card replaces it "
            "(--keep-card sends yours)"
        )
    if not facts.record:
        notes.append(
            f"{folder} has no {MANIFEST}: the card does not say how the model was made, "
            "and it cannot be reproduced"
        )
    local = [parent.name for parent in facts.local_parents]
    if local and facts.kind == "merged":
        notes.append(
            f"{', '.join(local)} {'is' if len(local) == 1 else 'are'} not on the Hub, so others cannot "
            "repeat the merge; --collection publishes them with it"
        )
    if facts.adapter and facts.base is not None and not facts.base.repo:
        notes.append(f"the adapter's base {facts.base.name} is not on the Hub, so others cannot use it")
    return notes


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
