"""Measures of a classifier, and the scores of trained networks by every decision rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import rankdata
from torch import nn

from selfpos.imbalance.study.data import ImageData
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.sampling import Floats, Ints
from selfpos.imbalance.study.trainer import Sample, predict

Labelled = tuple[Floats, Ints]  # log-probabilities (n, K) and labels (n,)
TAUS = [step / 10 for step in range(21)]  # of which thresholding and τ-normalisation choose


def one_vs_rest_auc(scores: Floats, labels: Ints) -> Floats:
    """Area under the ROC curve of every class against all others, shape (K,), from scores (n, K);
    labels hold every class.

    Pass the plain softmax or its logarithm: after division by a prior the AUC is another.
    """
    n, classes = scores.shape
    positives = np.bincount(labels, minlength=classes).astype(np.float64)
    ranks = rankdata(scores, method="average", axis=0)
    sums = np.array([ranks[labels == label, label].sum() for label in range(classes)])
    return (sums - positives * (positives + 1) / 2) / (positives * (n - positives))


def decision_scores(decision: Floats, labels: Ints, minority: Ints) -> dict[str, Any]:
    """Accuracies and recalls, from 0 to 1, of predictions that are the argmax of `decision` (n, K)."""
    groups = group_recalls(decision, labels, minority)
    return {
        "accuracy": accuracy(decision, labels),
        "balanced_accuracy": groups.pop("balanced"),
        "recalls": class_recalls(decision, labels).tolist(),
        **groups,
    }


def accuracy(decision: Floats, labels: Ints) -> float:
    """The share of all examples that are predicted right."""
    return float((decision.argmax(axis=1) == labels).mean())


def class_recalls(decision: Floats, labels: Ints) -> Floats:
    """Share of each class's examples that are predicted right, shape (K,)."""
    classes = decision.shape[1]
    right = labels[decision.argmax(axis=1) == labels]
    return np.bincount(right, minlength=classes) / np.maximum(np.bincount(labels, minlength=classes), 1)


def group_recalls(decision: Floats, labels: Ints, minority: Ints, prefix: str = "") -> dict[str, float]:
    """The mean recall of all classes (balanced), of the minority and of the majority."""
    recalls = class_recalls(decision, labels)
    small = np.isin(np.arange(len(recalls)), minority)
    groups = {"balanced": recalls, "minority": recalls[small], "majority": recalls[~small]}
    return {prefix + name: float(values.mean()) for name, values in groups.items()}


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


@dataclass
class Trained:
    """The networks of a unit, their samples, and the image sets that they are scored on."""

    networks: list[Network]
    samples: list[Sample]
    positions: list[Ints]  # of each sample, as its method drew from them
    data: ImageData
    test: Ints  # positions of the test images that count
    per_class: int  # training images that the train-test gap is measured on, at most
    iterations: int
    curves: list[list[dict[str, float]]] = field(default_factory=list)

    @cached_property
    def train(self) -> Ints:
        """Scored training images (n, S), from those that each network was trained on."""
        return _first_of_each_class(self.samples, self.positions, self.per_class)

    @cached_property
    def whole(self) -> Ints:
        """Scored training images (n, S) of a second stage, which draws from the whole sample again."""
        return _first_of_each_class(self.samples, [s.positions for s in self.samples], self.per_class)

    def add_curve_point(self, iteration: int) -> None:
        """Score the networks as they are at `iteration`."""
        heads = {"": [network.head for network in self.networks]}
        test = predict(self.networks, heads, self.data.test, self.test)[""]
        train = predict(self.networks, heads, self.data.train, self.train)[""]
        test_labels, train_labels = self.data.test.labels[self.test], self.data.train.labels[self.train]
        self.curves = self.curves or [[] for _ in self.networks]
        for s, sample in enumerate(self.samples):
            point = {"iteration": iteration, "test_accuracy": accuracy(test[s], test_labels)}
            point |= group_recalls(test[s], test_labels, sample.minority, "test_")
            point |= group_recalls(train[s], train_labels[:, s], sample.minority, "train_")
            self.curves[s].append(point)

    def records(self, heads: dict[str, Sequence[nn.Module]]) -> list[dict[str, Any]]:
        """One record per set of heads (the networks' first), network and decision rule."""
        first, *stages = heads
        labels = self.data.train.labels
        test = predict(self.networks, heads, self.data.test, self.test)
        train = predict(self.networks, {first: heads[first]}, self.data.train, self.train)
        if stages:
            stage_heads = {name: heads[name] for name in stages}
            train |= predict(self.networks, stage_heads, self.data.train, self.whole)
        index = np.stack([sample.validation for sample in self.samples], axis=1)
        validation = predict(self.networks, heads, self.data.train, index) if len(index) else None
        records = []
        for name in heads:
            scored = self.train if name == first else self.whole
            for s, sample in enumerate(self.samples):
                common = {
                    "method": name,
                    "seed": sample.seed,
                    "total": int(sample.counts.sum()),
                    "sizes": sample.counts.tolist(),
                    "minority_classes": sample.minority.tolist(),
                    "curve": self.curves[s] if self.curves and name == first else [],
                    **group_recalls(train[name][s], labels[scored[:, s]], sample.minority, "train_"),
                }
                on_test = (test[name][s], self.data.test.labels[self.test])
                on_validation = None if validation is None else (validation[name][s], labels[index[:, s]])
                sampled = None
                if name == first:
                    sampled = np.bincount(sample.labels[self.positions[s]], minlength=self.data.classes)
                rules = _rule_scores(sample, on_test, on_validation, sampled)
                records += [common | scores for scores in rules]
        return records


def _rule_scores(
    sample: Sample, test: Labelled, validation: Labelled | None, effective: Ints | None
) -> Iterator[dict[str, Any]]:
    """The scores of one network by every decision rule: log-probabilities less τ times the log prior."""
    rules = {"plain": (sample.counts, 0.0), "original": (sample.counts, 1.0)}
    if effective is not None:
        rules["effective"] = (effective, 1.0)
    aucs = {"auc": float(one_vs_rest_auc(*test).mean())}
    if validation is not None:
        rules["tuned"] = (sample.counts, best_tau(*validation, sample.counts))
        aucs["validation_auc"] = float(one_vs_rest_auc(*validation).mean())
    for rule, (prior, tau) in rules.items():
        log_probs, labels = test
        decision = divide_by_prior(log_probs, prior, tau)
        scores = aucs | decision_scores(decision, labels, sample.minority)
        if validation is not None:
            log_probs, labels = validation
            decision = divide_by_prior(log_probs, prior, tau)
            scores["validation_accuracy"] = accuracy(decision, labels)
        yield {"rule": rule, "tau": tau, **scores}


def _first_of_each_class(samples: Sequence[Sample], positions: Sequence[Ints], count: int) -> Ints:
    """Training images (n, S): the first `count` of each class among the distinct `positions` of a sample."""
    columns = []
    for sample, drawn in zip(samples, positions, strict=True):
        unique = np.unique(drawn)
        labels = sample.labels[unique]
        first = [unique[labels == label][:count] for label in np.unique(labels)]
        columns.append(sample.index[np.concatenate(first)])
    return np.stack(columns, axis=1)
