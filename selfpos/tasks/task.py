"""What every task type has: its columns, what a trainer and a probe need, and prompts before its texts.

A prompt is one text for all of a task's texts, or, for types that ask and answer, one for `query` and one for
`document`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.errors import SelfposError, nearest, unknown
from selfpos.tasks import forms

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from selfpos.recipe import PositioningSettings, TrainingSettings

Prompts = str | Mapping[str, str]
SIDES = ("query", "document")
TARGETS = ("label", "score")
ANOTHER = "; name another with"
"""Begins the advice of an error about columns, for those who can name them."""


class TaskType:
    """A kind of task. Records come with the column names of their source, and have two forms:

    - *canonical* (`canonical`): the type's column names, nothing else;
    - *prepared* (`prepare`): the columns as the loss takes them, texts in order, then `label` or `score` if
      there is one.
    """

    name: ClassVar[str]
    #: what a record is, in a few words
    summary: ClassVar[str]
    #: canonical column: the names under which data sets are known to carry it, the preferred one first
    columns: ClassVar[Mapping[str, tuple[str, ...]]]
    #: canonical columns that may be absent
    optional: ClassVar[frozenset[str]] = frozenset()
    #: canonical columns that may hold several texts per record
    listed: ClassVar[frozenset[str]] = frozenset()
    #: canonical columns whose text may be blank or absent in some records
    may_be_blank: ClassVar[frozenset[str]] = frozenset()
    #: prepared columns that are embedded, in the order in which the loss takes them
    text_columns: ClassVar[tuple[str, ...]]
    #: prepared column that the loss learns from beside the texts
    target: ClassVar[str | None] = None
    #: the loss: a name in `losses.LOSSES`
    loss_name: ClassVar[str]
    #: the class of sentence-transformers whose models learn by the loss
    model_class: ClassVar[str] = "SentenceTransformer"
    #: what a batch must fulfil: a value of sentence-transformers' BatchSamplers, and a name in `draws.DRAWS`
    sampler: ClassVar[str] = "batch_sampler"
    own_candidates: ClassVar[bool] = False
    """Whether the measure ranks each anchor's texts among themselves, not among those of all records."""
    #: MTEB's name of this type, under which a trained model keeps its prompts, so that MTEB uses them
    mteb_type: ClassVar[str]
    #: whether the first text asks and the others answer, so that they may have different prompts
    asks: ClassVar[bool] = False

    def under(self, settings: TrainingSettings | PositioningSettings) -> TaskType:
        """The type to learn or search by under `settings`: another one where they choose among its losses."""
        return self

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        """The records as the loss takes them, from what `canonical` accepts; `seed` decides random choices.

        Raises SelfposError for data from which nothing can be learnt."""
        return self.canonical(dataset)

    def loss(self, model: SentenceTransformer, temperature: float) -> torch.nn.Module:
        """The type's loss over `model`, called as `loss(features, labels)`."""
        from selfpos.tasks.losses import LOSSES

        return LOSSES[self.loss_name](model, temperature)

    def draw(self, dataset: Dataset, batch_size: int, generator: torch.Generator) -> dict[str, list[Any]]:
        """One random batch of at most `batch_size` prepared records, right for the loss, as columns."""
        from selfpos.tasks.draws import DRAWS

        texts = self.texts_of(dataset.column_names)
        return dict(dataset[DRAWS[self.sampler](dataset, texts, self.target, batch_size, generator)])

    def texts_of(self, columns: Iterable[str]) -> list[str]:
        """Those of the prepared `columns` that are embedded, in order: all of them but the target."""
        return [column for column in columns if column != self.target]

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        """Bring `dataset` to this type's column names; other columns are dropped.

        `columns` maps a canonical name to the data set's, and goes before the accepted names. Raises
        SelfposError for data that does not fit.
        """
        if len(dataset) == 0:
            raise SelfposError(f"the data set for task type {self.name} has no records")
        sources = self.find_columns(dataset.column_names, columns)
        renamed = dataset.select_columns(list(sources.values())).rename_columns(
            {source: name for name, source in sources.items()}
        )
        texts = [name for name in sources if name not in TARGETS]
        renamed = forms.plain_texts(renamed, texts, asks=self.asks)
        for name in sources:
            self._check(renamed, name, sources[name])
        return renamed

    def uses(self, present: Sequence[str], columns: Mapping[str, str] | None = None) -> list[str]:
        """Those of the columns `present` that `canonical` may read. Raises SelfposError as it does."""
        in_forms = self.forms_of(present)
        try:
            readable = {*self.find_columns(present, columns).values(), *in_forms}
        except SelfposError:
            if not in_forms or columns:
                raise
            readable = set(in_forms)
        return [name for name in present if name in readable]

    def forms_of(self, present: Sequence[str]) -> list[str]:
        """Those of the columns `present` that `canonical` reads in other forms of data sets than its own."""
        return []

    def renamed(self, present: Sequence[str]) -> dict[str, str]:
        """The columns `present` → their names as this type knows them: in lower case, with `_` for spaces and
        hyphens, but for names that it knows as they are, and those of which several would become one.
        """
        accepted = {name for names in self.columns.values() for name in names}
        plain = {name: "_".join(re.split(r"[\s-]+", name.strip().lower())) for name in present}
        counts = Counter(plain.values())
        return {name: name if name in accepted or counts[new] > 1 else new for name, new in plain.items()}

    def find_columns(
        self, present: Sequence[str], columns: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Canonical name → the one of the columns `present` taken for it; '' in `columns` stands for none.

        Raises SelfposError as `canonical` does.
        """
        chosen = dict(columns or {})
        left_out = {name for name, source in chosen.items() if not source and name in self.optional}
        for name, source in chosen.items():
            if name not in self.columns:
                raise SelfposError(
                    f"task type {self.name} has no column '{name}'{nearest(name, self.columns)}; "
                    f"it has {', '.join(self.columns)}"
                )
            if source not in present and name not in left_out:
                raise SelfposError(
                    f"the data has no column '{source}' to take as '{name}'{nearest(source, present)}; "
                    f"found {', '.join(present)}"
                )
        sources: dict[str, str] = {}
        for name, accepted in self.columns.items():
            if name in left_out:
                continue
            in_use = {*chosen.values(), *sources.values()}
            usable = [column for column in accepted if column in present and column not in in_use]
            if name in chosen or usable:
                sources[name] = chosen.get(name) or usable[0]
        missing = [name for name in self.columns if name not in sources and name not in self.optional]
        if missing:
            known_names = "; ".join(f"{name}: {' or '.join(self.columns[name])}" for name in missing)
            raise SelfposError(
                f"data for task type {self.name} lacks {' and '.join(missing)}: "
                f"found columns {', '.join(present)}; "
                f"accepted names are {known_names}{ANOTHER} --column {missing[0]}=NAME, in YAML "
                f"'columns: {{{missing[0]}: NAME}}'"
            )
        return sources

    def _check(self, dataset: Dataset, name: str, source: str) -> None:
        """Raise SelfposError unless column `name`, `source` in the data, holds what it should."""
        nulls = dataset.with_format("arrow")[:][name].null_count
        if nulls and name.partition("_")[0] not in self.may_be_blank:  # negative_2 as negative
            raise SelfposError(
                f"column '{source}' has no value on {nulls} of {len(dataset)} records; "
                "drop them or fill them in"
            )
        feature = dataset.features[name]
        if (name in TARGETS or name in self.listed) and forms.are_written_lists(dataset[name]):
            example = next(filter(None, dataset[name]))
            raise SelfposError(
                f"column '{source}' holds lists written as text, such as {example[:60]!r}; write "
                "the data as JSON Lines or Parquet, which hold lists"
            )
        if name in TARGETS:
            if forms.is_list(dataset, name):
                raise SelfposError(
                    f"column '{source}' holds a list of labels for each text: there is no task type for "
                    "texts with several labels; give each record one, or one record for each of its labels"
                )
            return
        if not any(dataset[name]):
            return  # nothing but blanks, where those may be
        kinds = (feature, getattr(feature, "feature", None)) if name in self.listed else (feature,)
        if not any(getattr(kind, "dtype", None) in ("string", "large_string") for kind in kinds):
            wanted = "text or lists of text" if name in self.listed else "text"
            raise SelfposError(
                f"column '{source}' must hold {wanted} to serve as '{name}' of task type {self.name}, "
                f"found {feature}"
            )


#: every task type under its name
TASKS: dict[str, TaskType] = {}


def register(cls: type[TaskType]) -> type[TaskType]:
    """Class decorator: register the task type under its name. Raises ValueError for a name that is taken."""
    if cls.name in TASKS:
        raise ValueError(f"task type '{cls.name}' is registered twice")
    TASKS[cls.name] = cls()
    return cls


def get_task(name: str) -> TaskType:
    """The task type of that name.

    Args:
        name: As `selfpos tasks` lists them.

    Returns:
        The task type.

    Raises:
        SelfposError: For an unknown name, with the nearest one.
    """
    if name not in TASKS:
        raise unknown("task type", name, TASKS)
    return TASKS[name]


def column_prompts(task_type: TaskType, prompts: Prompts, columns: Iterable[str]) -> dict[str, str]:
    """The prompt of each of the prepared text `columns` that has one."""
    by_side = _by_side(task_type, prompts)
    chosen = {column: by_side[SIDES[index > 0]] for index, column in enumerate(task_type.texts_of(columns))}
    return {column: prompt for column, prompt in chosen.items() if prompt}


def _by_side(task_type: TaskType, prompts: Prompts) -> dict[str, str]:
    if isinstance(prompts, str):
        return dict.fromkeys(SIDES, prompts)
    if not task_type.asks and prompts:
        raise SelfposError(
            f"task type {task_type.name} has no query and no document, so it takes one prompt, "
            f"found {dict(prompts)}"
        )
    if strange := set(prompts) - set(SIDES):
        raise SelfposError(f"prompts are for query and document, found {', '.join(sorted(strange))}")
    return dict.fromkeys(SIDES, "") | dict(prompts)


def kept_prompts(tasks: Mapping[str, tuple[TaskType, Prompts]]) -> dict[str, str]:
    """The prompts that a model trained on `tasks` keeps, by name.

    They go under MTEB's name of the type (`STS`, `Retrieval-query`), those of types that ask also under
    `query` and `document`, for `encode_query`. Where tasks disagree about a name, or one has no prompt, each
    keeps its prompt under the task's name instead.
    """
    wanted: dict[str, dict[str, str]] = {}
    for task, (task_type, prompts) in tasks.items():
        by_side = _by_side(task_type, prompts)
        if not task_type.asks:
            by_side = {"": by_side["query"]}
        for side, text in by_side.items():
            names = [f"{task_type.mteb_type}-{side}", side] if side else [task_type.mteb_type]
            for name in names:
                wanted.setdefault(name, {})[f"{task}-{side}" if side else task] = text
    kept: dict[str, str] = {}
    for name, texts in wanted.items():
        if len(set(texts.values())) == 1:
            kept[name] = next(iter(texts.values()))
        elif name not in SIDES:
            kept |= texts
    return {name: text for name, text in kept.items() if text}
