"""What to cite for what was used, from `citations.bib`."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files


@cache
def _entries() -> dict[str, str]:
    """Method, technique or tool → its BibTeX entry."""
    text = files("selfpos.publishing").joinpath("citations.bib").read_text(encoding="utf-8")
    entries: dict[str, str] = {}
    for names, entry in re.findall(r"^% (.+)\n(@(?s:.+?)\n\})$", text, re.MULTILINE):
        entries |= dict.fromkeys(names.split(), entry)
    return entries


def bibtex(*used: str | None) -> list[str]:
    """The entries for the methods and tools in `used`, each once, in order; names without an entry are
    skipped.

    A method that combines others is their names joined by '-' (`dare-ties`), and cites each of them.
    """
    cited: list[str] = []
    for name in used:
        parts = [name] if name in _entries() else (name or "").split("-")
        cited += [_entries()[part] for part in parts if part in _entries()]
    return list(dict.fromkeys(cited))
