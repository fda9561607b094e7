"""Partition of many data sets into tasks by what their texts are like (Li et al., arXiv 2410.15035, section 6.1).

Of each data set some pairs of texts are embedded with the backbone; the mean of each side, one after the other, stands for the data set; k-means finds
groups of them. Data whose records are single texts with a label gives pairs of the same label.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import progress
from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, TaskSource

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.tasks import TaskType


@dataclass(frozen=True)
class Partition:
    """One partition: the data sets of each cluster, clusters by falling size; `silhouette` (−1..1, mean over data sets, higher is clearer; None where
    it is not defined) and `inertia`, the sum of squared distances to the centres."""

    clusters: list[list[str]]
    silhouette: float | None
    inertia: float


def sides(kind: TaskType, records: Dataset, count: int, seed: int) -> tuple[list[str], list[str]]:
    """At most `count` pairs of texts of a data set, as two lists: its first two columns of text, or two texts of one label.

    Raises SelfposError for data that the task type cannot prepare or draw pairs from.
    """
    import torch

    prepared = kind.prepare(records, seed)
    generator = torch.Generator().manual_seed(seed)
    texts = kind.texts_of(prepared.column_names)
    if len(texts) > 1:
        rows = torch.randperm(len(prepared), generator=generator)[:count].tolist()
        drawn = prepared[rows]
        return list(drawn[texts[0]]), list(drawn[texts[1]])
    drawn = kind.draw(prepared, 2 * count, generator)  # equal labels lie side by side
    return list(drawn[texts[0]][::2]), list(drawn[texts[0]][1::2])


def embed_sources(
    base: Path,
    sources: Mapping[str, tuple[TaskType, Dataset]],
    *,
    count: int = 100,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """One vector for each data set, (n, 2d) float32: mean embedding of the first side of its pairs, then of the second."""
    from sentence_transformers import SentenceTransformer

    from selfpos.console import quiet_libraries

    pairs = {}
    for name, (kind, records) in sources.items():
        try:
            pairs[name] = sides(kind, records, count, seed)
        except SelfposError as error:
            raise SelfposError(f"data {name}: {error}") from None
    rows = []
    with quiet_libraries(), progress("embedding", len(pairs), unit="data sets") as bar:
        model = SentenceTransformer(str(base), local_files_only=True)
        for name, both in pairs.items():
            means = [
                model.encode(side, batch_size=batch_size, show_progress_bar=False).mean(0) for side in both
            ]
            rows.append(np.concatenate(means))
            bar.advance(1, newest=name)
    return np.stack(rows)


def partition(vectors: np.ndarray, names: Sequence[str], count: int, seed: int = 0) -> Partition:
    """`names` in `count` groups by k-means of their `vectors` (n, m): k-means++, 10 starts, at most 300 rounds, as the paper's.

    Raises SelfposError when there are fewer names than groups.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    if not 2 <= count <= len(names):
        raise SelfposError(
            f"{len(names)} data sets cannot be parted into {count} clusters; ask for 2 to {len(names)}"
        )
    found = KMeans(count, init="k-means++", n_init=10, max_iter=300, random_state=seed).fit(vectors)
    groups: dict[int, list[str]] = defaultdict(list)
    for name, label in zip(names, found.labels_.tolist(), strict=True):
        groups[label].append(name)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group))
    defined = 1 < len(groups) < len(names)
    return Partition(
        ordered, float(silhouette_score(vectors, found.labels_)) if defined else None, float(found.inertia_)
    )


def cluster_tasks(
    clusters: Sequence[Sequence[str]], sources: Mapping[str, TaskSource], data_root: Path | None = None
) -> dict[str, TaskSource]:
    """The tasks of a recipe that trains one specialist a cluster, each from several data sets.

    A task has one type, split and choice of columns: where those differ within a cluster, it becomes several tasks, named after their types. Limits
    are added up. A source's `local` copy is put in place of its data when `data_root` says where it is, and is else left out.
    """
    tasks: dict[str, TaskSource] = {}
    for number, members in enumerate(clusters, start=1):
        groups: dict[tuple[Any, ...], list[TaskSource]] = defaultdict(list)
        for name in members:
            source = _at(sources[name], data_root)
            groups[source.type, source.split, tuple(sorted(source.columns.items()))].append(source)
        for kind, split, columns in groups:
            group = groups[kind, split, columns]
            limits = [source.limit for source in group]
            name = f"cluster-{number}" if len(groups) == 1 else f"cluster-{number}-{kind}"
            taken = sum(other == name or other.startswith(f"{name}.") for other in tasks)
            tasks[name if not taken else f"{name}.{taken + 1}"] = TaskSource(
                type=kind,
                data=[
                    place
                    for source in group
                    for place in ([source.data] if isinstance(source.data, str) else source.data)
                ],
                split=split,
                columns=dict(columns),
                limit=sum(limit for limit in limits if limit) if all(limits) else None,
            )
    return tasks


def cluster_recipe(recipe: Recipe, tasks: Mapping[str, TaskSource], count: int) -> str:
    """`recipe` with `tasks` in place of its own, as YAML text."""
    import yaml

    made = recipe.model_dump(mode="json", exclude_unset=True)
    made["name"] = f"{recipe.name}-{count}-clusters"
    made["base"] = recipe.base
    made["tasks"] = {
        name: source.model_dump(mode="json", exclude_defaults=True) for name, source in tasks.items()
    }
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=120)


def _at(source: TaskSource, data_root: Path | None) -> TaskSource:
    """The source, or its local copy below `data_root`."""
    local = source.local_copy
    return (
        source
        if local is None or data_root is None
        else local.model_copy(update={"data": str(data_root / str(local.data))})
    )
