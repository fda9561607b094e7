"""What a push would send, decided and checked before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError
from selfpos.publishing.card import MARK, Card, build_card
from selfpos.publishing.checks import content_problems, model_problems, target_problems
from selfpos.publishing.eval_results import eval_results
from selfpos.publishing.facts import read_facts
from selfpos.publishing.files import PlannedFile, files_of, planned
from selfpos.publishing.licence import Licence, Lookup, hub_licence
from selfpos.publishing.metadata import check_metadata
from selfpos.publishing.relink import ADAPTER, Place, public_adapter, public_manifest
from selfpos.publishing.scores import FOLDER, published
from selfpos.publishing.story import Facts
from selfpos.storage.file_kinds import MANIFEST
from selfpos.storage.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

CARD = "README.md"


@dataclass(frozen=True)
class PushPlan:
    """All that a push would do. With `problems` it will not start; `notes` tell what the user may not expect. `repo_type`: model or dataset."""

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
        place = (
            "a pull request to " if self.pull_request else f"branch {self.branch} of " if self.branch else ""
        )
        kind = "data set " if self.repo_type == "dataset" else ""
        visible = "private" if self.private else "public"
        lines = [
            f"to {place}{kind}{self.repo} ({visible} where it is new): {len(self.files)} files, {_size(self.total_bytes)}",
            "",
        ]
        lines += [f"{_size(file.bytes):>10}  {file.path}" for file in self.files]
        lines += ["", self.card.strip(), ""]
        lines += [f"note: {note}" for note in self.notes] + [
            f"problem: {problem}" for problem in self.problems
        ]
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
    parents: Mapping[str, Place] | None = None,
    probe: str | None = None,
    overlap: Path | None = None,
    lookup: Lookup | None = hub_licence,
) -> PushPlan:
    """Plan to send the model in `folder` to the Hub repository `repo`; nothing is sent or written.

    With `branch` or `pull_request` it goes there instead of to the main branch; `replace` lets it overwrite another model.
    `licence` decides where none follows from the parents; `results` holds scores, as for `card.write_card`; `keep_card` sends
    `folder/README.md` as it stands; `parents` tells where on the Hub parents are that were merged from local folders, `probe` which data set of the Hub is the probe set;
    `overlap` is a report of `selfpos overlap`; `lookup` asks for the licence of a parent on the Hub that is not on this disk. What speaks against the push is listed in `problems`.
    Raises SelfposError only where `folder` is no model at all.
    """
    if not folder.is_dir():
        raise SelfposError(f"there is no model folder {folder}")
    told = read_manifest(folder)
    public = public_manifest(told, parents or {}, probe) if told is not None else None
    facts = read_facts(folder, public)
    files, notes = files_of(folder)
    made = build_card(
        folder, repo=repo, told=public, results=results, licence=licence, overlap=overlap, lookup=lookup
    )
    if made.scores:
        files = {path: file for path, file in files.items() if not path.startswith(f"{FOLDER}/")} | planned(
            published(made.scores)
        )
        if made.roles.own is not None:
            files |= planned(eval_results(made.scores, made.roles.own))
        else:
            notes.append(
                f"the card has no scores: those found are of {', '.join(made.scores.models)}, none of them of {facts.name}"
            )
    for name in made.roles.stale:
        notes.append(
            f"the scores found of {name} are of other weights than those it has now, so they are left out; score it again"
        )
    files |= planned(_made(folder, facts, public if public != told else None, made))
    problems = target_problems(repo, branch, pull_request)
    card = folder / CARD
    if keep_card and card.is_file():
        files[CARD] = PlannedFile(CARD, card.stat().st_size, source=card)
    elif keep_card:
        problems.append(f"{card} does not exist; leave out --keep-card to send a generated card")
    text = files[CARD].read().decode("utf-8", errors="replace")
    problems += check_metadata(text)
    if made.licence_fault and not re.search(r"^license: \S", text.partition("\n---\n")[0], re.MULTILINE):
        problems.append(made.licence_fault)
    problems += [] if facts.adapter else model_problems(folder)
    problems += content_problems(str(folder), list(files.values()))
    notes += _notes(folder, facts, told is not None, keep_card)
    return PushPlan(
        repo=repo, repo_type="model", private=private, branch=branch, pull_request=pull_request, replace=replace,
        message=message or f"Upload {folder.resolve().name} with selfpos", files=in_order(files), card=text, licence=made.licence,
        problems=tuple(problems), notes=tuple(notes),
    )  # fmt: skip


def in_order(files: Mapping[str, PlannedFile]) -> tuple[PlannedFile, ...]:
    """The files by path."""
    return tuple(files[path] for path in sorted(files))


def _made(
    folder: Path, facts: Facts, public: Mapping[str, Any] | None, card: Card
) -> dict[str, Path | bytes]:
    """The files that are not sent as they lie in the folder: card and what goes with it, and the records that had to be changed."""
    made: dict[str, Path | bytes] = {**card.extras, CARD: card.text.encode()}
    if public is not None:
        made[MANIFEST] = (json.dumps(public, indent=2, ensure_ascii=False) + "\n").encode()
    adapter = public_adapter(folder, facts)
    if adapter is not None:
        made[ADAPTER] = adapter
    return made


def _notes(folder: Path, facts: Facts, has_manifest: bool, keep_card: bool) -> list[str]:
    notes = []
    card = folder / CARD
    if not keep_card and card.is_file() and MARK not in card.read_text(encoding="utf-8", errors="replace"):
        notes.append(
            f"the folder's {CARD} was not written by selfpos; the generated card is sent in its place (--keep-card sends yours)"
        )
    if not has_manifest:
        notes.append(
            f"{folder} has no {MANIFEST}: the card says nothing of how the model was made, and it cannot be reproduced"
        )
    local = [parent.name for parent in facts.local_parents]
    if local and facts.kind == "merged":
        notes.append(
            f"{', '.join(local)} {_are(local)} not on the Hub, so others cannot repeat the merge; --collection publishes them with it"
        )
    if facts.adapter and facts.base is not None and not facts.base.repo:
        notes.append(f"the adapter's base {facts.base.name} is not on the Hub, so others cannot use it")
    return notes


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.3g} GB"
