"""Data sets grouped into tasks by what their texts are like (Li et al., arXiv 2410.15035, section 6.1).

The mean embedding of each side of some pairs of texts represents a data set; k-means groups them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import progress, quiet_libraries
from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, TaskSource
from selfpos.storage.loading import loading
from selfpos.storage.model_class import check_embeds

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.tasks import TaskType


@dataclass(frozen=True)
class Partition:
    """The data sets of each cluster, largest first; `silhouette` from -1 to 1, None where undefined."""

    clusters: list[list[str]]
    silhouette: float | None


def text_pairs(task_type: TaskType, records: Dataset, count: int, seed: int) -> tuple[list[str], list[str]]:
    """At most `count` pairs of texts: the first two text columns, or two texts of one label."""
    import torch

    prepared = task_type.prepare(records, seed)
    generator = torch.Generator().manual_seed(seed)
    columns = task_type.texts_of(prepared.column_names)
    if len(columns) > 1:
        rows = prepared[torch.randperm(len(prepared), generator=generator)[:count].tolist()]
        return list(rows[columns[0]]), list(rows[columns[1]])
    texts = list(task_type.draw(prepared, 2 * count, generator)[columns[0]])  # equal labels are neighbours
    return texts[::2], texts[1::2]


def embed_sources(
    base: Path, sources: Mapping[str, tuple[TaskType, Dataset]], *, count: int = 100, seed: int = 0
) -> np.ndarray:
    """One vector per data set, (n, 2d) float32: the mean embeddings of both sides of its pairs."""
    from sentence_transformers import SentenceTransformer

    pairs = {}
    for name, (task_type, records) in sources.items():
        try:
            pairs[name] = text_pairs(task_type, records, count, seed)
        except SelfposError as error:
            raise SelfposError(f"data {name}: {error}") from None
    rows = []
    check_embeds(base)
    with quiet_libraries(), progress("embedding", len(pairs), unit="data sets") as bar:
        with loading(base):
            model = SentenceTransformer(str(base), local_files_only=True)
        for name, sides in pairs.items():
            means = [model.encode(side, show_progress_bar=False).mean(0) for side in sides]
            rows.append(np.concatenate(means))
            bar.advance(1, newest=name)
    return np.stack(rows)


def partition(vectors: np.ndarray, names: Sequence[str], count: int, seed: int = 0) -> Partition:
    """Group `names` by k-means of their `vectors` (n, m), with the paper's settings."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    if not 2 <= count <= len(names):
        raise SelfposError(f"{len(names)} data sets cannot form {count} clusters; choose 2 to {len(names)}")
    labels = KMeans(count, init="k-means++", n_init=10, max_iter=300, random_state=seed).fit(vectors).labels_
    groups: dict[int, list[str]] = defaultdict(list)
    for name, label in zip(names, labels.tolist(), strict=True):
        groups[label].append(name)
    defined = 1 < len(groups) < len(names)
    silhouette = float(silhouette_score(vectors, labels)) if defined else None
    return Partition(sorted(groups.values(), key=lambda group: (-len(group), group)), silhouette)


def cluster_tasks(
    clusters: Sequence[Sequence[str]], sources: Mapping[str, TaskSource], data_root: Path | None = None
) -> dict[str, TaskSource]:
    """The tasks of a recipe that trains one specialist a cluster.

    A cluster that mixes types, splits or columns becomes several tasks. With `data_root`, local copies are
    used.
    """
    tasks: dict[str, TaskSource] = {}
    for number, members in enumerate(clusters, start=1):
        groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[TaskSource]] = defaultdict(list)
        for name in members:
            source = sources[name]
            if data_root is not None and (local := source.local_copy):
                source = local.model_copy(update={"data": str(data_root / str(local.data))})
            groups[source.type, source.split, tuple(sorted(source.columns.items()))].append(source)
        for (task_type, split, columns), group in groups.items():
            name = f"cluster-{number}" if len(groups) == 1 else f"cluster-{number}-{task_type}"
            same = sum(other == name or other.startswith(f"{name}.") for other in tasks)
            data: list[str] = []
            for source in group:
                data += [source.data] if isinstance(source.data, str) else source.data
            limits = [source.limit for source in group]
            tasks[f"{name}.{same + 1}" if same else name] = TaskSource(
                type=task_type,
                data=data,
                split=split,
                columns=dict(columns),
                limit=sum(limit for limit in limits if limit) if all(limits) else None,
            )
    return tasks


def cluster_recipe(recipe: Recipe, tasks: Mapping[str, TaskSource], count: int) -> str:
    """`recipe` with `tasks` in place of its own, as YAML text."""
    import yaml

    fields = recipe.model_dump(mode="json", exclude_unset=True)
    fields |= {"name": f"{recipe.name}-{count}-clusters", "base": recipe.base}
    options: dict[str, Any] = {"mode": "json", "exclude_defaults": True}
    fields["tasks"] = {name: source.model_dump(**options) for name, source in tasks.items()}
    return str(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=120))
