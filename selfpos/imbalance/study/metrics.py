"""What a classifier is worth on a set: mean one-vs-rest AUC (the study's measure), accuracies, recalls by
class and by group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfpos.errors import SelfposError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """All shares between 0 and 1. `minority` and `majority` are mean recalls of the two groups of classes."""

    auc: float
    accuracy: float
    balanced_accuracy: float
    minority: float
    majority: float
    recalls: list[float]


def one_vs_rest_auc(scores: Floats, labels: Ints) -> Floats:
    """Area under the ROC curve of every class against all others, shape (K,), from scores (n, K) by ranks;
    ties get their mean rank.

    Only the order within a column counts, so log-probabilities serve as well as probabilities. Pass the plain
    softmax: what is divided by a prior and normalised again has other AUCs. Raises SelfposError when a class
    has no example, or there is no other.
    """
    from scipy.stats import rankdata

    n, classes = scores.shape
    positives = np.bincount(labels, minlength=classes).astype(np.float64)
    if (positives == 0).any() or (positives == n).any():
        raise SelfposError(
            f"AUC needs examples of every class, found counts {positives.astype(int).tolist()}"
        )
    ranks = rankdata(scores, method="average", axis=0)
    sums = np.array([ranks[labels == label, label].sum() for label in range(classes)])
    return (sums - positives * (positives + 1) / 2) / (positives * (n - positives))


def score(
    log_probs: Floats, decision: Floats, labels: Ints, minority: Ints, auc: float | None = None
) -> Scores:
    """Score one network on one set.

    `log_probs` (n, K): its log-softmax, for the AUC; `decision` (n, K): what its prediction is the argmax of.

    `minority` holds the labels of the minority classes; `auc` is the AUC where another decision on the same
    set had it computed.
    """
    recalls = class_recalls(decision, labels)
    small = np.isin(np.arange(len(recalls)), minority)
    return Scores(
        auc=float(one_vs_rest_auc(log_probs, labels).mean()) if auc is None else auc,
        accuracy=float((decision.argmax(axis=1) == labels).mean()),
        balanced_accuracy=float(recalls.mean()),
        minority=float(recalls[small].mean()),
        majority=float(recalls[~small].mean()),
        recalls=recalls.tolist(),
    )


def class_recalls(decision: Floats, labels: Ints) -> Floats:
    """Share of each class's examples that are predicted right, shape (K,)."""
    classes = decision.shape[1]
    right = labels[decision.argmax(axis=1) == labels]
    return np.bincount(right, minlength=classes) / np.maximum(np.bincount(labels, minlength=classes), 1)


def divide_by_prior(log_probs: Floats, counts: Ints, tau: float = 1.0) -> Floats:
    """Thresholding in logarithms: log(y_i / p_i^τ) with p_i = n_i / Σn, shape (n, K); not normalised again.

    τ = 1 is the study's thresholding (Buda et al. 2018, section 3.1.2) and, as a softmax shifts all logits of
    an example alike, the same argmax as Menon et al.'s post-hoc logit adjustment z_i − τ log π_i (2021,
    equation 9).
    """
    return log_probs - tau * np.log(counts / counts.sum())


def best_tau(log_probs: Floats, labels: Ints, counts: Ints) -> float:
    """The τ of 0, 0.1, …, 2 with the best balanced accuracy on a validation set; the smallest of equals."""
    grid = np.round(np.arange(21) * 0.1, 1)
    return float(
        max(
            grid,
            key=lambda tau: (class_recalls(divide_by_prior(log_probs, counts, tau), labels).mean(), -tau),
        )
    )
