"""Plain texts without labels: text files, files of records, folders of documents, the embedded corpus."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.data import files
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


@dataclass(frozen=True)
class PlainTexts:
    """Distinct texts; `description` says where they are from and what was left out."""

    texts: list[str]
    description: str

    @property
    def dataset(self) -> Dataset:
        """The texts as records with the column `text`."""
        from datasets import Dataset

        return Dataset.from_dict({"text": self.texts})


def read_texts(source: str, *, seed: int = 0, most: int = MOST, fewest: int = FEWEST) -> PlainTexts:
    """Read texts, of which at most `most` are drawn with `seed`.

    Args:
        source: `corpus`, the docstrings of the Python packages on this machine; a text file with one text a
            line; a file of records (JSON Lines, JSON, CSV, TSV, Parquet), whose text columns are taken; or a
            folder: its `corpus` file in the BEIR layout, else all such files below it, where text files are
            documents and each paragraph is a text.
        seed: of the draw.
        most: texts to keep.
        fewest: distinct texts that there must be.

    Returns:
        The texts in the order of the source, each once.

    Raises:
        SelfposError: there is no such source, it is of no known kind, a file is damaged, or there are too few
            texts.
    """
    blank = total = 0
    distinct: dict[str, None] = {}
    for text in _texts(source):
        total += 1
        words = " ".join(text.split())
        blank += not words
        if words:
            distinct.setdefault(words)
    if len(distinct) < fewest:
        raise SelfposError(
            f"{source} has {len(distinct)} distinct text{'s' * (len(distinct) != 1)}, and {fewest} are "
            "needed; give more, or a larger source"
        )
    kept = list(distinct)
    if len(kept) > most:
        kept = [kept[row] for row in sorted(random.Random(seed).sample(range(len(kept)), most))]
    where = "the docstrings of the Python packages on this machine" if corpus_view(source) == "" else source
    count = f"{len(kept)} of {len(distinct):,}" if len(kept) < len(distinct) else str(len(kept))
    repeated = total - blank - len(distinct)
    reasons = [f"{n:,} {reason}" for n, reason in ((blank, "blank"), (repeated, "repeated")) if n]
    left_out = f" (left out: {', '.join(reasons)})" if reasons else ""
    return PlainTexts(kept, f"{count} texts of {where}{left_out}")


def _texts(source: str) -> Iterator[str]:
    if corpus_view(source) == "":
        from selfpos.data.corpus import load_corpus

        yield from (f"{entry.summary} {entry.body}" for entry in load_corpus().part("validation"))
        return
    path = Path(source).expanduser()
    if path.is_file():
        yield from _file_texts(path, paragraphs=False)
    elif path.is_dir():
        for file in _documents(path):
            yield from _file_texts(file, paragraphs=True)
    else:
        raise SelfposError(f"there is no file or folder {path}; give texts, or 'corpus'")


def _documents(folder: Path) -> list[Path]:
    """The files of texts in `folder`: the corpus of a BEIR folder alone, else all of known kinds."""
    if (folder / MODULES).is_file():
        raise SelfposError(f"{folder} is a model; give a file or folder of texts")
    if corpus := files.find(folder, "corpus"):
        return [corpus]
    below = sorted(file for file in folder.rglob("*") if file.is_file())
    visible = [file for file in below if not any(part[0] == "." for part in file.relative_to(folder).parts)]
    readable = [file for file in visible if file.name.lower().endswith((*DOCUMENTS, *files.ENDINGS))]
    if not readable:
        kinds = ", ".join((*DOCUMENTS, *files.ENDINGS))
        raise SelfposError(f"folder {folder} has no file of texts; expected files that end in {kinds}")
    return readable


def _file_texts(file: Path, *, paragraphs: bool) -> Iterator[str]:
    name = file.name.lower()
    if name.endswith(DOCUMENTS):
        try:
            content = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            where = f"{error.reason} at byte {error.start}"
            raise SelfposError(f"{file} is not text in UTF-8 ({where})") from None
        whole = paragraphs or not name.endswith(LINES)
        yield from re.split(r"\n\s*\n", content) if whole else content.splitlines()
        return
    columns: list[str] = []
    record: dict[str, Any] = {}
    for record in files.iter_records(file):
        columns = columns or _text_columns(record)
        if columns == ["text"] and "title" in record:  # as BEIR has documents
            record = {"text": passage_text(record)}
        for column in columns:
            yield from _strings(record.get(column))
    if record and not columns:
        raise SelfposError(f"{file} has no column 'text'; found {', '.join(record)}; rename one")


def _text_columns(record: dict[str, Any]) -> list[str]:
    """The columns to take: `text` alone if it is there, else those that task types know, else the only one
    that holds text.
    """
    from selfpos.tasks import TASKS

    if "text" in record:
        return ["text"]
    columns = [names for task in TASKS.values() for names in task.columns.items()]
    accepted = {name for column, names in columns if column not in ("label", "score") for name in names}
    holding = [name for name, value in record.items() if any(True for _ in _strings(value))]
    return [name for name in holding if name.lower() in accepted] or (holding if len(holding) == 1 else [])


def _strings(value: Any) -> Iterator[str]:
    """The texts in one field: itself, or those of a list."""
    values = value if isinstance(value, list) else [value]
    yield from (item for item in values if isinstance(item, str))
