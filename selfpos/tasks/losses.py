"""The losses of the task types, with one that sentence-transformers lacks; and a stand-in for a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder


def supervised_info_nce(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised InfoNCE of a batch of embeddings (n, d) with integer labels (n,); a scalar.

    With unit vectors z, temperature τ and P(i) the other records with the label of record i, the mean over i
    with P(i) not empty of −1/|P(i)| · Σ_{p ∈ P(i)} log( exp(z_i·z_p/τ) / Σ_{a ≠ i} exp(z_i·z_a/τ) ): Khosla
    et al., NeurIPS 2020, arXiv 2004.11362, equation 2 (L_out), as a mean over the anchors instead of a sum,
    so that its size does not depend on the batch. Zero (with zero gradient) when no two labels are equal.
    """
    # a product in bf16 would lose the small differences of cosine that a low temperature needs
    with torch.autocast(device_type=embeddings.device.type, enabled=False):
        exact = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        units = nn.functional.normalize(exact, dim=1)
        itself = torch.eye(len(units), dtype=torch.bool, device=units.device)
        similarities = (units @ units.T / temperature).masked_fill(itself, -torch.inf)
        log_share = similarities - similarities.logsumexp(dim=1, keepdim=True)
        positive = (labels[:, None] == labels[None, :]) & ~itself
        counts = positive.sum(dim=1)
        per_anchor = log_share.masked_fill(~positive, 0).sum(dim=1) / counts.clamp(min=1)
        return -per_anchor.sum() / (counts > 0).sum().clamp(min=1)


class Embedded(nn.Module):
    """Stands where a loss expects its model: the features it gets hold the embeddings already."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


class SupervisedInfoNCELoss(nn.Module):
    """`supervised_info_nce` as a loss of sentence-transformers, over `model`.

    Inputs: one text column, and integer class labels, two or more texts of two or more labels in a batch.
    """

    def __init__(self, model: SentenceTransformer, temperature: float = 0.05) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """The loss of one batch: tokenised texts (a single column) and their labels (n,)."""
        (features,) = sentence_features
        return self.compute_loss_from_embeddings([self.model(features)["sentence_embedding"]], labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of embeddings already computed: a list of one tensor (n, d), and labels (n,)."""
        return supervised_info_nce(embeddings[0], labels.view(-1), self.temperature)


def _info_nce(model: SentenceTransformer, temperature: float, **options: Any) -> nn.Module:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    return MultipleNegativesRankingLoss(model, scale=1 / temperature, **options)


def _cosent(model: SentenceTransformer, temperature: float) -> nn.Module:
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    return CoSENTLoss(model, scale=1 / temperature)


def _binary_cross_entropy(model: CrossEncoder, _: float) -> nn.Module:
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    return BinaryCrossEntropyLoss(model)


def _splade(model: SparseEncoder, temperature: float) -> nn.Module:
    """InfoNCE by the model's similarity, and the library's FLOPS penalties on both sides."""
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

    ranking = SparseMultipleNegativesRankingLoss(
        model, scale=1 / temperature, similarity_fct=model.similarity
    )
    return SpladeLoss(model, ranking, query_regularizer_weight=5e-5, document_regularizer_weight=3e-5)


def _multi_vector(model: MultiVectorEncoder, temperature: float) -> nn.Module:
    """InfoNCE by the model's similarity: MaxSim, or its mean over the question's tokens."""
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
    from sentence_transformers.multi_vector_encoder.scoring.colbert import colbert_scores, mean_colbert_scores

    similarity = {"maxsim": colbert_scores, "meanmaxsim": mean_colbert_scores}[model.similarity_fn_name]
    return MultiVectorMultipleNegativesRankingLoss(model, scale=1 / temperature, similarity_fct=similarity)


BOTH_WAYS: Any = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
#: name → loss of (model, temperature)
LOSSES: dict[str, Callable[[Any, float], nn.Module]] = {
    "info-nce": _info_nce,
    "info-nce-both-ways": partial(_info_nce, **BOTH_WAYS),
    "cosent": _cosent,
    "supervised-info-nce": SupervisedInfoNCELoss,
    "binary-cross-entropy": _binary_cross_entropy,
    "splade": _splade,
    "multi-vector-info-nce": _multi_vector,
}
