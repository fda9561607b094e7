"""Measures of a classifier: mean one-vs-rest AUC (the study's), accuracies, recalls by class and group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfpos.errors import SelfposError
from selfpos.imbalance.study.sampling import Ints

Floats = NDArray[np.float64]
TAUS = [step / 10 for step in range(21)]  # of which thresholding and τ-normalisation choose


def one_vs_rest_auc(scores: Floats, labels: Ints) -> Floats:
    """Area under the ROC curve of every class against all others, shape (K,), from scores (n, K).

    Ties get their mean rank. Only the order within a column counts, so log-probabilities serve. Pass the
    plain softmax: after division by a prior and normalisation the AUC is another.
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


def decision_scores(decision: Floats, labels: Ints, minority: Ints) -> dict[str, Any]:
    """Accuracies and recalls, from 0 to 1, of predictions that are the argmax of `decision` (n, K).

    `minority` holds the labels of the minority classes.
    """
    groups = group_recalls(decision, labels, minority)
    return {
        "accuracy": accuracy(decision, labels),
        "balanced_accuracy": groups.pop("balanced"),
        **groups,
        "recalls": class_recalls(decision, labels).tolist(),
    }


def accuracy(decision: Floats, labels: Ints) -> float:
    """The share of all examples that are predicted right."""
    return float((decision.argmax(axis=1) == labels).mean())


def class_recalls(decision: Floats, labels: Ints) -> Floats:
    """Share of each class's examples that are predicted right, shape (K,)."""
    classes = decision.shape[1]
    right = labels[decision.argmax(axis=1) == labels]
    return np.bincount(right, minlength=classes) / np.maximum(np.bincount(labels, minlength=classes), 1)


def group_recalls(decision: Floats, labels: Ints, minority: Ints) -> dict[str, float]:
    """The mean recall of all classes (balanced), of the minority and of the majority."""
    recalls = class_recalls(decision, labels)
    small = np.isin(np.arange(len(recalls)), minority)
    return {
        "balanced": float(recalls.mean()),
        "minority": float(recalls[small].mean()),
        "majority": float(recalls[~small].mean()),
    }


def divide_by_prior(log_probs: Floats, counts: Ints, tau: float = 1.0) -> Floats:
    """Thresholding in logarithms: log(y_i / p_i^τ) with p_i = n_i / Σn, shape (n, K), not normalised.

    τ = 1 is the study's thresholding (Buda et al. 2018, section 3.1.2), with the argmax of post-hoc logit
    adjustment (Menon et al. 2021, equation 9).
    """
    return log_probs - tau * np.log(counts / counts.sum())


def best_tau(log_probs: Floats, labels: Ints, counts: Ints) -> float:
    """The τ of TAUS with the best balanced accuracy on a validation set; the smallest of equals."""

    def balanced_accuracy(tau: float) -> float:
        return float(class_recalls(divide_by_prior(log_probs, counts, tau), labels).mean())

    return max(TAUS, key=balanced_accuracy)
