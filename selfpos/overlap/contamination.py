"""The overlap guard: training data looked at before it is trained on, against the test data of the evaluation tasks at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import log, progress, screen
from selfpos.errors import SelfposError
from selfpos.overlap.index import ItemIndex, Overlap
from selfpos.recipe import OverlapSettings

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from selfpos.data.sources import LoadedSource
    from selfpos.recipe import Recipe, TaskSource
    from selfpos.tasks import TaskType


class Guard:
    """Looks at one source after the other and remembers what it saw. `unread` are tasks of a kind whose items are not known."""

    def __init__(self, index: ItemIndex, settings: OverlapSettings, unread: Sequence[str] = ()) -> None:
        self.index, self.settings, self.unread = index, settings, list(unread)
        self.found: dict[str, Overlap] = {}

    def look(self, name: str, kind: TaskType, source: LoadedSource) -> LoadedSource:
        """Check the records of `source` and call them `name`; returns them without those that give test items away, where the settings ask for it.

        Raises SelfposError when none would be left.
        """
        from selfpos.data.sources import hash_records

        records = source.dataset
        found = self.found[name] = self.index.check(records, kind.texts_of(records.column_names))
        if found.rows:
            fate = "dropped" if self.settings.remove else "kept; 'remove' drops them"
            notice = f"{name}: {len(found.rows)} of {found.records} records give test items away ({fate})"
            log.info(notice)
            screen().print(f"[yellow]{notice}[/yellow]")
        if not (self.settings.remove and found.rows):
            return source
        if len(found.rows) == found.records:
            raise SelfposError(
                f"every record of {name} gives a test item away, so nothing is left to train on: {source.description}"
            )
        gone = set(found.rows)
        kept = records.select([row for row in range(len(records)) if row not in gone])
        description = f"{source.description}, {len(gone)} dropped as overlapping with test data"
        dropped = {**source.dropped, "overlap with test data": len(gone)}
        return replace(
            source, dataset=kept, description=description, dropped=dropped, hash=hash_records(kept)
        )

    def facts(self) -> dict[str, Any]:
        """Everything found so far, as JSON takes it."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "not checked": self.unread,
            "sources": {name: found.facts() for name, found in self.found.items()},
        }

    def rows(self) -> list[list[str]]:
        """Everything found so far as a table, `HEADER` being its columns; sources and tasks that share nothing are left out."""
        return [
            [
                name,
                task,
                f"{one.items:,}",
                f"{one.exact:,}",
                f"{one.near:,}",
                f"{one.texts:,}",
                f"{one.records:,}",
            ]
            for name, found in self.found.items()
            for task, one in found.tasks.items()
            if one.texts or one.records
        ]

    def section(self) -> str:
        """What was found as HTML, for the report of a run."""
        from html import escape

        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        lost = ", ".join(
            f"{len(one.rows):,} of {one.records:,} records of {name}"
            for name, one in self.found.items()
            if one.rows
        )
        says = (
            f"{'Left out' if self.settings.remove else 'Kept'}, though they give test items away: {lost}."
            if lost
            else "None was found."
        )
        unread = (
            f" Not looked at, since their items are not known: {', '.join(self.unread)}."
            if self.unread
            else ""
        )
        body = "\n".join(row(cells, "td") for cells in self.rows())
        table = (
            f'<div class="scroll"><table><thead>{row(HEADER, "th")}</thead><tbody>\n{body}\n</tbody></table></div>\n'
            if lost
            else ""
        )
        return f'<h2 id="overlap">Overlap of training and test data</h2>\n<p class="soft">{escape(says + unread)}</p>\n{table}'

    def write(self, file: Path) -> None:
        """Write `facts` to `file`."""
        from selfpos.storage.atomic import write_text

        write_text(file, json.dumps(self.facts(), indent=1, ensure_ascii=False) + "\n")


HEADER = [
    "data",
    "MTEB task",
    "test items",
    "given away\nword for word",
    "nearly",
    "their texts\nfound",
    "records\nthat do",
]


def open_guard(settings: OverlapSettings | None, tasks: Sequence[AbsTask]) -> Guard | None:
    """A guard over the test data of `tasks`, which is read now; None without settings."""
    if settings is None:
        return None
    from selfpos.overlap.items import items_of

    tests, unread = {}, []
    with progress("reading test data", len(tasks), unit="tasks") as bar:
        for task in tasks:
            items = items_of(task)
            if items is None:
                unread.append(task.metadata.name)
            else:
                tests[task.metadata.name] = items
            bar.advance(1, items=float(sum(map(len, tests.values()))))
    return Guard(ItemIndex(tests, settings.threshold), settings, unread)


def check_sources(
    sources: Mapping[str, TaskSource],
    settings: OverlapSettings,
    names: Sequence[str] = (),
    *,
    benchmark: str | None = None,
    data_dir: Path | None = None,
    data_root: Path | None = None,
    recipe: Recipe | None = None,
    remove: Path | None = None,
) -> Guard:
    """Check `sources` against MTEB tasks: those of `names` and `benchmark`, else those of `recipe`, else all whose data is in `data_dir`.

    With `remove` the records that give nothing away are written there, `<source>/train.jsonl` each with its type's column names, and the report
    beside them. Raises SelfposError on sources or tasks that cannot be read, and when there is nothing to check against.
    """
    from selfpos.data.sources import load_task
    from selfpos.evaluation.select import local_tasks, recipe_tasks, select_tasks
    from selfpos.tasks import get_task

    seed = recipe.seed if recipe else 0
    loaded = {
        name: (get_task(source.type), load_task(source, seed=seed, data_root=data_root))
        for name, source in sources.items()
    }
    if names or benchmark:
        tasks = select_tasks(names, benchmark=benchmark, data_dir=data_dir)
    elif recipe is not None:
        tasks = recipe_tasks(recipe.evaluation, data_dir or data_root)
    elif data_dir is not None:
        tasks = local_tasks(data_dir)
    else:
        raise SelfposError(
            "say what to compare with: --tasks, --benchmark, or --data-dir for all tasks whose data is there"
        )
    guard = open_guard(settings, tasks)
    assert guard is not None
    cleaned = {}
    with progress(
        "comparing", sum(len(found.dataset) for _, found in loaded.values()), unit="records"
    ) as bar:
        for name, (kind, found) in loaded.items():
            cleaned[name] = guard.look(name, kind, found)
            bar.advance(
                len(found.dataset), overlapping=float(sum(len(one.rows) for one in guard.found.values()))
            )
    if remove is not None:
        _write_records(remove, cleaned, guard)
    return guard


def _write_records(folder: Path, sources: Mapping[str, LoadedSource], guard: Guard) -> None:
    from selfpos.storage.atomic import fresh_folder

    with fresh_folder(folder) as fresh:
        for name, source in sources.items():
            (fresh / name).mkdir()
            with (fresh / name / "train.jsonl").open("w", encoding="utf-8") as stream:
                for record in source.dataset:
                    stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        guard.write(fresh / "overlap.json")
