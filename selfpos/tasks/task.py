"""What every task type has: the columns it accepts, and the four things a trainer or a probe asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.errors import SelfposError, nearest

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers

    from selfpos.recipe import PositioningSettings, TrainingSettings


class TaskType(ABC):
    """A kind of task. Records come in with whatever column names their source has, and go through two forms:

    - *canonical* (`canonical`): the type's own column names, nothing else;
    - *prepared* (`prepare`): the columns as the loss wants them, texts in order, then `label` or `score` where there is one.
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
    #: canonical columns whose text may be blank
    may_be_blank: ClassVar[frozenset[str]] = frozenset()
    #: prepared columns that are embedded, in the order in which the loss takes them
    text_columns: ClassVar[tuple[str, ...]]
    #: prepared column with what the loss learns from beside the texts
    target: ClassVar[str | None] = None
    #: value of sentence-transformers' BatchSamplers
    sampler: ClassVar[str] = "batch_sampler"
    #: what a validation split is scored by, in MTEB's words
    measure: ClassVar[str]
    #: MTEB's name of this type, under which a trained model keeps its prompts, so that MTEB finds them
    mteb_type: ClassVar[str]
    #: whether the first text asks and the others answer, so that they may have different prompts
    asks: ClassVar[bool] = False

    def under(self, settings: TrainingSettings | PositioningSettings) -> TaskType:
        """The type as `settings` would have it learnt, or searched by: another than itself where they choose among its losses."""
        return self

    @abstractmethod
    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        """The records as the loss wants them; accepts what `canonical` accepts. `seed` decides every random choice.

        Raises SelfposError for data from which nothing can be learnt."""

    @abstractmethod
    def loss(self, model: SentenceTransformer, temperature: float) -> torch.nn.Module:
        """The type's default loss over `model`, in sentence-transformers' interface: `loss(features, labels) -> scalar`."""

    @abstractmethod
    def draw(self, dataset: Dataset, batch_size: int, generator: torch.Generator) -> dict[str, list[Any]]:
        """One random batch of at most `batch_size` prepared records that is right for the loss, as columns.

        Draws are independent of each other. Raises SelfposError when the data set cannot give such a batch."""

    @property
    def batch_sampler(self) -> BatchSamplers:
        """How sentence-transformers' trainer draws this type's batches."""
        from sentence_transformers.sentence_transformer.training_args import BatchSamplers

        return BatchSamplers(self.sampler)

    def texts_of(self, columns: Iterable[str]) -> list[str]:
        """Those of the prepared `columns` that are embedded, in order: all of them but the target."""
        return [column for column in columns if column != self.target]

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        """Bring `dataset` to this type's column names; other columns are dropped.

        `columns` maps a canonical name to the data set's own, and goes before the accepted names. Raises SelfposError for an empty data
        set, an unknown name in `columns`, missing columns, a column that does not hold text where text is due, and null values.
        """
        if len(dataset) == 0:
            raise SelfposError(f"the data set for task type {self.name} has no records")
        found = self.find_columns(dataset, columns)
        renamed = dataset.select_columns(list(found.values())).rename_columns(
            {actual: name for name, actual in found.items()}
        )
        for name in found:
            self._check(renamed, name, found[name])
        return renamed

    def find_columns(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> dict[str, str]:
        """Canonical name → the column of `dataset` that is taken for it. Raises SelfposError as `canonical` does."""
        present, chosen = list(dataset.column_names), dict(columns or {})
        for name, actual in chosen.items():
            if name not in self.columns:
                raise SelfposError(
                    f"task type {self.name} has no column '{name}'{nearest(name, self.columns)}; it has {', '.join(self.columns)}"
                )
            if actual not in present:
                raise SelfposError(
                    f"the data has no column '{actual}' to take as '{name}'{nearest(actual, present)}; found {', '.join(present)}"
                )
        found: dict[str, str] = {}
        taken = set(chosen.values())
        for name, accepted in self.columns.items():
            column = chosen.get(name) or next(
                (known for known in accepted if known in present and known not in taken), None
            )
            if column is not None:
                found[name] = column
                taken.add(column)
        missing = [name for name in self.columns if name not in found and name not in self.optional]
        if missing:
            known_names = "; ".join(f"{name}: {' or '.join(self.columns[name])}" for name in missing)
            raise SelfposError(
                f"data for task type {self.name} lacks {' and '.join(missing)}: found columns {', '.join(present)}; "
                f"accepted names are {known_names}; other names can be given with 'columns'"
            )
        return found

    def _check(self, dataset: Dataset, name: str, actual: str) -> None:
        """Raise SelfposError unless column `name` (called `actual` at its source) holds what it should on every record."""
        nulls = dataset.with_format("arrow")[:][name].null_count
        if nulls:
            raise SelfposError(
                f"column '{actual}' has no value on {nulls} of {len(dataset)} records; drop them or fill them in"
            )
        if name in ("score", "label"):
            return
        feature = dataset.features[name]
        kinds = (feature, getattr(feature, "feature", None)) if name in self.listed else (feature,)
        if not any(getattr(kind, "dtype", None) in ("string", "large_string") for kind in kinds):
            wanted = "text or lists of text" if name in self.listed else "text"
            raise SelfposError(
                f"column '{actual}' must hold {wanted} to serve as '{name}' of task type {self.name}, found {feature}"
            )
