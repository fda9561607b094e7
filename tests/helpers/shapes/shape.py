"""Shapes in which people have their data, each with what is to be read from it, or why it is refused.

The test reads each one; `benchmarks/data_shapes.py` makes the table of the docs of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Content = bytes | str | Callable[[Path], object]


@dataclass(frozen=True)
class Shape:
    """Files of one shape, read for `task` by its name in `files`, or the whole folder.

    `wanted` are the prepared records as tuples, or the words of the refusal. `example` is shown in the docs.
    """

    title: str
    task: str
    files: Mapping[str, Content]
    wanted: Sequence[tuple[Any, ...]] | str
    example: str = ""
    group: str = ""
    read: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(file)
            else:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / (self.read or (next(iter(self.files)) if len(self.files) == 1 else ""))


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def table(*rows: Sequence[str], by: str = "\t", end: str = "\n") -> str:
    return "".join(by.join(row) + end for row in rows)


def parquet(rows: list[dict[str, Any]], **names: list[str]) -> Callable[[Path], object]:
    def write(file: Path) -> None:
        _data(rows, names).to_parquet(str(file))

    return write


def saved(rows: list[dict[str, Any]], split: str = "", **names: list[str]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        import datasets

        data = _data(rows, names)
        (datasets.DatasetDict({split: data}) if split else data).save_to_disk(str(folder))

    return write


def _data(rows: list[dict[str, Any]], names: dict[str, list[str]]) -> Any:
    import datasets

    data = datasets.Dataset.from_list(rows)
    for column, labels in names.items():
        data = data.cast_column(column, datasets.ClassLabel(names=labels))
    return data


def arrow(rows: list[dict[str, Any]]) -> Callable[[Path], None]:
    """The rows as a file of Arrow, which is not the stream that `datasets` writes."""

    def write(file: Path) -> None:
        import pyarrow as pa

        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(str(file), table.schema) as sink:
            sink.write_table(table)

    return write


def zstandard(text: str) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text.encode())
    content: bytes = sink.getvalue().to_pybytes()
    return content


def pairs(
    labels: Sequence[Any], first: str = "sentence1", second: str = "sentence2", label: str = "label"
) -> list[dict[str, Any]]:
    return [{first: f"s{n}", second: f"t{n}", label: value} for n, value in enumerate(labels)]


def premises(labels: Sequence[Any], label: str = "label") -> list[dict[str, Any]]:
    return [{"premise": "p", "hypothesis": f"h{n}", label: value} for n, value in enumerate(labels)]


QA = [{"question": "q1", "answer": "a1"}, {"question": "q2", "answer": "a2"}]
READ = [("q1", "a1"), ("q2", "a2")]


def outcome(shape: Shape, folder: Path, *, streaming: bool = False) -> str:
    """`read` or `refused`, as is right; else `wrong: …` with what came out."""
    from selfpos.data.sources import load_source
    from selfpos.errors import SelfposError
    from selfpos.tasks import get_task

    kind = get_task(shape.task)
    try:
        loaded = load_source(str(shape.write(folder)), kind, columns=shape.columns, streaming=streaming)
        found = [tuple(record.values()) for record in kind.prepare(loaded.dataset, 0)]
    except SelfposError as error:
        words = str(error)
        right = isinstance(shape.wanted, str) and any(part in words for part in shape.wanted.split("|"))
        return "refused" if right and "\n" not in words else f"wrong: refused: {words}"
    return "read" if found == list(shape.wanted) else f"wrong: {found}"
