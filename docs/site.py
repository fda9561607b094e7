"""What the site has beside the pages of this folder: README, generated references, files that pages name.

mkdocs calls the functions named `on_…`; see mkdocs.yml.
"""

from __future__ import annotations

import posixpath
import re
import types
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import selfpos
from selfpos.cli import VERBS
from selfpos.cli import selfpos as command_line
from selfpos.merging import METHODS
from selfpos.recipe import Recipe

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")
TREE = "tree"
"""Where the site keeps files that lie outside docs/, by their path in the tree."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and every file of the tree that a page links to."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {
        "index.md": _rebased(readme, ROOT),
        "commands.md": commands(),
        "recipes.md": recipe_fields(),
        "methods.md": methods(),
        "api.md": api(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    texts = [readme, *(page.read_text(encoding="utf-8") for page in Path(config.docs_dir).glob("*.md"))]
    folders = [ROOT, *([ROOT / "docs"] * (len(texts) - 1))]
    seen: set[Path] = set()
    while texts:
        text, folder = texts.pop(), folders.pop()
        for target, _ in LINK.findall(text):
            file = (folder / target).resolve()
            if file in seen or not file.is_file() or file.is_relative_to(ROOT / "docs"):
                continue
            seen.add(file)
            path = f"{TREE}/{file.relative_to(ROOT).as_posix()}"
            if file.suffix != ".md":
                files.append(File.generated(config, path, abs_src_path=str(file)))
                continue
            texts.append(file.read_text(encoding="utf-8"))
            folders.append(file.parent)
            files.append(File.generated(config, path, content=_rebased(texts[-1], file.parent, path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The links of a page of docs/ to files of the tree, as the site keeps them."""
    generated = page.file.generated_by is not None
    return markdown if generated else _rebased(markdown, ROOT / "docs")


def _rebased(text: str, folder: Path, page: str = "index.md") -> str:
    """The text of a page that lies in `folder`, its links as from the site's page `page`, without those to
    folders.
    """

    def link(match: re.Match[str]) -> str:
        file = (folder / match[1]).resolve()
        if not file.is_file() or not file.is_relative_to(ROOT):
            return "]"
        inside = file.is_relative_to(ROOT / "docs")
        if file == ROOT / "README.md":
            place = "index.md"
        else:
            place = file.relative_to(ROOT / "docs" if inside else ROOT).as_posix()
            place = place if inside else f"{TREE}/{place}"
        return f"]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{match[2] or ''})"

    return LINK.sub(link, text)


def commands() -> str:
    """What `--help` says of every verb."""
    parts = ["# Commands"]
    context = click.Context(command_line, info_name="selfpos", max_content_width=90, terminal_width=90)
    for verb in VERBS:
        command = command_line.get_command(context, verb)
        assert command is not None
        parts += _help(command, context, f"selfpos {verb}", 2)
    return "\n\n".join(parts)


def _help(command: click.Command, parent: click.Context, title: str, level: int) -> list[str]:
    context = click.Context(command, info_name=command.name, parent=parent, max_content_width=90)
    context.terminal_width = 90
    parts = [f"{'#' * level} {title}", f"```text\n{command.get_help(context)}\n```"]
    for name, inner in getattr(command, "commands", {}).items():
        parts += _help(inner, context, f"{title} {name}", level + 1)
    return parts


def recipe_fields() -> str:
    """Every field of a recipe, with default and meaning, a table for each kind of settings."""
    about = "A recipe is a YAML file for `selfpos run`. Fields without default must be given."
    parts = ["# Recipes, every field", about]
    left: list[type[BaseModel]] = [Recipe]
    for model in left:  # grows as fields name other settings
        rows = ["| field | default | |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            inner = list(dict.fromkeys(_models_in(field.annotation)))
            left += [kind for kind in inner if kind not in left]
            seen = ", ".join(f"[{kind.__name__}](#{kind.__name__.lower()})" for kind in inner)
            text = (field.description or "").replace("[", "\\[")  # no link
            about = " ".join(filter(None, [text, seen]))
            rows.append(f"| `{name}` | {_default(field)} | {about.replace('|', chr(92) + '|')} |")
        summary = " ".join((model.__doc__ or "").split("\n\n")[0].split())
        parts += [f"## {model.__name__}", summary, "\n".join(rows)]
    return "\n\n".join(parts)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, dict, list, typing.Annotated):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    if isinstance(value, BaseModel):
        return "its defaults"
    return "–" if value is None else f"`{value}`"


def methods() -> str:
    """What `selfpos methods NAME` says of every method."""
    rows = ["| method | needs | |", "|---|---|---|"]
    parts = []
    for name, method in sorted(METHODS.items()):
        rows.append(f"| [`{name}`](#{name}) | {method.needs or '–'} | {method.summary} |")
        parts += [f"## {name}", f"```text\n{method.doc}\n```"]
    head = (
        "Start with `self-positioning` where there is a probe set or texts, else with `average` or `ties`; "
        "[the study](study.md) and [the results](results.md) compare them. `selfpos methods` lists the "
        "searches, too, which [Self Positioning](positioning.md) describes."
    )
    return "\n\n".join(["# Choose a method", head, "\n".join(rows), *parts])


def api() -> str:
    """Every public name, by its docstring."""
    homes = {name: home for home, names in selfpos._HOMES.items() for name in names}
    parts = ["# Python, every name"]
    for name in sorted(selfpos.__all__, key=str.lower):
        value = getattr(import_module(homes[name]), name)
        parts.append(f"::: {value.__module__}.{name}")
    return "\n\n".join(parts)
