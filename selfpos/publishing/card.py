"""The model card: `README.md` of a model folder, made of facts. What is not known is left out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.publishing.citations import bibtex
from selfpos.publishing.facts import TRAJECTORY, read_facts
from selfpos.publishing.licence import Licence, Lookup, derive_licence, parse_licence
from selfpos.publishing.markdown import environment, link, plain
from selfpos.publishing.metadata import card_data
from selfpos.publishing.overlap import FILE as OVERLAP
from selfpos.publishing.overlap import overlap_sentences, read_overlap
from selfpos.publishing.roles import Roles, find_roles
from selfpos.publishing.scores import FOLDER, Scores, find_scores, read_scores
from selfpos.publishing.story import Facts
from selfpos.recipe import LEARNED
from selfpos.storage.file_kinds import MANIFEST
from selfpos.storage.hashing import content_hash

MARK = f"Written by selfpos from {MANIFEST}."  # by this a card of ours is known
SECTIONS = (
    "title",
    "about",
    "use",
    "prompts",
    "transformers",
    "merge",
    "search",
    "training",
    "scores",
    "end",
)


@dataclass(frozen=True)
class Card:
    """A card and the files it refers to: pictures, recipe, trajectory, name → bytes. `licence_fault` says why no licence is stated; `roles` which of the
    models in `scores` is this one, and which are its rivals."""

    text: str
    extras: Mapping[str, bytes]
    licence: Licence | None
    licence_fault: str | None
    scores: Scores | None
    roles: Roles


def write_card(
    folder: Path, *, place: Path | None = None, results: Path | None = None, licence: str | None = None
) -> Path:
    """Write `README.md`, and the pictures and recipe it refers to, into the model `folder`; return its path.

    `place` is where the folder will be when it is whole, if not there yet; `results` holds the scores of this model and of its rivals (see
    publishing.scores); those in `folder/eval`, or of the run that the folder is part of, when absent.
    Where no licence follows from the parents, the card states none. Raises SelfposError where `folder` is no model.
    """
    card = build_card(folder, place=place, results=results, licence=licence)
    for name, content in card.extras.items():
        _replace(folder / name, content)
    return _replace(folder / "README.md", card.text.encode())


def build_card(
    folder: Path,
    *,
    place: Path | None = None,
    repo: str | None = None,
    told: Mapping[str, Any] | None = None,
    results: Path | None = None,
    licence: str | None = None,
    overlap: Path | None = None,
    lookup: Lookup | None = None,
) -> Card:
    """Make the card of the model in `folder` without writing anything.

    `repo` is the Hub id it will have; `told` are the records that the card tells from instead of `selfpos.json`, where parents are looked for
    on this disk to find their licence; `lookup` asks the Hub for it; `overlap` is a report that `selfpos overlap --out` wrote. See `write_card` for the
    rest.
    """
    own = read_facts(folder, place=place)
    facts = own if told is None else read_facts(folder, told, place=place)
    if overlap is not None:
        facts = replace(facts, overlap=read_overlap([overlap]))
    root = results or find_scores(folder)
    scores = read_scores(root) if root else None
    roles = find_roles(scores, facts, content_hash(folder)) if scores else Roles()
    if scores and roles.stale:
        scores = scores.of([model for model in scores.models if model not in roles.stale])
    if scores and root and root.name != FOLDER and results is None:
        scores = scores.of(roles.family)  # of a run's other merges its report tells
    fault: str | None = None
    decided: Licence | None = parse_licence(licence) if licence else None
    if decided is None:
        try:
            decided = derive_licence(own, lookup)
        except SelfposError as error:
            fault = str(error)
    extras = _extras(facts)
    title = repo.rpartition("/")[2] if repo else facts.name
    text = render(facts, scores, roles, decided, repo or facts.name, title, list(extras))
    return Card(text, extras, decided, fault, scores, roles)


def render(
    facts: Facts,
    scores: Scores | None,
    roles: Roles,
    licence: Licence | None,
    repo: str,
    title: str,
    extras: Sequence[str],
) -> str:
    """The card's Markdown, metadata block first."""
    from selfpos.publishing.comparison import comparison, worse_tasks

    own = roles.own
    env = environment()
    env.globals |= {
        "facts": facts,
        "shape": facts.shape,
        "mark": MARK,
        "manifest": MANIFEST,
        "summary": summary(facts),
        "repo": repo,
        "title": title,
        "base_id": facts.base.repo if facts.base else None,
        "prompts": any(facts.shape.prompts.values()),
        "retrieval": {"query", "document"} <= set(facts.shape.prompts),
        "licence": licence,
        "coefficients": any(parent.coefficient is not None for parent in facts.parents),
        "coefficient_intervals": any(parent.interval for parent in facts.parents),
        "search_parameters": _search_parameters(facts),
        "local_parents": [plain(parent.name) for parent in facts.local_parents],
        "revisions": any(parent.revision for parent in facts.parents),
        "norms": any(parent.norm is not None for parent in facts.parents),
        "figures": {
            kind: f"selfpos-{kind}.png" if f"selfpos-{kind}.png" in extras else None
            for kind in ("coefficients", "trajectory")
        },
        "probe_rows": (rows := _probe_rows(facts)),
        "probe_sources": any(row["source"] for row in rows),
        "probe_starts": any(row["before"] is not None for row in rows),
        "data_sources": any(row.source for row in facts.data),
        "scores": scores,
        "score_table": (table := comparison(scores, roles) if scores and own else None),
        "local_data": scores.on_local_data(own) if scores and own else [],
        "intervals": bool(table and any("<sub>" in cell for row in table.rows for cell in row.cells)),
        "costs": _costs(facts),
        "limitations": [
            *facts.limitations,
            *_overlap(facts, bool(scores and own)),
            *(worse_tasks(scores, roles) if scores else []),
        ],
        "citations": bibtex(*_used(facts), "mteb" if scores and own else None, "sentence-transformers"),
    }
    metadata = card_data(facts, licence, title, scores, own).to_yaml()
    sections = [env.get_template(f"card/{name}.md.j2").render() for name in SECTIONS]
    body = "\n\n".join(section.strip() for section in sections if section.strip())
    return f"---\n{metadata}\n---\n" + re.sub(r"\n{3,}", "\n\n", body) + "\n"


def summary(facts: Facts) -> str:
    """One sentence that says what the model is."""
    base = f" from {link(facts.base)}" if facts.base else ""
    tasks = ", ".join(plain(entry.task) for entry in facts.data)
    what = "A [PEFT](https://huggingface.co/docs/peft) adapter" if facts.adapter else "A text-embedding model"
    if facts.kind == "merged":
        parents = f"{len(facts.parents)} models" if facts.parents else "several models"
        return f"{what} for [sentence-transformers](https://sbert.net), merged from {parents}{' fine-tuned' + base if base else ''}."
    if facts.kind == "joint":
        return f"{what} for [sentence-transformers](https://sbert.net), trained{base} on several tasks at once{': ' + tasks if tasks else ''}."
    if facts.kind == "specialist":
        return f"{what} for [sentence-transformers](https://sbert.net), fine-tuned{base}{' for one task: ' + tasks if tasks else ''}."
    return f"{what} for [sentence-transformers](https://sbert.net)."


def _used(facts: Facts) -> list[str | None]:
    """Methods to cite."""
    search = "self-positioning" if facts.search and facts.method not in LEARNED else None
    return [facts.method, search, "lora" if facts.adapter else None, *facts.techniques]


def _overlap(facts: Facts, scored: bool) -> list[str]:
    """What training data shares with test data, or that it was not looked for where there are scores that it would bear upon."""
    if facts.overlap is not None:
        return overlap_sentences(
            facts.overlap, [*(parent.name for parent in facts.parents), *(entry.task for entry in facts.data)]
        )
    return (
        ["Whether its training data gives test items of these tasks away was not looked for."]
        if scored and facts.kind != "model"
        else []
    )


def _probe_rows(facts: Facts) -> list[dict[str, Any]]:
    if not facts.search:
        return []
    probe = {entry.task: entry for entry in facts.search.probe}
    rows = []
    for task in dict.fromkeys([*probe, *facts.search.losses]):
        entry, (before, after) = probe.get(task), facts.search.losses.get(task, (None, None))
        about = (
            {"type": entry.type, "records": entry.records, "source": entry.source}
            if entry
            else {"type": None, "records": None, "source": None}
        )
        rows.append({"task": task, "before": before, "after": after, **about})
    return rows


def _search_parameters(facts: Facts) -> Mapping[str, Any]:
    """Those of the space that was searched, where they are not the coefficients themselves, which the table of parents holds."""
    found = facts.search.parameters if facts.search else {}
    known = [parent.coefficient or 0.0 for parent in facts.parents]
    same = len(known) == len(found) and all(
        isclose(value, other, abs_tol=5e-5) for value, other in zip(found.values(), known, strict=True)
    )
    return {} if same else found


def _costs(facts: Facts) -> list[str]:
    where = f" on {plain(facts.device)}" if facts.device else ""
    lines = []
    if facts.parents_seconds:
        lines.append(f"training the parents, one after the other: {_duration(facts.parents_seconds)}")
    if facts.search and facts.search.seconds:
        lines.append(f"search for the coefficients: {_duration(facts.search.seconds)}{where}")
    if facts.seconds:
        what = (
            ("search and merging, together" if facts.search else "merging")
            if facts.kind == "merged"
            else "training"
        )
        steps = f", {facts.steps} steps" if facts.steps else ""
        memory = f", at most {facts.peak_memory / 1e9:.1f} GB of memory" if facts.peak_memory else ""
        lines.append(f"{what}: {_duration(facts.seconds)}{where}{steps}{memory}")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _figures(facts: Facts) -> dict[str, bytes]:
    from selfpos.publishing.figures import coefficient_map, trajectory_plot

    found: dict[str, bytes] = {}
    names = [parent.name for parent in facts.parents]
    if facts.groups:
        width = len(next(iter(facts.groups.values())))
        found["selfpos-coefficients.png"] = coefficient_map(
            facts.groups, ["base", *names] if width == len(names) + 1 else names
        )
    kept = (
        (facts.search.best_step, [parent.coefficient for parent in facts.parents])
        if facts.search
        else (None, [])
    )
    if facts.search and (plot := trajectory_plot(facts.search.trajectory, names, *kept)):
        found["selfpos-trajectory.png"] = plot
    return found


def _extras(facts: Facts) -> dict[str, bytes]:
    """Files that the card refers to or is made from, where the model folder itself may not hold them."""
    import yaml

    found = _figures(facts)
    if facts.recipe:
        found["recipe.yaml"] = f"{facts.recipe}\n".encode()
    if facts.overlap is not None:
        found[OVERLAP] = yaml.safe_dump(dict(facts.overlap), sort_keys=False, allow_unicode=True).encode()
    if facts.search and facts.search.trajectory:
        found[TRAJECTORY] = "".join(f"{json.dumps(row)}\n" for row in facts.search.trajectory).encode()
    return found


def _replace(path: Path, content: bytes) -> Path:
    """Write beside, flush, rename: a reader sees the old file or the new one, whole."""
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return path
