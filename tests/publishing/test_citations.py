"""Every method that can be used is cited, or at least named with its reference."""

from __future__ import annotations

import re

from selfpos.merging import METHODS
from selfpos.positioning.methods import METHODS as SEARCHES
from selfpos.publishing.card import bibtex


def keys(*used: str | None) -> list[str]:
    return [re.match(r"@\w+\{(\w+),", entry)[1] for entry in bibtex(*used)]  # type: ignore[index]


def test_methods_are_cited_by_what_they_are_made_of() -> None:
    assert keys("self-positioning") == ["li2024improving"]
    assert keys("dare-ties") == ["yu2024language", "yadav2023ties"]
    assert keys("model-stock", None, "ties", "ties") == ["jang2024model", "yadav2023ties"]
    assert keys("a-method-nobody-knows") == []


def test_every_method_is_cited_or_at_least_named_with_its_reference() -> None:
    """What is cited nowhere in print has an address only."""
    assert [name for name in [*METHODS, *SEARCHES] if not bibtex(name)] == ["nearswap"]
    assert all(method.reference.startswith("https://") for method in [*METHODS.values(), *SEARCHES.values()])


TECHNIQUES = ["lora", "cosent", "gradcache", "matryoshka", "pcgrad", "boom", "mteb", "sentence-transformers"]


def test_entries_are_whole() -> None:
    for entry in bibtex("self-positioning", *METHODS, *SEARCHES, *TECHNIQUES):
        assert entry.count("{") == entry.count("}")
        assert {"title", "author", "year"} <= set(re.findall(r"^  (\w+) = \{", entry, re.MULTILINE))
