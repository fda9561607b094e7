"""Publishing a merged model together with what it was made from: its vectors, its probe set, and a collection that holds them all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.publishing.facts import read_facts
from selfpos.publishing.licence import parse_licence
from selfpos.publishing.plan import PushPlan, plan_push
from selfpos.publishing.probe_card import plan_probe
from selfpos.publishing.push import Pushed, push
from selfpos.publishing.relink import Place
from selfpos.publishing.session import hub
from selfpos.publishing.story import Parent
from selfpos.publishing.surroundings import Surroundings, surroundings_of
from selfpos.storage.hashing import content_hash


@dataclass(frozen=True)
class CollectionPlan:
    """All pushes of a collection, in the order in which they are made: probe set, vectors (by the parent's name), merged model."""

    title: str
    model: Path
    probe: PushPlan | None
    vectors: dict[str, PushPlan]
    merged: PushPlan
    options: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def plans(self) -> list[PushPlan]:
        """Every push."""
        return [*([self.probe] if self.probe else []), *self.vectors.values(), self.merged]

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against it, of all pushes together."""
        return tuple(f"{plan.repo}: {problem}" for plan in self.plans for problem in plan.problems)

    def text(self) -> str:
        """The plan for a person."""
        parts = [
            f"collection '{self.title}' of {len(self.plans)} repositories",
            *(plan.text() for plan in self.plans),
        ]
        return "\n\n".join([*parts, *(f"note: {note}" for note in self.notes)])


def plan_collection(
    model: Path, repo: str, *, private: bool = True, licence: str | None = None, results: Path | None = None, replace: bool = False,
    message: str | None = None, overlap: Path | None = None, probe: Path | None = None, probe_licence: str | None = None,
) -> CollectionPlan:  # fmt: skip
    """Plan to publish the merged `model` as `repo`, each local parent as `repo`-NAME and the probe set as `repo`-probe; nothing is sent.

    `licence` and `replace` hold for all models. The probe set is that of the run which the model is part of, or in the folder `probe`; it is
    published only under a `probe_licence`, for its records are other people's texts. Raises SelfposError where `model` is no merged model.
    """
    facts = read_facts(model)
    if facts.kind != "merged" or not facts.parents:
        raise SelfposError(
            f"{model} is not a merged model with parents on record, so there is no collection to publish; push it alone"
        )
    options: dict[str, Any] = {
        "private": private,
        "licence": licence,
        "replace": replace,
        "message": message,
        "overlap": overlap,
    }
    around = surroundings_of(model)
    local = {parent.name: _folder_of(parent, around) for parent in facts.parents if not parent.repo}
    vectors = {
        name: plan_push(folder, f"{repo}-{_slug(name)}", **options)
        for name, folder in local.items()
        if folder
    }
    place = probe or (around.run.probe if around and facts.search and around.run.probe.is_dir() else None)
    notes = [
        f"{name}, which it was made from, is not in its folder any more, so the collection goes without it"
        for name in local
        if not local[name]
    ]
    probe_plan = None
    if place is not None and probe_licence is not None:
        probe_plan = plan_probe(
            place, f"{repo}-probe", repo, facts, parse_licence(probe_licence), private=private
        )
    elif place is not None:
        notes.append(
            f"the probe set {place} stays here: its records are other people's texts; --probe-license ID publishes it under that licence"
        )
    options |= {"results": results, "probe": probe_plan.repo if probe_plan else None}
    merged = plan_push(
        model, repo, parents={name: Place(plan.repo, None) for name, plan in vectors.items()}, **options
    )
    return CollectionPlan(repo.rpartition("/")[2], model, probe_plan, vectors, merged, options, tuple(notes))


def push_collection(plan: CollectionPlan) -> list[Pushed]:
    """Carry out `plan`: push everything, the merged model last, and gather it in a collection; returns what stands, the merged model first.

    A second call after a failure sends only what is missing. Raises as `push` does, before anything is sent where the plan has problems.
    """
    if plan.problems:
        raise SelfposError("; ".join(plan.problems))
    probe = push(plan.probe) if plan.probe else None
    vectors = {name: push(vector) for name, vector in plan.vectors.items()}
    places = {name: Place(pushed.repo, pushed.revision) for name, pushed in vectors.items()}
    merged = push(plan_push(plan.model, plan.merged.repo, parents=places, **plan.options))
    everything = [merged, *vectors.values(), *([probe] if probe else [])]
    url = _collect(plan, everything)
    first = Pushed(**{**vars(merged), "notes": (*merged.notes, f"collection: {url}")})
    return [first, *everything[1:]]


def _folder_of(parent: Parent, around: Surroundings | None) -> Path | None:
    """Where the parent's model lies: at the place on record, or in the run around the merge, wherever that was moved to."""
    if parent.source and Path(parent.source).is_dir():
        return Path(parent.source)
    folder = around.trained(parent.name) if around else None
    return folder if folder and content_hash(folder) == parent.hash else None


def _collect(plan: CollectionPlan, everything: list[Pushed]) -> str:
    """Make the collection, or find the one that an earlier start made, and put everything in it; returns its address."""
    owner = plan.merged.repo.partition("/")[0]
    with hub(f"making the collection '{plan.title}'", f"the collection '{plan.title}' of {owner}") as api:
        about = f"{plan.merged.repo}, merged with selfpos, and what it was made from"[:150]
        made = api.create_collection(
            plan.title, namespace=owner, description=about, private=plan.merged.private, exists_ok=True
        )
        for pushed in everything:
            api.add_collection_item(
                made.slug, pushed.repo, pushed.repo_type, note=_note(plan, pushed), exists_ok=True
            )
        return str(made.url)


def _note(plan: CollectionPlan, pushed: Pushed) -> str:
    if pushed.repo == plan.merged.repo:
        return "the merged model"
    vector = next((name for name, vector in plan.vectors.items() if vector.repo == pushed.repo), None)
    return (
        f"one of the models it was merged from: {vector}"
        if vector
        else "the probe set on which its coefficients were searched"
    )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+|\.\.+|--+", "-", name).strip("-.")
