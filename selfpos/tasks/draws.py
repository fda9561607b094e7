"""One random batch for a probe. In training sentence-transformers' batch samplers keep the same promises."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


def _shuffled(count: int, generator: torch.Generator) -> list[int]:
    import torch

    return torch.randperm(count, generator=generator).tolist()


def distinct_texts(
    dataset: Dataset, texts: Sequence[str], target: str | None, batch_size: int, generator: torch.Generator
) -> list[int]:
    """Records no two of which share a text: else an in-batch negative would be another record's positive."""
    order = _shuffled(len(dataset), generator)
    # the first record may share a text with every other, though others are apart: then begin at another
    for first in range(min(len(order), 100)):
        rows = _greedy(dataset, texts, batch_size, order[first:])
        if len(rows) >= 2:
            return rows
    raise SelfposError(
        f"a batch needs 2 records that share no text, and there are none among {len(dataset)} records"
    )


def _greedy(dataset: Dataset, columns: Sequence[str], batch_size: int, order: list[int]) -> list[int]:
    """The first `batch_size` records in `order` that share no text with those before them."""
    chosen: list[int] = []
    used_texts: set[str] = set()
    for start in range(0, len(order), 2 * batch_size):
        rows = order[start : start + 2 * batch_size]
        records = dataset[rows]
        for row, *texts in zip(rows, *(records[column] for column in columns), strict=True):
            if used_texts.isdisjoint(texts):
                used_texts.update(texts)
                chosen.append(row)
                if len(chosen) == batch_size:
                    return chosen
    return chosen


def gives_no_batch(dataset: Dataset, texts: Sequence[str], batch_size: int) -> bool:
    """Whether there is no batch of records that share no text, however it is drawn, for want of texts in a
    column.
    """
    if len(_greedy(dataset, texts, batch_size, list(range(len(dataset))))) == batch_size:
        return False
    return any(len(set(dataset[column])) < batch_size for column in texts)


def why_no_batch(dataset: Dataset, texts: Sequence[str], batch_size: int) -> str:
    """Why no batch of records without a common text can be drawn, and what helps."""
    most = len(_greedy(dataset, texts, batch_size, list(range(len(dataset)))))
    counts = Counter(text for column in texts for text in dataset[column])
    text, count = counts.most_common(1)[0]
    remedy = f"lower the batch size to {most}" if most > 1 else "give records with other texts"
    return (
        f"no batch of {batch_size} records that share no text: the text {text[:60]!r} is in {count} of "
        f"{len(dataset)} records; {remedy}"
    )


def distinct_targets(
    dataset: Dataset, texts: Sequence[str], target: str | None, batch_size: int, generator: torch.Generator
) -> list[int]:
    """Records with two or more targets: a loss on the order of pairs learns nothing from equal ones."""
    order = _shuffled(len(dataset), generator)
    targets = dataset[target]
    first, chosen = targets[order[0]], order[:batch_size]
    if all(targets[row] == first for row in chosen):
        other = next((row for row in order[batch_size:] if targets[row] != first), None)
        if other is None:
            raise SelfposError(f"every record has the same {target}, {first}: there is no order to learn")
        chosen[-1] = other
    return chosen


def label_pairs(
    dataset: Dataset, texts: Sequence[str], target: str | None, batch_size: int, generator: torch.Generator
) -> list[int]:
    """Records of two or more labels, two or more of each: every record has a positive and a negative."""
    groups: dict[Any, list[int]] = defaultdict(list)
    labels = dataset["label"][:]
    for row in _shuffled(len(dataset), generator):
        groups[labels[row]].append(row)
    queues = [rows for rows in groups.values() if len(rows) >= 2]
    if len(queues) < 2 or batch_size < 4:
        raise SelfposError(
            f"a batch needs 2 labels with 2 records each: {len(queues)} such labels in {len(dataset)} "
            f"records, batch size {batch_size}"
        )
    chosen: list[int] = []
    while queues and len(chosen) + 2 <= batch_size:
        for rows in [queues[index] for index in _shuffled(len(queues), generator)]:
            if len(chosen) + 2 <= batch_size:
                chosen += [rows.pop(), rows.pop()]
        queues = [rows for rows in queues if len(rows) >= 2]
    return chosen


#: the rows of a batch, by the sampler that keeps the same promise in training
DRAWS: dict[str, Callable[..., list[int]]] = {
    "batch_sampler": distinct_targets,
    "no_duplicates": distinct_texts,
    "group_by_label": label_pairs,
}
