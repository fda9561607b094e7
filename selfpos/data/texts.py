"""Plain texts without labels: text files, files of records, folders of documents, the embedded corpus."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.data import files
from selfpos.data.folders import saved_splits
from selfpos.data.sources import corpus_view
from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import MODULES
from selfpos.tasks.forms import passage_text

if TYPE_CHECKING:
    from datasets import Dataset

FEWEST = 32  # distinct texts: with fewer, a text has too few others to be compared with
MOST = 256  # texts that are taken of a source: they are compared pair by pair
LINES = (".txt", ".text")
DOCUMENTS = (*LINES, ".md", ".rst")
ABOUT = re.compile(r"(readme|licen[cs]e)(\.(txt|text|md|rst))?|dataset_infos\.json", re.IGNORECASE)
"""Files at the top of a data set that are about its records."""


@dataclass(frozen=True)
class PlainTexts:
    """Distinct texts; `description` says where they are from and what was left out.

    `source` has all distinct texts that they were drawn from.
    """

    texts: list[str]
    description: str
    source: frozenset[str] = frozenset()

    @property
    def dataset(self) -> Dataset:
        """The texts as records with the column `text`."""
        from datasets import Dataset

        return Dataset.from_dict({"text": self.texts})


def read_texts(
    source: str, *, seed: int = 0, most: int = MOST, fewest: int = FEWEST, without: Collection[str] = ()
) -> PlainTexts:
    """Read texts, of which at most `most` are drawn with `seed`.

    Args:
        source: `corpus`, the docstrings of the Python packages on this machine; a text file with one text a
            line; a file of records (JSON Lines, JSON, CSV, TSV, Parquet), whose text columns are taken; or a
            folder: its `corpus` file in the BEIR layout, all splits of what `save_to_disk` wrote, else all
            such files below it, where text files are documents and each paragraph is a text.
        seed: of the draw.
        most: texts to keep.
        fewest: distinct texts that there must be.
        without: texts of others, which are not taken; with single spaces.

    Returns:
        The texts in the order of the source, each once.

    Raises:
        SelfposError: there is no such source, it is of no known kind, a file is damaged, or there are too few
            texts.
    """
    reader = _Reader()
    total = blank = other = shared = 0
    distinct: dict[str, None] = {}
    for value in reader.values(source):
        total += 1
        words = " ".join(value.split()) if isinstance(value, str) else ""
        other += not isinstance(value, str | None)
        blank += not words and isinstance(value, str | None)
        shared += words in without
        if words and words not in without:
            distinct.setdefault(words)
    counts = {
        "blank": blank,
        "repeated": total - blank - other - shared - len(distinct),
        "that are no text": other,
        "of others": shared,
    }
    reasons = [f"{count:,} {reason}" for reason, count in counts.items() if count]
    left_out = f" (left out: {', '.join(reasons)})" if reasons else ""
    if len(distinct) < fewest:
        raise SelfposError(
            f"{source} has {len(distinct)} distinct text{'s' * (len(distinct) != 1)}{left_out}, and {fewest} "
            "are needed; give more, or a larger source"
        )
    kept = list(distinct)
    if len(kept) > most:
        kept = [kept[row] for row in sorted(random.Random(seed).sample(range(len(kept)), most))]
    where = "the docstrings of the Python packages on this machine" if corpus_view(source) == "" else source
    count = f"{len(kept)} of {len(distinct):,}" if len(kept) < len(distinct) else str(len(kept))
    columns = f" ({' and '.join(reader.columns)})" if {*reader.columns} - {"text"} else ""
    return PlainTexts(kept, f"{count} texts of {where}{columns}{left_out}", frozenset(distinct))


@dataclass
class _Reader:
    """Reads the texts of a source, and notes the columns that it takes."""

    columns: dict[str, None] = field(default_factory=dict)

    def values(self, source: str) -> Iterator[Any]:
        """Texts, and what stands in their place."""
        if corpus_view(source) == "":
            from selfpos.data.corpus import load_corpus

            yield from (f"{entry.summary} {entry.body}" for entry in load_corpus().part("validation"))
            return
        path = Path(source).expanduser()
        if path.is_file():
            yield from self._of_file(path, paragraphs=False)
        elif path.is_dir():
            saved = saved_splits(path) or {}
            for records in saved.values():
                yield from self._of_records(records, path)
            for file in [] if saved else _documents(path):
                yield from self._of_file(file, paragraphs=True)
        else:
            raise SelfposError(f"there is no file or folder {path}; give texts, or 'corpus'")

    def _of_file(self, file: Path, *, paragraphs: bool) -> Iterator[Any]:
        kind = files.kind_of(file, DOCUMENTS)
        if kind:
            content = files.whole_text(file)
            whole = paragraphs or kind not in LINES
            yield from re.split(r"\n\s*\n", content) if whole else content.removesuffix("\n").split("\n")
        elif files.kind_of(file):
            yield from self._of_records(_Records(file), file)
        else:
            kinds = ", ".join((*DOCUMENTS, *files.KINDS))
            raise SelfposError(f"{file} is no file of texts; expected one that ends in {kinds}")

    def _of_records(self, records: Iterable[dict[str, Any]], where: Path) -> Iterator[Any]:
        """The texts of `records`, which are read twice."""
        found: dict[str, bool] = {}  # column → whether it holds text
        for record in records:
            for name, value in record.items():
                found[name] = found.get(name, False) or any(isinstance(item, str) for item in _items(value))
        columns = _text_columns(found)
        if found and not columns:
            raise SelfposError(f"{where} has no column 'text'; found {', '.join(found)}; rename one")
        self.columns |= dict.fromkeys(columns)
        for record in records:
            if columns == ["text"] and "title" in record:  # as BEIR has documents
                yield passage_text(record)
                continue
            for column in columns:
                yield from _items(record.get(column))


@dataclass(frozen=True)
class _Records:
    """The records of a file, as often as they are asked for."""

    file: Path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return files.iter_records(self.file)


def _documents(folder: Path) -> list[Path]:
    """The files of texts in `folder`: the corpus of a BEIR folder alone, else all of known kinds; beside
    records not what is about them.
    """
    if (folder / MODULES).is_file():
        raise SelfposError(f"{folder} is a model; give a file or folder of texts")
    if corpus := files.find(folder, "corpus"):
        return [corpus]
    below = sorted(file for file in folder.rglob("*") if file.is_file())
    visible = [file for file in below if not any(part[0] == "." for part in file.relative_to(folder).parts)]
    readable = [file for file in visible if files.kind_of(file, (*DOCUMENTS, *files.KINDS))]
    about = [file for file in readable if file.parent == folder and ABOUT.fullmatch(file.name)]
    if any(files.kind_of(file) for file in readable if file not in about):
        readable = [file for file in readable if file not in about]
    if not readable:
        kinds = ", ".join((*DOCUMENTS, *files.KINDS))
        raise SelfposError(f"folder {folder} has no file of texts; expected files that end in {kinds}")
    return readable


def _text_columns(found: dict[str, bool]) -> list[str]:
    """The columns to take of those `found`, and whether they hold text: `text` alone if it is there, else
    those that task types know, else the only one that holds text.
    """
    from selfpos.tasks import TASKS

    if "text" in found:
        return ["text"]
    columns = [names for task in TASKS.values() for names in task.columns.items()]
    accepted = {name for column, names in columns if column not in ("label", "score") for name in names}
    holding = [name for name, holds in found.items() if holds]
    return [name for name in holding if name.lower() in accepted] or (holding if len(holding) == 1 else [])


def _items(value: Any) -> list[Any]:
    """What is in one field: itself, or the items of a list."""
    return value if isinstance(value, list) else [value]
