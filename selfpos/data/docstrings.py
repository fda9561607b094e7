"""A docstring as prose: its summary, the rest of it without markup, and the names in its See Also section."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

# Sections whose prose is kept, in the order in which it is taken, after the text that follows the summary.
# Of tables (Parameters, Returns) only the indented descriptions are kept, not names and types.
PROSE_SECTIONS = ("notes", "warnings")
TABLE_SECTIONS = ("parameters", "attributes", "returns", "yields", "other parameters", "raises")
# Directives that go with everything indented below them; of others (note, warning) only the directive itself
# goes.
BLOCKS_TO_DROP = {
    "versionadded", "versionchanged", "deprecated", "math", "plot", "code-block", "seealso", "index",
    "doctest",
}  # fmt: skip

_UNDERLINE = re.compile(r"^\s*([-=~^])\1{2,}\s*$")
_DIRECTIVE = re.compile(r"^\s*\.\. +(\[[^\]]+\]|[\w-]+(?=::)):{0,2}(.*)$")
_ROLE = re.compile(r":[a-z:]+:`~?!?([^`]*)`")
_QUOTED = re.compile(r"`+([^`]+)`+_{0,2}")
_CITATION = re.compile(r"\s*\[[\w#*]+\]_")
_TEMPLATE = re.compile(r"%\(\w+\)[sd]")
_REFERENCE = re.compile(r"^[~!.]?([A-Za-z_][\w.]*)(?:\(\))?$")


@dataclass(frozen=True)
class Docstring:
    """`summary` and `body` are single lines of plain prose; `see_also` holds names as they are written."""

    summary: str
    body: str
    see_also: tuple[str, ...]


def parse_docstring(text: str, *, max_body: int) -> Docstring:
    """Split `text` (as in the source) into summary, body and See Also names.

    The summary is the first paragraph. The body is the rest: extended description, notes, then the
    descriptions of parameters and results, without doctests, directives, section titles, references and
    examples, cut at a word to at most `max_body` characters. The body never holds the summary: a sentence
    that repeats it is taken out.
    """
    lines = inspect.cleandoc(text).splitlines()
    head, sections = _split_sections(lines)
    end = next((i for i, line in enumerate(head) if not line.strip()), len(head))
    summary = plain(head[:end])
    parts = [plain(_without_blocks(head[end:]))]
    parts += [plain(_without_blocks(sections[name])) for name in PROSE_SECTIONS if name in sections]
    for name in TABLE_SECTIONS:
        descriptions = [line for line in sections.get(name, ()) if line[:1].isspace()]
        parts.append(plain(_without_blocks(descriptions)))
    body = " ".join(part for part in parts if part)
    body = _without_summary(body, summary)
    return Docstring(summary, cut(body, max_body), tuple(_see_also(sections.get("see also", []))))


def plain(lines: list[str]) -> str:
    """The lines as one line of prose: roles, quotes, citations and template fields are reduced to their
    words.
    """
    text = " ".join(line.strip() for line in lines)
    text = _TEMPLATE.sub(" ", _CITATION.sub("", text))
    text = _ROLE.sub(lambda match: match[1].split("<")[0].strip(), text)
    text = _QUOTED.sub(r"\1", text)
    return " ".join(text.replace("::", ":").split())


def cut(text: str, limit: int) -> str:
    """`text` up to the last whole word within `limit` characters."""
    if len(text) <= limit:
        return text
    return text[: limit + 1].rsplit(" ", 1)[0].rstrip(" ,;:")[:limit]


def _split_sections(lines: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The lines before the first underlined title, and the lines below each title (lower case)."""
    head: list[str] = []
    sections: dict[str, list[str]] = {}
    current = head
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if _UNDERLINE.match(line):
            continue
        if _UNDERLINE.match(below) and line.strip():
            current = sections.setdefault(line.strip().lower(), [])
        else:
            current.append(line)
    return head, sections


def _without_blocks(lines: list[str]) -> list[str]:
    """Drop doctests (up to the next blank line) and reStructuredText directives."""
    kept: list[str] = []
    indent: int | None = None  # of a directive whose block is being dropped
    doctest = False
    for line in lines:
        blank = not line.strip()
        width = len(line) - len(line.lstrip())
        if blank:
            doctest = False
            kept.append(line)
            continue
        if indent is not None and width > indent:
            continue
        indent = None
        doctest = doctest or line.lstrip().startswith(">>>")
        if doctest:
            continue
        directive = _DIRECTIVE.match(line)
        if directive is None:
            kept.append(line)
        elif directive[1].lower() in BLOCKS_TO_DROP or directive[1].startswith("["):
            indent = width
        else:
            kept.append(directive[2])
    return kept


def _without_summary(body: str, summary: str) -> str:
    if not summary:
        return body
    bare = re.escape(summary.rstrip(".!: "))
    return " ".join(re.sub(bare + r"[.!:]?", " ", body, flags=re.IGNORECASE).split())


def _see_also(lines: list[str]) -> list[str]:
    """Names in a See Also section: `a, b : why`, one line each; indented lines are descriptions."""
    names: list[str] = []
    for line in lines:
        if not line.strip() or line[0].isspace():
            continue
        listed = _ROLE.sub(r"\1", line).split(" : ")[0].rstrip(": ")
        parts = [part.strip(" `") for part in listed.split(",") if part.strip()]
        matches = [_REFERENCE.match(part) for part in parts]
        if all(matches):
            names += [match[1].strip(".") for match in matches if match]
    return list(dict.fromkeys(names))
