"""The probe set: a few records of each task, held out of its training data, on which coefficients are
searched. On disk one JSON Lines file.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.data.files import read_records
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.tasks import TaskType

FILE = "probe.jsonl"
# A group of records that share texts makes up at most one in this many of the probe.
LARGEST_SHARE = 10


@dataclass(frozen=True)
class ProbeTask:
    """One task's part of the probe set.

    `records` have the canonical columns of `type`; `prompts` are those the task is trained with.
    """

    name: str
    type: TaskType
    records: Dataset
    prompts: str | Mapping[str, str] = ""

    @cached_property
    def dataset(self) -> Dataset:
        """The records prepared for the type's loss, each text behind its prompt."""
        from datasets import Dataset as Records

        from selfpos.tasks.task import column_prompts

        prepared = self.type.prepare(self.records, seed=0)
        before = column_prompts(self.type, self.prompts, prepared.column_names)
        if not before:
            return prepared
        columns = {column: [before.get(column, "") + text for text in prepared[column]] for column in before}
        return Records.from_dict(
            {column: columns.get(column, prepared[column][:]) for column in prepared.column_names}
        )


def probe_size(count: int, records: int) -> int:
    """`count`, or a quarter where that is more than half of so many records."""
    return count if count <= records // 2 else max(2, records // 4)


def hold_out(dataset: Dataset, count: int, seed: int | str) -> tuple[Dataset, Dataset]:
    """Split records into those to train on and the probe.

    No text of the probe is trained on, except as a negative: a specialist that knows half of a pair would
    look too good. So records that share texts are held out together. Where there are too many of them, those
    that share a text with the probe are in neither part.

    Args:
        dataset: records with canonical columns.
        count: how many of them go into the probe.
        seed: of the draw.

    Returns:
        (training, probe), both in the order of the data.

    Raises:
        SelfposError: nothing would be left to train on.
    """
    if count >= len(dataset):
        raise SelfposError(
            f"a probe of {count} records leaves nothing of {len(dataset)} to train on; hold out fewer, or "
            "give more data"
        )
    rng = random.Random(f"probe {seed}")
    texts = positive_texts(dataset)
    groups = sharing(texts)
    rng.shuffle(groups)
    drawn: list[int] = []
    rest: list[int] = []
    for group in groups:
        # A large group would fill the probe with one subject.
        fits = len(group) <= max(1, count // LARGEST_SHARE) and len(drawn) + len(group) <= count
        (drawn if fits else rest).extend(group)
    drawn += rng.sample(rest, count - len(drawn))
    held_out = {text for row in drawn for text in texts[row]}
    training = [row for row, row_texts in enumerate(texts) if held_out.isdisjoint(row_texts)]
    if not training:
        raise SelfposError(
            f"each of {len(dataset)} records shares a text with a probe of {count}: nothing is left to train "
            "on; hold out fewer"
        )
    return dataset.select(training), dataset.select(sorted(drawn))


def positive_texts(dataset: Dataset) -> list[set[str]]:
    """The texts of each record, without negatives and the target."""
    texts: list[set[str]] = [set() for _ in range(len(dataset))]
    for column in dataset.column_names:
        if column not in ("label", "score") and not column.startswith("negative"):
            for row, value in enumerate(dataset[column]):
                texts[row].update(value if isinstance(value, list) else [value])
    return texts


def sharing(texts: list[set[str]]) -> list[list[int]]:
    """Rows in the smallest groups of which no two share a text, in the order of their first rows."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[str, int] = {}
    edges = []
    for row, row_texts in enumerate(texts):
        for text in sorted(row_texts):
            edges.append((row, len(texts) + numbers.setdefault(text, len(numbers))))
    rows, columns = np.array(edges).T
    size = len(texts) + len(numbers)
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (rows, columns)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = defaultdict(list)
    for row in range(len(texts)):
        groups[int(component[row])].append(row)
    return list(groups.values())


def write_probe(
    folder: str | Path,
    probe: Mapping[str, Dataset],
    types: Mapping[str, TaskType],
    prompts: Mapping[str, str | Mapping[str, str]] | None = None,
) -> Path:
    """Write a probe set as JSON Lines, one record a line with its task, type and prompts.

    Args:
        folder: where `probe.jsonl` and a manifest with its hash go; must not exist.
        probe: task → its records.
        types: task → its type.
        prompts: task → the prompts it is trained with.

    Returns:
        The path of `probe.jsonl`.

    Raises:
        SelfposError: `folder` exists.
    """
    from selfpos.storage.atomic import fresh_folder
    from selfpos.storage.hashing import sha256_file
    from selfpos.storage.manifest import write_manifest

    folder = Path(folder)
    with fresh_folder(folder) as fresh:
        with (fresh / FILE).open("w", encoding="utf-8") as stream:
            for task, records in probe.items():
                head: dict[str, Any] = {"task": task, "type": types[task].name}
                if task_prompts := (prompts or {}).get(task):
                    head["prompts"] = task_prompts
                for record in records:
                    stream.write(json.dumps(head | {"record": record}, ensure_ascii=False) + "\n")
        counts = {task: len(records) for task, records in probe.items()}
        write_manifest(fresh, {"probe": {"sha256": sha256_file(fresh / FILE), "records": counts}})
    return folder / FILE


def read_probe(folder: str | Path) -> dict[str, ProbeTask]:
    """Read a probe set.

    Args:
        folder: a folder with `probe.jsonl`, or such a file itself.

    Returns:
        Task → its part of the probe set, in the order of the file.

    Raises:
        SelfposError: the file is missing or damaged, or not the one that its manifest names.
    """
    from selfpos.storage.hashing import sha256_file
    from selfpos.storage.manifest import read_manifest
    from selfpos.tasks import get_task

    folder = Path(folder)
    file = folder / FILE if folder.is_dir() else folder
    lines = read_records(file)
    written = read_manifest(folder).get("probe") if folder.is_dir() else None
    if written is not None and written.get("sha256") != sha256_file(file):
        raise SelfposError(
            f"{file} is not the probe set that was written there: its SHA-256 differs from that in "
            "selfpos.json"
        )
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    types: dict[str, str] = {}
    prompts: dict[str, Any] = {}
    for number, line in enumerate(lines, start=1):
        if fault := _fault(line, types):
            raise SelfposError(f"{file}, record {number}: {fault}")
        task = line["task"]
        types[task] = line["type"]
        records[task].append(line["record"])
        prompts[task] = line.get("prompts", "")
    probe = {}
    for task, task_records in records.items():
        probe[task] = ProbeTask(task, get_task(types[task]), _table(file, task, task_records), prompts[task])
    return probe


def _fault(line: dict[str, Any], types: Mapping[str, str]) -> str:
    """What is wrong with one line of a probe set; empty where nothing is. `types` are those of the lines
    before.
    """
    if not {"task", "type", "record"} <= line.keys():
        return f"expected the fields task, type and record, found {', '.join(line)}"
    task, task_type, prompts = line["task"], line["type"], line.get("prompts", "")
    if not isinstance(line["record"], dict):
        return f"the field record must hold an object, found {line['record']!r}"
    if not (isinstance(task, str) and isinstance(task_type, str)):
        return f"task and type are names, found {task!r} and {task_type!r}"
    if types.get(task, task_type) != task_type:
        return f"task {task} is of type {task_type} here and of type {types[task]} before"
    texts = prompts.values() if isinstance(prompts, dict) else [prompts]
    if not all(isinstance(text, str) for text in texts):
        return f"prompts are a text, or a mapping of query and document to texts, found {prompts!r}"
    return ""


def _table(file: Path, task: str, records: list[dict[str, Any]]) -> Dataset:
    from datasets import Dataset
    from pyarrow import ArrowException

    try:
        return Dataset.from_list(records)
    except (ArrowException, TypeError) as error:
        raise SelfposError(f"{file}: the records of task {task} do not fit into one table: {error}") from None
