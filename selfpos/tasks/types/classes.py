"""The task types that models of the other classes of sentence-transformers learn."""

from __future__ import annotations

from selfpos.errors import SelfposError
from selfpos.storage.model_class import MULTI_VECTOR, RERANKER, SPARSE
from selfpos.tasks.task import TaskType
from selfpos.tasks.types.candidates import CandidatePairs
from selfpos.tasks.types.retrieval import Retrieval


class SparseRetrieval(Retrieval):
    """Retrieval as SPLADE learns it. Loss: InfoNCE by the model's similarity, and FLOPS penalties that keep
    questions and texts sparse (Formal et al. 2022, arXiv 2205.04733; sentence-transformers' SpladeLoss around
    SparseMultipleNegativesRankingLoss). Validation: nDCG@10 by that similarity.
    """

    loss_name = "splade"
    model_class = SPARSE


class MultiVectorRetrieval(Retrieval):
    """Retrieval as ColBERT learns it. Loss: InfoNCE by MaxSim, the sum over a question's tokens of the best
    cosine with a token of the text (Khattab and Zaharia 2020, arXiv 2004.12832; sentence-transformers'
    MultiVectorMultipleNegativesRankingLoss). Validation: nDCG@10 by MaxSim.
    """

    loss_name = "multi-vector-info-nce"
    model_class = MULTI_VECTOR


LEARNT: dict[str, tuple[TaskType, str]] = {
    RERANKER: (CandidatePairs(), "a cross-encoder learns which candidates answer a question"),
    SPARSE: (SparseRetrieval(), "a sparse encoder learns which text answers a question"),
    MULTI_VECTOR: (MultiVectorRetrieval(), "a multi-vector encoder learns which text answers a question"),
}
"""Class → the type that its models learn, and what that is, in words."""


def for_class(task_type: TaskType, model_class: str) -> TaskType:
    """The type that models of `model_class` learn `task_type` by. Raises SelfposError where there is none."""
    if model_class not in LEARNT:
        return task_type
    learnt, words = LEARNT[model_class]
    if task_type.name != learnt.name:
        raise SelfposError(
            f"{words}, from data for --task {learnt.name}; task type {task_type.name} is for other models"
        )
    return learnt
