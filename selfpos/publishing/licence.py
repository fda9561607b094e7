"""The licence under which a model may be published: derived from its parents, never invented."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.publishing.facts import Facts, Parent, parse_parent
from selfpos.publishing.session import hub
from selfpos.storage.locate import DEFAULT_MODEL, packaged_base
from selfpos.storage.manifest import read_manifest

Lookup = Callable[[str, str | None], "Licence | None"]  # of a Hub repository and a revision of it
GENERATIONS = 5  # of parents on this disk


@dataclass(frozen=True)
class Licence:
    """A licence as the Hub writes it: an identifier, and for `other` its name and where its text is."""

    id: str
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        return f"{self.id} ({self.name})" if self.name else self.id


def parse_licence(text: str) -> Licence:
    """The licence given with `--license`: a Hub identifier such as `apache-2.0`, or `other:NAME:LINK`."""
    if re.fullmatch(r"(?!other$)[a-z0-9][a-z0-9.+-]*", text.strip()):
        return Licence(text.strip())
    other = re.fullmatch(r"other:([^:]+):((?:https?://|LICENSE).*)", text.strip())
    if other is None:
        raise SelfposError(
            f"--license '{text}' is no licence identifier of the Hub; write one such as apache-2.0, mit or "
            "cc-by-nc-4.0, or other:NAME:LINK, where LINK is a URL or the file LICENSE in the model folder"
        )
    return Licence("other", other[1], other[2])


def derive_licence(facts: Facts, lookup: Lookup | None = None) -> Licence:
    """The licence that the base and all parents share; `lookup` asks the Hub for those not on this disk.

    Raises SelfposError, asking for `--license`, where one is unknown or two differ.
    """
    if recorded := facts.record.get("licence"):
        return parse_licence(recorded)
    if not facts.family:
        raise SelfposError(
            f"{facts.name} records no parent to take a licence from; name the licence with --license"
        )
    licences = {parent.name: _licence_of(parent, facts.base, lookup) for parent in facts.family}
    unknown = [name for name, licence in licences.items() if licence is None]
    if unknown:
        raise SelfposError(
            f"the licence of {', '.join(unknown)} is not known, so {facts.name} cannot inherit it; "
            "name it with --license"
        )
    first, *others = dict.fromkeys(licence for licence in licences.values() if licence is not None)
    if others:
        listed = ", ".join(f"{name}: {licence}" for name, licence in licences.items())
        raise SelfposError(
            f"the parents of {facts.name} have different licences ({listed}); "
            "decide which applies and name it with --license"
        )
    return first


def _licence_of(parent: Parent, base: Parent | None, lookup: Lookup | None) -> Licence | None:
    """The licence in the card of the parent's folder, else of what that was made from, else of the Hub.

    `base` is that of the merge: a parent whose base has the same content hash was fine-tuned from it.
    """
    for _ in range(GENERATIONS):
        folder = parent.folder
        if folder is None and parent.name.removeprefix("sentence-transformers/") == DEFAULT_MODEL:
            folder = packaged_base()
        if folder is None:
            break
        if licence := card_licence(folder / "README.md"):
            return licence
        origin = parse_parent((read_manifest(folder) or {}).get("base"))
        if origin is None:
            break
        parent = base if base and base.hash and base.hash == origin.hash else origin
    return lookup(parent.repo, parent.revision) if lookup and parent.repo else None


def card_licence(card: Path) -> Licence | None:
    """The licence in the metadata of the model card at `card`; None where there is none."""
    from huggingface_hub.repocard import metadata_load

    return _from_metadata(metadata_load(card) or {}) if card.is_file() else None


def hub_licence(repo: str, revision: str | None) -> Licence | None:
    """The licence in the card of `repo` on the Hub; None where it names none or the Hub cannot be asked."""
    try:
        with hub(f"looking up the licence of {repo}", repo) as api:
            card = api.model_info(repo, revision=revision).card_data
    except SelfposError as error:
        log.warning("%s", error)
        return None
    return _from_metadata(card.to_dict()) if card else None


def _from_metadata(data: dict[str, Any]) -> Licence | None:
    """The licence in a card's metadata; of a list only a single one, and `unknown` is none."""
    licence = data.get("license")
    if isinstance(licence, list) and len(licence) == 1:
        licence = licence[0]
    if not isinstance(licence, str) or licence == "unknown":
        return None
    if licence == "other":
        return Licence(licence, data.get("license_name"), data.get("license_link"))
    return Licence(licence)
