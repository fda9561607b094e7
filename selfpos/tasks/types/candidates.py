"""Reranking as a cross-encoder learns it: a question and one candidate at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError
from selfpos.tasks import forms, labels
from selfpos.tasks.task import TaskType
from selfpos.tasks.types.retrieval import Reranking

if TYPE_CHECKING:
    from datasets import Dataset

RIGHT = 0.5
"""The grade from which a candidate counts as right where it must be right or wrong."""
GRADES = "score"


class CandidatePairs(Reranking):
    """Record: as of reranking, with a `score` for each of its positives and then of its negatives where the
    candidates are graded from 0 to 1.

    Sets with one candidate a record are gathered by question by their label, or by their grade, in `label`,
    `relevance`, … or `score`. Prepared: a pair a record, with 1 for right, 0 for wrong, or the grade. Loss:
    binary cross-entropy, −y log σ(s) − (1 − y) log(1 − σ(s)) of the model's output s (Nogueira and Cho 2019,
    arXiv 1901.04085; sentence-transformers' BinaryCrossEntropyLoss). Validation: mean average precision over
    each question's candidates.
    """

    text_columns = ("query", "candidate")
    target = "label"
    loss_name = "binary-cross-entropy"
    sampler = "batch_sampler"
    model_class = "CrossEncoder"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        found = [] if columns else self.forms_of(dataset.column_names)
        if found and _is_graded(labels.values_of(dataset, found[2])):
            dataset = _by_question(dataset, *found)
        if not columns and GRADES in dataset.column_names and forms.is_list(dataset, GRADES):
            texts = dataset.remove_columns(GRADES)
            return TaskType.canonical(self, texts).add_column(GRADES, dataset[GRADES][:])
        return super().canonical(dataset, columns)

    def forms_of(self, present: Sequence[str]) -> list[str]:
        """Question, candidate and label, or else score, of a set with one candidate a record."""
        found = super().forms_of(present)
        if found or GRADES not in present:
            return found
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
            grades = record.get(GRADES) or [1.0] * len(right) + [0.0] * len(wrong)
            for candidate, grade in zip([*right, *wrong], grades, strict=True):
                pairs.append((record["query"], candidate, float(grade)))
        names = (*self.text_columns, "label")
        return Records.from_list([dict(zip(names, pair, strict=True)) for pair in pairs])


def for_cross_encoder(task_type: TaskType) -> TaskType:
    """The type that a cross-encoder learns `task_type` by. Raises SelfposError where there is none."""
    if task_type.name != Reranking.name:
        raise SelfposError(
            f"a cross-encoder learns which candidates answer a question, from data for --task reranking; "
            f"task type {task_type.name} is for models that embed texts"
        )
    return CandidatePairs()


def _is_graded(values: Sequence[Any]) -> bool:
    """Whether the labels are numbers between right and wrong, rather than words or numbers for these."""
    return any(labels.word(value) not in labels.MEANING and _number(value) is not None for value in values)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number == number else None


def _by_question(dataset: Dataset, question: str, candidate: str, column: str) -> Dataset:
    """Graded candidates gathered by question, without those that have no grade or no text."""
    from datasets import Dataset as Records

    dataset = forms.plain_texts(dataset, [question, candidate], asks=False)
    sides: dict[str, dict[str, list[Any]]] = defaultdict(lambda: {"positive": [], "negative": []})
    grades: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"positive": [], "negative": []})
    values = labels.values_of(dataset, column)
    for query, text, value in zip(dataset[question], dataset[candidate], values, strict=True):
        grade = _number(value)
        if grade is None and labels.word(value) in labels.UNLABELLED:
            continue
        if grade is None or not 0 <= grade <= 1:
            raise SelfposError(
                f"column '{column}' holds the grade {value!r}; a cross-encoder learns grades from 0 (wrong) "
                "to 1 (right): divide them by the highest, or put a teacher's raw scores through a sigmoid"
            )
        if not (isinstance(query, str) and isinstance(text, str) and query.strip() and text.strip()):
            continue
        side = "positive" if grade >= RIGHT else "negative"
        sides[query][side].append(text)
        grades[query][side].append(grade)
    if not sides:
        raise SelfposError(f"none of {len(dataset)} candidates has a question, a text and a grade")
    return Records.from_dict(
        {
            "query": list(sides),
            **{side: [found[side] for found in sides.values()] for side in ("positive", "negative")},
            GRADES: [found["positive"] + found["negative"] for found in grades.values()],
        }
    )
