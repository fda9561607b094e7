"""The model card: `README.md` of a model folder, made from facts. What is unknown is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError, printable_page
from selfpos.publishing.facts import TRAJECTORY, Facts, HubModel, read_facts
from selfpos.publishing.markdown import bibtex, environment, link, plain
from selfpos.publishing.metadata import Licence, Lookup, card_data, derive_licence, parse_licence
from selfpos.publishing.scores import (
    FOLDER,
    ScoredModels,
    Scores,
    find_scores,
    match_models,
    read_model_scores,
    score_table,
    worse_tasks,
)
from selfpos.publishing.sources import OVERLAP, overlap_sentences, read_overlap
from selfpos.recipe import LEARNED
from selfpos.storage.atomic import write_bytes
from selfpos.storage.file_kinds import MANIFEST
from selfpos.storage.hashing import content_hash

MARK = f"Written by selfpos from {MANIFEST}."  # identifies cards that selfpos wrote
SECTIONS = (
    *("title", "about", "use", "prompts", "transformers"),
    *("merge", "search", "retain", "training", "scores", "end"),
)
LAYERS, PATH, FRONT = "selfpos-coefficients.png", "selfpos-trajectory.png", "selfpos-front.png"
NOUNS = {
    "CrossEncoder": "A reranker (CrossEncoder)",
    "SparseEncoder": "A sparse embedding model",
    "MultiVectorEncoder": "A multi-vector embedding model",
}
SENTENCE_TRANSFORMERS = "[sentence-transformers](https://sbert.net)"


@dataclass(frozen=True)
class Card:
    """All that a card is made from, and the files that it refers to (`extras`: name → content).

    `licence_fault` says why no licence is stated; `models` are this model and its family in `scores`.
    """

    facts: Facts
    repo: str | None
    extras: Mapping[str, bytes]
    licence: Licence | None
    licence_fault: str | None
    scores: Scores | None
    models: ScoredModels = field(default_factory=ScoredModels)

    @property
    def text(self) -> str:
        """The card's Markdown, metadata first."""
        facts, scores, this = self.facts, self.scores, self.models.this
        title = self.repo.rpartition("/")[2] if self.repo else facts.name
        table = score_table(scores, self.models) if scores and this else None
        search = "self-positioning" if facts.search and facts.method not in LEARNED else None
        cited = [facts.method, search, "lora" if facts.adapter else None, *facts.techniques]
        cited += ["tsv-m" if facts.search.get("separated") else None]
        cited += ["mteb" if table else None, "sentence-transformers"]
        env = environment()
        env.globals |= {
            "facts": facts,
            "model": facts.summary,
            "mark": MARK,
            "manifest": MANIFEST,
            "summary": summary_sentence(facts),
            "repo": self.repo or facts.name,
            "title": title,
            "retrieval": {"query", "document"} <= set(facts.summary.prompts),
            "licence": self.licence,
            "figures": [name for name in (LAYERS, PATH) if name in self.extras],
            "probe_rows": _probe_rows(facts),
            "retained": _retained(facts),
            "scores": scores,
            "score_table": table,
            "this": this,
            "costs": _costs(facts),
            "limitations": _limitations(self),
            "citations": bibtex(*cited),
        }
        sections = [env.get_template(f"card/{name}.md.j2").render().strip() for name in SECTIONS]
        body = "\n\n".join(section for section in sections if section)
        metadata = card_data(facts, self.licence, title, scores, this).to_yaml()
        return printable_page(f"---\n{metadata}\n---\n" + re.sub(r"\n{3,}", "\n\n", body) + "\n")

    def linked(self, published: Mapping[str, HubModel], probe_set: str | None) -> Card:
        """The card with the repositories of parents and of the probe set that are (to be) published."""
        return replace(self, facts=self.facts.linked(published, probe_set))


def write_card(folder: Path, *, out: Path | None = None) -> Path:
    """Write `README.md`, and the pictures and recipe it refers to, into the model `folder`; returns its path.

    `out` is where the folder is going to be. Without a licence shared by the parents, the card states none.
    Raises SelfposError where `folder` is no model.
    """
    card = build_card(folder, out=out)
    for name, content in {**card.extras, "README.md": card.text.encode()}.items():
        write_bytes(folder / name, content)
    return folder / "README.md"


def build_card(
    folder: Path,
    *,
    out: Path | None = None,
    repo: str | None = None,
    results: Path | None = None,
    licence: str | None = None,
    overlap: Path | None = None,
    lookup: Lookup | None = None,
) -> Card:
    """Read the facts of the model in `folder` and make its card, without writing anything.

    `out` is where the folder is going to be, `repo` its Hub id. `results` holds the scores of this model and
    of its rivals, by default `folder/eval` or the scores of its run. `lookup` asks the Hub for the licence of
    parents; `overlap` is a report of `selfpos overlap`.
    """
    facts = read_facts(folder, path=out)
    if overlap is not None:
        facts = replace(facts, overlap=read_overlap([overlap]))
    root = results or find_scores(folder)
    scores = read_model_scores(root) if root else None
    if results is not None and scores is None:
        what = "holds no results of MTEB" if results.is_dir() else "is no folder"
        raise SelfposError(
            f"--results {results} {what}; give the folder that `selfpos eval-mteb --out` wrote, or leave "
            "it out"
        )
    models = match_models(scores, facts, content_hash(folder)) if scores else ScoredModels()
    if scores and models.stale:
        scores = scores.of(scores.models.keys() - set(models.stale))
    if scores and root and root.name != FOLDER and results is None:
        scores = scores.of(models.family)  # a run's other merges are in its report
    fault, stated = None, None
    try:
        stated = parse_licence(licence) if licence else derive_licence(facts, lookup)
    except SelfposError as error:
        if licence:
            raise
        fault = str(error)
    return Card(facts, repo, _extras(facts), stated, fault, scores, models)


def summary_sentence(facts: Facts) -> str:
    """What the model is, in one sentence."""
    base = f" from {link(facts.base)}" if facts.base else ""
    tasks = ", ".join(plain(entry.task) for entry in facts.data)
    kind = NOUNS.get(facts.summary.kind, "A text-embedding model")
    if facts.adapter:
        kind = "A [PEFT](https://huggingface.co/docs/peft) adapter"
    made = ""
    if facts.kind == "merged":
        several = "1 model" if len(facts.parents) == 1 else f"{len(facts.parents) or 'several'} models"
        made = f", merged from {several}{' fine-tuned' + base if base else ''}"
    elif facts.kind == "joint":
        made = f", trained{base} on several tasks at once{': ' + tasks if tasks else ''}"
    elif facts.kind == "specialist":
        made = f", fine-tuned{base}{' for one task: ' + tasks if tasks else ''}"
    return f"{kind} for {SENTENCE_TRANSFORMERS}{made}."


def _limitations(card: Card) -> list[str]:
    """What training data shares with test data, and tasks that got worse."""
    facts, sentences = card.facts, []
    if facts.overlap is not None:
        names = [*(parent.name for parent in facts.parents), *(entry.task for entry in facts.data)]
        sentences = overlap_sentences(facts.overlap, names)
    elif card.scores and card.models.this and facts.kind != "model":
        sentences.append("Its training data was not checked for test items of these tasks.")
    return sentences + (worse_tasks(card.scores, card.models) if card.scores else [])


def _probe_rows(facts: Facts) -> list[dict[str, Any]]:
    """Per task of the probe set: type, records, source, and the losses before and after the search."""
    starts = [row["validation"] for row in facts.trajectory if "validation" in row]
    starts += [row["losses"] for row in facts.trajectory if row.get("scale") == 0]
    before, after = starts[0] if starts else {}, facts.search.get("losses") or {}
    entries = {entry.task: vars(entry) for entry in facts.probe}
    unknown = {"type": None, "records": None, "source": None}
    return [
        {
            **unknown,
            **entries.get(task, {}),
            "task": task,
            "before": before.get(task),
            "after": after.get(task),
        }
        for task in dict.fromkeys([*entries, *after])
    ]


def _retained(facts: Facts) -> dict[str, Any] | None:
    """What `retain` found: the picture of its front, tables and sentences."""
    from selfpos.console import markdown_table
    from selfpos.retain.story import index_rows, rows, sentences

    front = facts.record.get("retain")
    if not front:
        return None
    tables = [rows(front), *([index_rows(front)] if "index" in front else [])]
    return {
        "figure": FRONT,
        "tables": [markdown_table(*table) for table in tables],
        "sentences": sentences(front),
    }


def _costs(facts: Facts) -> list[str]:
    device = facts.record.get("device")
    where = f" on {plain(device)}" if device else ""
    lines = []
    parents = facts.run.training_seconds([parent.name for parent in facts.parents]) if facts.run else None
    if parents:
        lines.append(f"training the parents, one after the other: {_duration(parents)}")
    if facts.search.get("seconds"):
        lines.append(f"search for the coefficients: {_duration(facts.search['seconds'])}{where}")
    if facts.seconds:
        step = "training"
        if facts.kind == "merged":
            step = "search and merging, together" if facts.search else "merging"
        steps, memory = facts.record.get("steps"), facts.record.get("peak_memory_bytes")
        details = f", {steps} steps" if steps else ""
        details += f", at most {memory / 1e9:.1f} GB of memory" if memory else ""
        lines.append(f"{step}: {_duration(facts.seconds)}{where}{details}")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _extras(facts: Facts) -> dict[str, bytes]:
    """Files that the card refers to or is made from, which the model folder may lack."""
    import yaml

    extras = _picture(facts)
    if facts.recipe:
        extras["recipe.yaml"] = f"{facts.recipe}\n".encode()
    if facts.overlap is not None:
        extras[OVERLAP] = yaml.safe_dump(dict(facts.overlap), sort_keys=False, allow_unicode=True).encode()
    if facts.trajectory:
        extras[TRAJECTORY] = "".join(f"{json.dumps(row)}\n" for row in facts.trajectory).encode()
    return extras


def _picture(facts: Facts) -> dict[str, bytes]:
    """The front of `retain`, or the coefficients by layer where they differ, or the path of their search."""
    front = facts.record.get("retain")
    if not front and not facts.groups and not facts.trajectory:
        return {}
    from selfpos.report.drawing import png
    from selfpos.report.figures import coefficient_path, layer_map, retained_front

    if front:
        return {FRONT: png(retained_front(front))}

    names = [parent.name for parent in facts.parents]
    if facts.groups:
        has_base = len(next(iter(facts.groups.values()))) == len(names) + 1
        return {LAYERS: png(layer_map(["base", *names] if has_base else names, facts.groups))}
    kept = [parent.coefficient for parent in facts.parents]
    figure = coefficient_path(names, facts.trajectory, kept, facts.search.get("step"))
    return {PATH: png(figure)} if figure else {}
