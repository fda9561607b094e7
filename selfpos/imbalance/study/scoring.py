"""Scoring trained networks on test, validation and training images, by every decision rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from selfpos.imbalance.study import metrics
from selfpos.imbalance.study.images import ImageData
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.trainer import Sample, predict, validation_index

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Labelled = tuple[Floats, Ints]  # log-probabilities (n, K) and labels (n,)


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
            point = {"iteration": iteration, "test_accuracy": metrics.accuracy(test[s], test_labels)}
            point |= _groups("test", test[s], test_labels, sample)
            point |= _groups("train", train[s], train_labels[:, s], sample)
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
        kept = validation_index(self.samples)
        validation = predict(self.networks, heads, self.data.train, kept) if len(kept) else None
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
                    **_groups("train", train[name][s], labels[scored[:, s]], sample),
                }
                on_test = (test[name][s], self.data.test.labels[self.test])
                on_validation = None if validation is None else (validation[name][s], labels[kept[:, s]])
                sampled = None
                if name == first:
                    sampled = np.bincount(sample.labels[self.positions[s]], minlength=self.data.classes)
                for scores in _rule_scores(sample, on_test, on_validation, sampled):
                    records.append(common | scores)
        return records


def _rule_scores(
    sample: Sample, test: Labelled, validation: Labelled | None, effective: Ints | None
) -> Iterator[dict[str, Any]]:
    """The scores of one network by every decision rule: log-probabilities less τ times the log prior."""
    rules = {"plain": (sample.counts, 0.0), "original": (sample.counts, 1.0)}
    if effective is not None:
        rules["effective"] = (effective, 1.0)
    aucs = {"auc": float(metrics.one_vs_rest_auc(*test).mean())}
    if validation is not None:
        rules["tuned"] = (sample.counts, metrics.best_tau(*validation, sample.counts))
        aucs["validation_auc"] = float(metrics.one_vs_rest_auc(*validation).mean())
    for rule, (prior, tau) in rules.items():
        log_probs, labels = test
        decision = metrics.divide_by_prior(log_probs, prior, tau)
        scores = aucs | metrics.decision_scores(decision, labels, sample.minority)
        if validation is not None:
            log_probs, labels = validation
            decision = metrics.divide_by_prior(log_probs, prior, tau)
            scores["validation_accuracy"] = metrics.accuracy(decision, labels)
        yield {"rule": rule, "tau": tau, **scores}


def _groups(split: str, decision: Floats, labels: Ints, sample: Sample) -> dict[str, float]:
    recalls = metrics.group_recalls(decision, labels, sample.minority)
    return {f"{split}_{group}": value for group, value in recalls.items()}


def _first_of_each_class(samples: Sequence[Sample], positions: Sequence[Ints], count: int) -> Ints:
    """Training images (n, S): the first `count` of each class among the `positions` of every sample.

    Repeated positions count once.
    """
    columns = []
    for sample, drawn in zip(samples, positions, strict=True):
        unique = np.unique(drawn)
        labels = sample.labels[unique]
        first = [unique[labels == label][:count] for label in np.unique(labels)]
        columns.append(sample.index[np.concatenate(first)])
    return np.stack(columns, axis=1)
