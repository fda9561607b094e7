"""Publishing a merged model with its vectors, its probe set, and a collection that holds them all."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from selfpos.data.probe import FILE as PROBE_FILE
from selfpos.data.probe import read_probe
from selfpos.errors import SelfposError
from selfpos.publishing.card import MARK, build_card, environment
from selfpos.publishing.facts import DataSource, Facts, HubModel, Parent
from selfpos.publishing.metadata import Licence, hub_licence, parse_licence
from selfpos.publishing.plan import CARD, PushPlan, files_of, in_order, plan_push, target_problems
from selfpos.publishing.push import Pushed, push
from selfpos.publishing.session import hub
from selfpos.publishing.sources import ModelRun
from selfpos.storage.hashing import content_hash

UNFIT = r"[^A-Za-z0-9._-]+|\.\.+|--+"  # for the name of a repository


@dataclass(frozen=True)
class CollectionPlan:
    """The pushes of a collection: probe set (None where it is not published), vectors by the parent's name,
    and merged model.
    """

    title: str
    probe: PushPlan | None
    vectors: dict[str, PushPlan]
    merged: PushPlan
    notes: tuple[str, ...]

    @property
    def plans(self) -> list[PushPlan]:
        """Every push, in order."""
        return [*([self.probe] if self.probe else []), *self.vectors.values(), self.merged]

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems of all pushes, each after its repository."""
        return tuple(f"{plan.repo}: {problem}" for plan in self.plans for problem in plan.problems)

    def text(self) -> str:
        title = f"collection '{self.title}' of {len(self.plans)} repositories"
        notes = (f"note: {note}" for note in self.notes)
        return "\n\n".join([title, *(plan.text() for plan in self.plans), *notes])


def plan_collection(
    model: Path,
    repo: str,
    *,
    private: bool = True,
    licence: str | None = None,
    results: Path | None = None,
    replace: bool = False,
    message: str | None = None,
    overlap: Path | None = None,
    probe: Path | None = None,
    probe_licence: str | None = None,
) -> CollectionPlan:
    """Plan to publish the merged `model` as `repo`, its parents as `repo`-NAME and its probe set.

    Nothing is sent. `licence` and `replace` hold for all models. The probe set is that of the model's run, or
    in the folder `probe`; it is published only under a `probe_licence`, since its records are other people's
    texts. Raises SelfposError where `model` is no merged model with parents on record, or `probe_licence` is
    no licence's identifier.
    """
    card = build_card(model, repo=repo, results=results, licence=licence, overlap=overlap, lookup=hub_licence)
    facts = card.facts
    if facts.kind != "merged" or not facts.parents:
        raise SelfposError(
            f"{model} is not a merged model with parents on record; push it alone, without --collection"
        )
    options: dict[str, Any] = {"private": private, "replace": replace, "message": message}
    vectors, notes = {}, []
    for parent in facts.parents:
        folder = None if parent.repo else _folder_of(parent, facts.run)
        if folder:
            name = f"{repo}-{re.sub(UNFIT, '-', parent.name).strip('-.')}"
            vectors[parent.name] = plan_push(folder, name, licence=licence, overlap=overlap, **options)
        elif not parent.repo:
            notes.append(f"the folder of its parent {parent.name} is missing, so the collection lacks it")
    if probe is None and facts.run and facts.search and facts.run.folder.probe.is_dir():
        probe = facts.run.folder.probe
    probe_plan = None
    if probe is not None and probe_licence is not None:
        terms = parse_licence(probe_licence)
        probe_plan = plan_probe(probe, f"{repo}-probe", repo, facts, terms, private=private)
    elif probe is not None:
        notes.append(
            f"the probe set {probe} is not published: its records are other people's texts; "
            "--probe-license ID publishes it under that licence"
        )
    hub_models = {name: HubModel(plan.repo, None) for name, plan in vectors.items()}
    linked = card.linked(hub_models, probe_plan.repo if probe_plan else None)
    merged = plan_push(model, repo, card=linked, **options)
    return CollectionPlan(repo.rpartition("/")[2], probe_plan, vectors, merged, tuple(notes))


def push_collection(plan: CollectionPlan) -> list[Pushed]:
    """Push everything, the merged model last, and gather it in a collection; returns that of the model first.

    A second call after a failure sends only what is missing. Raises as `push` does; before anything is sent
    where the plan has problems.
    """
    if plan.problems:
        raise SelfposError("; ".join(plan.problems))
    probe = push(plan.probe) if plan.probe else None
    vectors = {name: push(vector) for name, vector in plan.vectors.items()}
    hub_models = {name: HubModel(pushed.repo, pushed.revision) for name, pushed in vectors.items()}
    merged = push(plan.merged.linked(hub_models, plan.probe.repo if plan.probe else None))
    everything = {merged: "the merged model"}
    for name, pushed in vectors.items():
        everything[pushed] = f"one of the models it was merged from: {name}"
    if probe:
        everything[probe] = "the probe set on which its coefficients were searched for"
    url = _collect(plan, everything)
    first = replace(merged, notes=(*merged.notes, f"collection: {url}"))
    return [first, *(pushed for pushed in everything if pushed is not merged)]


def _collect(plan: CollectionPlan, everything: dict[Pushed, str]) -> str:
    """Create the collection unless it exists and add everything with its note; returns its address."""
    owner = plan.merged.repo.partition("/")[0]
    with hub(f"making the collection '{plan.title}'", f"the collection '{plan.title}' of {owner}") as api:
        about = f"{plan.merged.repo}, merged with selfpos, and what it was made from"[:150]
        made = api.create_collection(
            plan.title, namespace=owner, description=about, private=plan.merged.private, exists_ok=True
        )
        for pushed, note in everything.items():
            api.add_collection_item(made.slug, pushed.repo, pushed.repo_type, note=note, exists_ok=True)
        return str(made.url)


def _folder_of(parent: Parent, run: ModelRun | None) -> Path | None:
    """The parent's folder: as recorded, or in the run of the merge if that was moved."""
    if parent.folder is not None:
        return parent.folder
    folder = run.trained(parent.name) if run else None
    return folder if folder and content_hash(folder) == parent.hash else None


def plan_probe(
    folder: Path, repo: str, model: str, facts: Facts, licence: Licence, *, private: bool = True
) -> PushPlan:
    """Plan to send the probe set in `folder` to the data set repository `repo`, for the Hub's `model`."""
    sources = {entry.task: entry.source for entry in facts.probe}
    rows = []
    for name, task in read_probe(folder).items():
        rows.append(DataSource(name, task.type.name, sources.get(name), len(task.records)))
    metadata = DatasetCardData(
        license=licence.id,
        license_name=licence.name,
        license_link=licence.link,
        tags=["selfpos", "sentence-transformers"],
        source_datasets=[name for name in facts.dataset_repos if name != facts.probe_set] or None,
        configs=[{"config_name": "default", "data_files": PROBE_FILE}],
    )
    template = environment().get_template("probe.md.j2")
    text = template.render(
        metadata=metadata.to_yaml(),
        mark=MARK,
        title=repo.rpartition("/")[2],
        model=model,
        file=PROBE_FILE,
        rows=rows,
        total=sum(row.records or 0 for row in rows),
    )
    files, notes = files_of(folder)
    files[CARD] = (text.strip() + "\n").encode()
    return PushPlan(
        repo=repo,
        repo_type="dataset",
        private=private,
        message=f"Upload the probe set of {model} with selfpos",
        files=in_order(files),
        card=text,
        problems=tuple(target_problems(repo, None, False)),
        notes=tuple(notes),
    )
