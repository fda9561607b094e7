"""The contamination check: training data against the test data of the evaluation tasks, before training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import log, progress, tell
from selfpos.data.sources import LoadedSource, hash_records, load_task
from selfpos.errors import SelfposError
from selfpos.overlap.index import ItemIndex, Overlap, items_of
from selfpos.recipe import OverlapSettings, Recipe, TaskSource
from selfpos.storage.atomic import fresh_folder, write_text

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from selfpos.tasks import TaskType

HEADER = ["data", "MTEB task", "test items", "contained\nword for word", "nearly"]
HEADER += ["their texts\ncontained", "records\nwith one"]


class ContaminationCheck:
    """Compares data sets with test items: `overlaps` are the results, `unread` tasks without known items."""

    def __init__(self, index: ItemIndex, settings: OverlapSettings, unread: Sequence[str] = ()) -> None:
        self.index, self.settings, self.unread = index, settings, list(unread)
        self.overlaps: dict[str, Overlap] = {}

    def inspect(self, name: str, task_type: TaskType, source: LoadedSource) -> LoadedSource:
        """Check the records of `source`; with the setting `remove`, return those without a test item."""
        records = source.dataset
        overlap = self.index.check(records, task_type.texts_of(records.column_names))
        self.overlaps[name] = overlap
        if not overlap.rows:
            return source
        fate = "dropped" if self.settings.remove else "kept; 'remove' drops them"
        notice = f"{name}: {len(overlap.rows)} of {overlap.records} records contain a test item ({fate})"
        log.info(notice)
        tell(notice, "yellow")
        if not self.settings.remove:
            return source
        if len(overlap.rows) == overlap.records:
            raise SelfposError(
                f"every record of {name} contains a test item, so nothing is left to train on: "
                f"{source.description}"
            )
        contaminated = set(overlap.rows)
        clean = records.select([row for row in range(len(records)) if row not in contaminated])
        return replace(
            source,
            dataset=clean,
            description=f"{source.description}, {len(contaminated)} dropped as overlapping with test data",
            dropped={**source.dropped, "overlap with test data": len(contaminated)},
            hash=hash_records(clean),
        )

    def rows(self) -> list[list[str]]:
        """The results as a table with the columns `HEADER`, without data and tasks that share nothing."""
        rows = []
        for name, overlap in self.overlaps.items():
            for task, shared in overlap.tasks.items():
                if shared.texts or shared.records:
                    counts = (shared.items, shared.exact, shared.near, shared.texts, shared.records)
                    rows.append([name, task, *(f"{count:,}" for count in counts)])
        return rows

    def section(self) -> str:
        """The results as a section of a run's report, in HTML."""
        overlaps = {name: overlap for name, overlap in self.overlaps.items() if overlap.rows}
        contaminated = [f"{len(o.rows):,} of {o.records:,} records of {name}" for name, o in overlaps.items()]
        text, table = "None was found.", ""
        if contaminated:
            verb = "Left out" if self.settings.remove else "Kept"
            text = f"{verb}, though they contain test items: {', '.join(contaminated)}."
            head = _html_row(HEADER, "th")
            body = "\n".join(_html_row(cells, "td") for cells in self.rows())
            table = (
                f'<div class="scroll"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>\n'
            )
        if self.unread:
            text += f" Not checked, since their items are not known: {', '.join(self.unread)}."
        title = '<h2 id="overlap">Overlap of training and test data</h2>'
        return f'{title}\n<p class="soft">{escape(text)}</p>\n{table}'

    def write(self, file: Path) -> None:
        results: dict[str, Any] = {
            "settings": self.settings.model_dump(mode="json"),
            "not checked": self.unread,
            "sources": {name: overlap.facts() for name, overlap in self.overlaps.items()},
        }
        write_text(file, json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def open_check(settings: OverlapSettings, tasks: Sequence[AbsTask]) -> ContaminationCheck:
    """A check against the test data of `tasks`, which is read now."""
    tests, unread = {}, []
    with progress("reading test data", len(tasks), unit="tasks") as bar:
        for task in tasks:
            items = items_of(task)
            if items is None:
                unread.append(task.metadata.name)
            else:
                tests[task.metadata.name] = items
            bar.advance(1, items=float(sum(map(len, tests.values()))))
    return ContaminationCheck(ItemIndex(tests, settings.threshold), settings, unread)


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
) -> ContaminationCheck:
    """Check `sources` against the MTEB tasks `names` and those of `benchmark`.

    Without either, the tasks are those of `recipe`, else all in `data_dir`. Records that contain no test item
    go to the folder `remove`, `<source>/train.jsonl` each, with the results.
    """
    from selfpos.evaluation.select import local_tasks, recipe_tasks, select_tasks
    from selfpos.tasks import get_task

    seed = recipe.seed if recipe else 0
    loaded = {name: load_task(source, seed=seed, data_root=data_root) for name, source in sources.items()}
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
    check = open_check(settings, tasks)
    cleaned = {}
    with progress("comparing", sum(len(data.dataset) for data in loaded.values()), unit="records") as bar:
        for name, data in loaded.items():
            cleaned[name] = check.inspect(name, get_task(sources[name].type), data)
            overlapping = sum(len(overlap.rows) for overlap in check.overlaps.values())
            bar.advance(len(data.dataset), overlapping=float(overlapping))
    if remove is not None:
        _write_records(remove, cleaned, check)
    return check


def _write_records(folder: Path, sources: Mapping[str, LoadedSource], check: ContaminationCheck) -> None:
    with fresh_folder(folder) as fresh:
        for name, source in sources.items():
            (fresh / name).mkdir()
            with (fresh / name / "train.jsonl").open("w", encoding="utf-8") as stream:
                for record in source.dataset:
                    stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        check.write(fresh / "overlap.json")
