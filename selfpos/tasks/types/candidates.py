"""Reranking as a cross-encoder learns it: a question and one candidate at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks import forms, labels
from selfpos.tasks.task import TaskType
from selfpos.tasks.types.retrieval import Reranking, gathered

if TYPE_CHECKING:
    from datasets import Dataset

RIGHT = 0.5
"""The grade from which a candidate counts as right where it must be right or wrong."""
GRADES = "score"


class CandidatePairs(Reranking):
    """Record: as of reranking; where the candidates are graded, with a list in `score`, a grade from 0 to 1
    for each positive and then for each negative.

    Sets with one candidate a record are gathered by question by their label, or by their grade, in `label`,
    `relevance`, … or `score`. Prepared: a pair a record, with 1 for right, 0 for wrong, or the grade. Loss:
    binary cross-entropy, −y log σ(s) − (1 − y) log(1 − σ(s)) of the model's output s (Nogueira and Cho 2019,
    arXiv 1901.04085; sentence-transformers' BinaryCrossEntropyLoss). Validation: mean average precision over
    each question's candidates.
    """

    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {**Reranking.columns, GRADES: (GRADES,)}
    optional = frozenset({GRADES})
    text_columns = ("query", "candidate")
    target = "label"
    loss_name = "binary-cross-entropy"
    sampler = "batch_sampler"
    model_class = "CrossEncoder"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        columns_of_form = [] if columns else self.forms_of(dataset.column_names)
        if columns_of_form and _is_graded(labels.values_of(dataset, columns_of_form[2])):
            dataset = _by_question(dataset, *columns_of_form)
        elif columns_of_form:
            return super().canonical(dataset)
        sources = self.find_columns(dataset.column_names, columns)
        if GRADES not in sources:
            return super().canonical(dataset, columns)
        return TaskType.canonical(self, _with_grades_checked(dataset, sources), columns)

    def forms_of(self, present: Sequence[str]) -> list[str]:
        """Question, candidate and label, or else score, of a set with one candidate a record."""
        columns_of_form = super().forms_of(present)
        if columns_of_form or GRADES not in present:
            return columns_of_form
        renamed = super().forms_of(["label", *(name for name in present if name != GRADES)])
        return [*renamed[:2], GRADES] if renamed else []

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        from datasets import Dataset as Records

        pairs: list[tuple[str, str, float]] = []
        for record in self.canonical(dataset):
            right, wrong = (
                [side] if isinstance(side, str) else list(side)
                for side in (record["positive"], record["negative"])
            )
            grades = record.get(GRADES, [1.0] * len(right) + [0.0] * len(wrong))
            for candidate, grade in zip([*right, *wrong], grades, strict=True):
                pairs.append((record["query"], candidate, float(grade)))
        names = (*self.text_columns, "label")
        return Records.from_list([dict(zip(names, pair, strict=True)) for pair in pairs])

    def _check(self, dataset: Dataset, name: str, source: str) -> None:
        if name != GRADES:  # which `canonical` has checked
            super()._check(dataset, name, source)


def _is_graded(values: Sequence[Any]) -> bool:
    """Whether the labels are numbers between right and wrong, rather than words or numbers for these."""
    return any(
        labels.word(value) not in labels.MEANING and labels.number(value) is not None for value in values
    )


def _grade(value: Any, column: str) -> float | None:
    """A grade, None where there is none. Raises SelfposError for one that is not from 0 to 1."""
    grade = labels.number(value)
    if grade is None and labels.word(value) in labels.UNLABELLED:
        return None
    if grade is None or not 0 <= grade <= 1:
        raise SelfposError(
            f"column '{column}' holds the grade {value!r}; a cross-encoder learns grades from 0 (wrong) "
            "to 1 (right): divide them by the highest, or put a teacher's raw scores through a sigmoid"
        )
    return grade


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _by_question(dataset: Dataset, question: str, candidate: str, column: str) -> Dataset:
    """Graded candidates gathered by question, without those that have no question or no grade."""
    from datasets import Dataset as Records

    dataset = forms.plain_texts(dataset, [question, candidate], asks=False)
    graded: list[tuple[str, tuple[str, float], bool]] = []
    values = labels.values_of(dataset, column)
    for query, text, value in zip(dataset[question], dataset[candidate], values, strict=True):
        grade = _grade(value, column)
        if grade is not None and not _is_blank(query) and not _is_blank(text):
            graded.append((query, (text, grade), grade >= RIGHT))
    if not graded:
        raise SelfposError(f"none of {len(dataset)} candidates has a question, a text and a grade")
    sides = gathered(graded)
    return Records.from_dict(
        {
            "query": list(sides),
            "positive": [[text for text, _ in right] for _, right in sides.values()],
            "negative": [[text for text, _ in wrong] for wrong, _ in sides.values()],
            GRADES: [[grade for _, grade in right + wrong] for wrong, right in sides.values()],
        }
    )


def _with_grades_checked(dataset: Dataset, sources: Mapping[str, str]) -> Dataset:
    """The records of graded lists without candidates that have no text or no grade, and without questions
    that have no candidate left.
    """
    from datasets import Dataset as Records

    column = sources[GRADES]
    if not forms.is_list(dataset, column):
        raise SelfposError(
            f"column '{column}' holds no lists; give a list of grades a record, one for each positive and "
            f"then for each negative, or leave the column out, --column {GRADES}="
        )
    texts = [source for name, source in sources.items() if name != GRADES]
    plain = forms.plain_texts(dataset.select_columns([*texts, column]), texts, asks=True, blanks=True)
    kept: dict[str, list[Any]] = {source: [] for source in plain.column_names}
    for number, record in enumerate(plain, start=1):
        right, wrong = _graded_sides(record, sources, f"record {number}")
        if not right and not wrong:
            continue
        record |= {
            sources["positive"]: [text for _, text in right],
            sources["negative"]: [text for _, text in wrong],
            column: [grade for grade, _ in right + wrong],
        }
        for source, values in kept.items():
            values.append(record[source])
    if not kept[column]:
        raise SelfposError(f"none of {len(dataset)} questions has a candidate with a text and a grade")
    return Records.from_dict(kept)


def _graded_sides(
    record: Mapping[str, Any], sources: Mapping[str, str], where: str
) -> tuple[list[tuple[float, Any]], list[tuple[float, Any]]]:
    """The grades and texts of the positives and of the negatives, without candidates that lack either.

    Raises SelfposError where not each candidate has a place in the list of grades.
    """
    column = sources[GRADES]
    right, wrong, grades = (_listed(record[sources[name]]) for name in ("positive", "negative", GRADES))
    if len(grades) != len(right) + len(wrong):
        raise SelfposError(
            f"{where} has {len(grades)} grades in column '{column}' for {len(right)} positives and "
            f"{len(wrong)} negatives; give each a grade, in this order"
        )

    def used(grades: Sequence[Any], texts: Sequence[Any]) -> list[tuple[float, Any]]:
        graded = zip((_grade(value, column) for value in grades), texts, strict=True)
        return [(grade, text) for grade, text in graded if grade is not None and not _is_blank(text)]

    return used(grades[: len(right)], right), used(grades[len(right) :], wrong)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
