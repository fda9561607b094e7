"""Markdown made safely from facts: the template environment of the cards, and the filters that their templates use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.publishing.story import Parent, hub_datasets

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Markdown, not HTML: what comes from outside is neutralised by the filters below instead.
    env = Environment(
        loader=PackageLoader("selfpos.publishing"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "plain": plain,
        "code": _code,
        "number": _number,
        "link": link,
        "source": _source,
        "settings": _settings,
    }
    return env


def plain(value: object) -> str:
    """Text that cannot break out of a Markdown table cell or start HTML."""
    text = "" if value is None else " ".join(str(value).split())
    return (
        text.replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("[", "\\[")
        .replace("`", "\\`")
    )


def _code(value: object) -> str:
    text = " ".join(str(value).split("\n")).replace("|", "\\|").replace("`", "'")
    return f"`{text}`"


def _number(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_number(entry)}" for name, entry in value.items() if entry is not None)
    if isinstance(value, list | tuple):
        return ", ".join(_number(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _settings(values: Mapping[str, Any]) -> str:
    """Settings as `name value` pairs; those that were not set are left out."""
    return ", ".join(
        f"{plain(name)} {_code(_number(value))}"
        for name, value in values.items()
        if value not in (None, [], {})
    )


def link(parent: Parent | None) -> str:
    """A parent's name, linked to the commit it was taken from where it is on the Hub."""
    if parent is None:
        return ""
    if not parent.repo:
        return plain(parent.name)
    tree = f"/tree/{parent.revision}" if parent.revision else ""
    link = f"[{plain(parent.repo)}](https://huggingface.co/{parent.repo}{tree})"
    return link if parent.repo.endswith(parent.name) else f"{plain(parent.name)} ({link})"


def _source(text: str | None) -> str:
    """Where data came from; Hub data sets linked, a path on the maker's disk cut to its last part."""
    if not text:
        return ""
    if text == "corpus":
        return "docstrings of installed Python packages (selfpos's corpus)"
    repos = hub_datasets(text)
    if repos:
        return ", ".join(f"[{name}](https://huggingface.co/datasets/{name})" for name in repos)
    return plain(Path(text).name if Path(text).is_absolute() else text)
