"""Which of the models that were scored is this one, and which are its rivals: told by the content of the weights, by name where results do not tell it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from selfpos.publishing.scores import Scores
from selfpos.publishing.story import Facts
from selfpos.storage.hashing import REVISION_LENGTH


@dataclass(frozen=True)
class Roles:
    """Names in the scores, None or left out where there are none. `stale` are scores under a name of ours that are of other weights than those now."""

    own: str | None = None
    base: str | None = None
    parents: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    @property
    def family(self) -> list[str]:
        """All of them, own first, each once."""
        names = [self.own, self.base, *self.parents, *self.joints]
        return list(dict.fromkeys(name for name in names if name is not None))


def find_roles(scores: Scores, facts: Facts, content: str) -> Roles:
    """The roles of the models in `scores` for the model of `facts`, whose content hash is `content`.

    Results that `selfpos eval-mteb` wrote lie under the content hash of the model. Where there are such under the model's name, but of another
    hash, they are of weights that are there no more, and have no role. MTEB's own results of a local model tell its name only.
    """
    own = _find(scores, content, [facts.name])
    base, stale = None, [] if own else _stale(scores, content, [facts.name])
    if facts.base:
        names = ["base", facts.base.name, *([facts.base.repo] if facts.base.repo else [])]
        base = _find(scores, facts.base.hash, names, facts.base.repo)
        stale += [] if base else _stale(scores, facts.base.hash, names)
    parents = []
    for parent in facts.parents:
        found = _find(scores, parent.hash, [parent.name], parent.repo)
        parents += [found] if found else []
        stale += [] if found else _stale(scores, parent.hash, [parent.name])
    joints = [name for name in facts.joints or ("joint",) if name in scores.models]
    return Roles(own, base, tuple(parents), tuple(joints), tuple(dict.fromkeys(stale)))


def _find(scores: Scores, content: str | None, names: Iterable[str], repo: str | None = None) -> str | None:
    """The model of that content; else one called so whose results do not tell of what content they are, or are of the repository `repo`."""
    if content:
        for model, (_, revision) in scores.identities.items():
            if revision == content[:REVISION_LENGTH]:
                return model
    named = _named(scores, names)
    fitting = (
        m
        for m in named
        if not content or not _is_hash(scores.identities[m][1]) or (repo and scores.identities[m][0] == repo)
    )
    return next(fitting, None)


def _named(scores: Scores, names: Iterable[str]) -> list[str]:
    wanted = {name.rpartition("/")[2] for name in names}
    return [model for model in scores.models if model in wanted]


def _stale(scores: Scores, content: str | None, names: Iterable[str]) -> list[str]:
    return [model for model in _named(scores, names) if content and _is_hash(scores.identities[model][1])]


def _is_hash(revision: str) -> bool:
    return re.fullmatch(rf"[0-9a-f]{{{REVISION_LENGTH}}}", revision) is not None
