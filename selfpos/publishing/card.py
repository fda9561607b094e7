"""The model card: `README.md` of a model folder, made from facts. What is unknown is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from selfpos.console import markdown_table
from selfpos.data.sources import corpus_view
from selfpos.errors import SelfposError, printable_page
from selfpos.publishing import scores as scoring
from selfpos.publishing.facts import TRAJECTORY, DataSource, Facts, HubModel, Parent, hub_datasets, read_facts
from selfpos.publishing.metadata import Licence, Lookup, card_data, derive_licence, parse_licence
from selfpos.publishing.scores import ScoredModels, Scores
from selfpos.publishing.sources import OVERLAP, overlap_sentences, read_overlap
from selfpos.recipe import LEARNED
from selfpos.retention.story import index_rows, rows, sentences
from selfpos.storage.atomic import write_bytes
from selfpos.storage.file_kinds import MANIFEST
from selfpos.storage.hashing import content_hash

if TYPE_CHECKING:
    from jinja2 import Environment

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
    """All that a card is made from; `extras` are files it refers to, `models` this model's family in
    `scores`.
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
        facts, scores, this = self.facts, self.scores, self.models.this
        title = self.repo.rpartition("/")[2] if self.repo else facts.name
        table = scoring.score_table(scores, self.models) if scores and this else None
        search = "self-positioning" if facts.search and facts.method not in LEARNED else None
        cited = [facts.method, search, "lora" if facts.adapter else None, *facts.techniques]
        cited += [facts.merge.get("method") if facts.search.get("separated") else None]
        cited += ["mteb" if table else None, "sentence-transformers"]
        content = {
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
        pages = environment()
        sections = [pages.get_template(f"card/{name}.md.j2").render(content).strip() for name in SECTIONS]
        body = "\n\n".join(section for section in sections if section)
        metadata = card_data(facts, self.licence, title, scores, this).to_yaml()
        return printable_page(f"---\n{metadata}\n---\n" + re.sub(r"\n{3,}", "\n\n", body) + "\n")

    def linked(self, published: Mapping[str, HubModel], probe_set: str | None) -> Card:
        """The card with the repositories of parents and of the probe set that are (to be) published."""
        return replace(self, facts=self.facts.linked(published, probe_set))


def write_card(folder: Path, *, out: Path | None = None) -> Path:
    """Write `README.md` and the files it refers to into the model `folder`, which is going to be at `out`.

    Returns the path of the card. Without a licence shared by the parents, it states none.
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

    `results` holds the scores of this model and of its rivals, by default `folder/eval` or the scores of its
    run. `lookup` asks the Hub for the licence of parents; `overlap` is a report of `selfpos overlap`.
    """
    facts = read_facts(folder, path=out)
    if overlap is not None:
        facts = replace(facts, overlap=read_overlap([overlap]))
    root = results or scoring.find_scores(folder)
    scores = scoring.read_model_scores(root) if root else None
    if results is not None and scores is None:
        problem = "holds no results of MTEB" if results.is_dir() else "is no folder"
        raise SelfposError(
            f"--results {results} {problem}; give the folder that `selfpos eval-mteb --out` wrote, or nothing"
        )
    models = scoring.match_models(scores, facts, content_hash(folder)) if scores else ScoredModels()
    if scores and models.stale:
        scores = scores.of(scores.models.keys() - set(models.stale))
    if scores and root and root.name != scoring.FOLDER and results is None:
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
    return sentences + (scoring.worse_tasks(card.scores, card.models) if card.scores else [])


def _probe_rows(facts: Facts) -> list[dict[str, Any]]:
    """Per task of the probe set: type, records, source, and the losses before and after the search."""
    starts = [row["validation"] for row in facts.trajectory if "validation" in row]
    starts += [row["losses"] for row in facts.trajectory if row.get("scale") == 0]
    before, after = starts[0] if starts else {}, facts.search.get("losses") or {}
    entries = {task: DataSource(task) for task in after} | {entry.task: entry for entry in facts.probe}
    return [
        vars(entries[task]) | {"before": before.get(task), "after": after.get(task)}
        for task in dict.fromkeys([*(entry.task for entry in facts.probe), *after])
    ]


def _retained(facts: Facts) -> dict[str, Any] | None:
    """What `retain` found: the picture of its front, tables and sentences."""
    front = facts.record.get("retain")
    if not front:
        return None
    tables = [markdown_table(*rows(front))]
    if "index" in front:
        tables.append(markdown_table(*index_rows(front)))
    return {"figure": FRONT, "tables": tables, "sentences": sentences(front)}


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
    from selfpos.report.figures import coefficient_path, layer_map, png, retained_front

    if front:
        return {FRONT: png(retained_front(front))}

    names = [parent.name for parent in facts.parents]
    if facts.groups:
        has_base = len(next(iter(facts.groups.values()))) == len(names) + 1
        return {LAYERS: png(layer_map(["base", *names] if has_base else names, facts.groups))}
    coefficients = [parent.coefficient for parent in facts.parents]
    figure = coefficient_path(names, facts.trajectory, coefficients, facts.search.get("step"))
    return {PATH: png(figure)} if figure else {}


@cache
def environment() -> Environment:
    """The templates, with the filters of this file; compiled once."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Autoescape is for HTML; the filters below are for Markdown.
    loader = PackageLoader("selfpos.publishing")
    env = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for function in (plain, code, number, link, source, settings):
        env.filters[function.__name__] = function
    return env


def plain(value: object) -> str:
    """Text that cannot leave a Markdown table cell or start HTML."""
    text = "" if value is None else " ".join(str(value).split())
    for letter, written in {"\\": "\\\\", "|": "\\|", "<": "&lt;", "[": "\\[", "`": "\\`"}.items():
        text = text.replace(letter, written)
    return text


def code(value: object) -> str:
    text = " ".join(str(value).split("\n")).replace("|", "\\|").replace("`", "'")
    return f"`{text}`"


def number(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number(entry)}" for name, entry in value.items() if entry is not None)
    if isinstance(value, list | tuple):
        return ", ".join(number(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def settings(values: Mapping[str, Any]) -> str:
    """Settings as `name value` pairs, without those that are not set."""
    set_values = {name: value for name, value in values.items() if value not in (None, [], {})}
    return ", ".join(f"{plain(name)} {code(number(value))}" for name, value in set_values.items())


def link(parent: Parent | None) -> str:
    """A parent's name, linked to its commit on the Hub."""
    if parent is None:
        return ""
    if not parent.repo:
        return plain(parent.name)
    tree = f"/tree/{parent.revision}" if parent.revision else ""
    linked = f"[{plain(parent.repo)}](https://huggingface.co/{parent.repo}{tree})"
    return linked if parent.repo.endswith(parent.name) else f"{plain(parent.name)} ({linked})"


def source(text: str | None) -> str:
    """Where data came from: Hub data sets linked, a local path cut to its last part."""
    view = corpus_view(text or "")
    if view is not None:
        return f"docstrings of installed Python packages (selfpos's corpus{f', {view}' if view else ''})"
    if repos := hub_datasets(text or ""):
        return ", ".join(f"[{name}](https://huggingface.co/datasets/{name})" for name in repos)
    return plain(Path(text).name if text and Path(text).is_absolute() else text)


@cache
def _entries() -> dict[str, str]:
    """Method, technique or tool → its BibTeX entry."""
    text = files("selfpos.publishing").joinpath("citations.bib").read_text(encoding="utf-8")
    entries: dict[str, str] = {}
    for names, entry in re.findall(r"^% (.+)\n(@(?s:.+?)\n\})$", text, re.MULTILINE):
        entries |= dict.fromkeys(names.split(), entry)
    return entries


def bibtex(*used: str | None) -> list[str]:
    """The entries of `used`, each once; a method of several names joined by '-' (`dare-ties`) cites each."""
    cited: list[str] = []
    for name in used:
        parts = [name] if name in _entries() else (name or "").split("-")
        cited += [_entries()[part] for part in parts if part in _entries()]
    return list(dict.fromkeys(cited))
