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

        from selfpos.tasks.prompts import column_prompts

        prepared = self.type.prepare(self.records, seed=0)
        before = column_prompts(self.type, self.prompts, prepared.column_names)
        if not before:
            return prepared
        columns = {column: [before.get(column, "") + text for text in prepared[column]] for column in before}
        return Records.from_dict(
            {column: columns.get(column, prepared[column][:]) for column in prepared.column_names}
        )


def hold_out(dataset: Dataset, count: int, seed: int | str) -> tuple[Dataset, Dataset]:
    """Split `dataset` into (training, probe) with `count` records in the probe, drawn with `seed`; both keep
    the order of the data.

    No text of the probe is trained on, but as a negative: a probe of pairs of which one half is known
    flatters the specialist that has seen it. So records that share texts are held out together; where they
    are too many for that, those that share a text with the probe are in neither part. Raises SelfposError
    when nothing would be left to train on.
    """
    if count >= len(dataset):
        raise SelfposError(
            f"a probe of {count} records leaves nothing of {len(dataset)} to train on; ask for a smaller "
            "probe or give more data"
        )
    rng = random.Random(f"probe {seed}")
    texts = positive_texts(dataset)
    groups = sharing(texts)
    rng.shuffle(groups)
    drawn: list[int] = []
    rest: list[int] = []
    for group in groups:
        # A large group would make the probe one subject's.
        whole = len(group) <= max(1, count // LARGEST_SHARE) and len(drawn) + len(group) <= count
        (drawn if whole else rest).extend(group)
    drawn += rng.sample(rest, count - len(drawn))
    known = {text for row in drawn for text in texts[row]}
    training = [row for row, found in enumerate(texts) if known.isdisjoint(found)]
    if not training:
        raise SelfposError(
            f"each of {len(dataset)} records shares a text with a probe of {count}: nothing is left to train "
            "on; ask for a smaller probe"
        )
    return dataset.select(training), dataset.select(sorted(drawn))


def positive_texts(dataset: Dataset) -> list[set[str]]:
    """The texts of each record, without negatives and the target."""
    found: list[set[str]] = [set() for _ in range(len(dataset))]
    for column in dataset.column_names:
        if column not in ("label", "score") and not column.startswith("negative"):
            for row, value in enumerate(dataset[column]):
                found[row].update(value if isinstance(value, list) else [value])
    return found


def sharing(texts: list[set[str]]) -> list[list[int]]:
    """Rows grouped so that no text is in two groups, each group as small as that allows, in order of the
    first row.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[str, int] = {}
    edges = [
        (row, len(texts) + numbers.setdefault(text, len(numbers)))
        for row, found in enumerate(texts)
        for text in sorted(found)
    ]
    rows, columns = np.array(edges).T
    size = len(texts) + len(numbers)
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (rows, columns)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = defaultdict(list)
    for row in range(len(texts)):
        groups[int(component[row])].append(row)
    return list(groups.values())


def write_probe(
    folder: Path,
    probe: Mapping[str, Dataset],
    types: Mapping[str, TaskType],
    prompts: Mapping[str, str | Mapping[str, str]] | None = None,
) -> Path:
    """Write the probe set as `folder`/probe.jsonl, one record per line with its task, type and `prompts`, and
    its hash in the manifest.

    Raises SelfposError when `folder` exists.
    """
    from selfpos.storage.atomic import fresh_folder
    from selfpos.storage.hashing import sha256_file
    from selfpos.storage.manifest import write_manifest

    with fresh_folder(folder) as fresh:
        with (fresh / FILE).open("w", encoding="utf-8") as stream:
            for task, records in probe.items():
                asked = (prompts or {}).get(task)
                head = {"task": task, "type": types[task].name} | ({"prompts": asked} if asked else {})
                for record in records:
                    stream.write(json.dumps(head | {"record": record}, ensure_ascii=False) + "\n")
        counts = {task: len(records) for task, records in probe.items()}
        write_manifest(fresh, {"probe": {"sha256": sha256_file(fresh / FILE), "records": counts}})
    return folder / FILE


def read_probe(folder: Path) -> dict[str, ProbeTask]:
    """The probe set in `folder` (or in the JSON Lines file given instead), task by task in the order of the
    file.

    Raises SelfposError for a missing or damaged file, and for one that is not what its manifest says was
    written.
    """
    from selfpos.storage.hashing import sha256_file
    from selfpos.storage.manifest import read_manifest
    from selfpos.tasks import get_task

    file = folder / FILE if folder.is_dir() else folder
    lines = read_records(file)
    written = (read_manifest(folder) or {}).get("probe") if folder.is_dir() else None
    if written is not None and written.get("sha256") != sha256_file(file):
        raise SelfposError(
            f"{file} is not the probe set that was written there: its SHA-256 differs from the one in "
            "selfpos.json"
        )
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    kinds: dict[str, str] = {}
    prompts: dict[str, Any] = {}
    for number, line in enumerate(lines, start=1):
        if not {"task", "type", "record"} <= set(line):
            raise SelfposError(
                f"{file}, record {number}: expected the fields task, type and record, found {', '.join(line)}"
            )
        if not isinstance(line["record"], dict):
            raise SelfposError(
                f"{file}, record {number}: the field record is to hold an object, found {line['record']!r}"
            )
        if not (isinstance(line["task"], str) and isinstance(line["type"], str)):
            raise SelfposError(
                f"{file}, record {number}: task and type are names, found {line['task']!r} and "
                f"{line['type']!r}"
            )
        if kinds.setdefault(line["task"], line["type"]) != line["type"]:
            raise SelfposError(
                f"{file}, record {number}: task {line['task']} is of type {line['type']} here and of type "
                f"{kinds[line['task']]} before"
            )
        asked = line.get("prompts", "")
        if not (
            isinstance(asked, str)
            or (isinstance(asked, dict) and all(isinstance(text, str) for text in asked.values()))
        ):
            raise SelfposError(
                f"{file}, record {number}: prompts are a text, or a mapping of query and document to texts, "
                f"found {asked!r}"
            )
        records[line["task"]].append(line["record"])
        prompts[line["task"]] = asked
    return {
        task: ProbeTask(task, get_task(kinds[task]), _table(file, task, found), prompts[task])
        for task, found in records.items()
    }


def _table(file: Path, task: str, records: list[dict[str, Any]]) -> Dataset:
    from datasets import Dataset
    from pyarrow import ArrowException

    try:
        return Dataset.from_list(records)
    except (ArrowException, TypeError) as error:
        raise SelfposError(f"{file}: the records of task {task} do not fit into one table: {error}") from None
