"""Markdown from facts: the templates' environment, filters that neutralise text, and citations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.data.sources import corpus_view
from selfpos.publishing.facts import Parent, hub_datasets

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> Environment:
    """The templates, with the filters of this file."""
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
    kept = {name: value for name, value in values.items() if value not in (None, [], {})}
    return ", ".join(f"{plain(name)} {code(number(value))}" for name, value in kept.items())


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
