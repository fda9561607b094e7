"""What sentence-transformers does not have: a loss, and a stand-in for the model of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def supervised_info_nce(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised InfoNCE of a batch of embeddings (n, d) with integer labels (n,); a scalar.

    With unit vectors z, temperature τ and P(i) the other records with the label of record i:

        L = mean over i with P(i) not empty of  −1/|P(i)| · Σ_{p ∈ P(i)} log( exp(z_i·z_p/τ) / Σ_{a ≠ i} exp(z_i·z_a/τ) )

    Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv 2004.11362, equation 2 (L_out), as a mean over the anchors
    instead of a sum, so that its size does not depend on the batch. Zero (with zero gradient) when no two labels are equal.
    """
    # A product in bf16 would lose the small differences of cosine that a low temperature asks for.
    with torch.autocast(device_type=embeddings.device.type, enabled=False):
        units = nn.functional.normalize(
            embeddings.float() if embeddings.dtype != torch.float64 else embeddings, dim=1
        )
        own = torch.eye(len(units), dtype=torch.bool, device=units.device)
        similarities = (units @ units.T / temperature).masked_fill(own, -torch.inf)
        log_share = similarities - similarities.logsumexp(dim=1, keepdim=True)
        positive = (labels[:, None] == labels[None, :]) & ~own
        counts = positive.sum(dim=1)
        per_anchor = log_share.masked_fill(~positive, 0).sum(dim=1) / counts.clamp(min=1)
        return -per_anchor.sum() / (counts > 0).sum().clamp(min=1)


class Embedded(nn.Module):
    """Stands where a loss expects its model: the features it gets hold the embeddings already."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


class SupervisedInfoNCELoss(nn.Module):
    """`supervised_info_nce` as a loss of sentence-transformers, over `model`.

    Inputs: one text column, and integer class labels. Every batch should hold two or more texts of two or more labels, which
    `BatchSamplers.GROUP_BY_LABEL` sees to.
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

    def get_config_dict(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    @property
    def citation(self) -> str:
        return """
@inproceedings{khosla2020supervised,
    title = "Supervised Contrastive Learning",
    author = "Khosla, Prannay and Teterwak, Piotr and Wang, Chen and Sarna, Aaron and Tian, Yonglong and Isola, Phillip and
              Maschinot, Aaron and Liu, Ce and Krishnan, Dilip",
    booktitle = "Advances in Neural Information Processing Systems",
    volume = "33",
    year = "2020",
    url = "https://arxiv.org/abs/2004.11362",
}
"""
