"""What MTEB tasks score, as texts: the items that training data must not give away (see
`selfpos.overlap.index`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from selfpos.console import quiet_libraries

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from selfpos.overlap.index import Item


def items_of(task: AbsTask) -> list[Item] | None:
    """The items of the task's evaluation splits: pairs, texts or queries; None for a kind of task that is not
    known here. Its data is let go again.
    """
    with quiet_libraries(hide_warnings=True):
        columns = _columns(task)
        if columns is None:
            return None
        task.load_data()
        try:
            return [
                item
                for table in _tables(task)
                for item in zip(*(_texts(table[column]) for column in columns), strict=True)
            ]
        finally:
            task.unload_data()


def _columns(task: Any) -> list[str] | None:
    from mteb import abstasks

    if isinstance(task, abstasks.AbsTaskRetrieval):
        return ["text"]
    if isinstance(task, abstasks.AbsTaskSTS):
        return list(task.column_names)
    if isinstance(task, abstasks.AbsTaskPairClassification):
        both = [task.input1_column_name, task.input2_column_name]
        return both if all(isinstance(name, str) for name in both) else None
    if isinstance(task, abstasks.AbsTaskBitextMining):
        return None if task.parallel_subsets else ["sentence1", "sentence2"]
    name = getattr(task, "input_column_name", None)
    return [name] if isinstance(name, str) else None


def _tables(task: Any) -> Iterator[Any]:
    """The table of every split that is scored, of every subset; of retrieval that of its queries."""
    data = task.dataset
    scored = set(task.eval_splits)
    by_subset = data.values() if not scored & set(data) else [data]
    for splits in by_subset:
        for split in task.eval_splits:
            if split in splits:
                yield splits[split]["queries"] if "queries" in splits[split] else splits[split]


def _texts(column: Any) -> list[str]:
    """The texts of a column; older tasks keep a list of them in each row, conversations a list of turns."""
    return [text for value in column for text in ([value] if isinstance(value, str) else _spoken(value))]


def _spoken(value: Any) -> list[str]:
    if all(isinstance(turn, dict) for turn in value):
        return ["\n".join(str(turn.get("content", "")) for turn in value)]
    return [str(text) for text in value]
