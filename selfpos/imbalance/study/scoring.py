"""Scoring trained networks on test, validation and training images, by every decision rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from selfpos.imbalance.study import metrics
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.sources import ImageData
from selfpos.imbalance.study.trainer import Sample, predict

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Scoring:
    """The sets a unit's networks are scored on, and the points of their learning curves.

    The train-test gap is measured on at most `per_class` training images of every class: of those that the
    network was trained on, which are its `positions` in its sample, and for a second stage of all in the
    sample, from which it draws again.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        samples: Sequence[Sample],
        positions: Sequence[Ints],
        data: ImageData,
        test: Ints,
        per_class: int,
    ) -> None:
        self.networks, self.samples, self.data, self.test = networks, samples, data, test
        self.train = _first_of_each_class(samples, positions, per_class)
        self.whole = _first_of_each_class(samples, [sample.positions for sample in samples], per_class)
        self.curves: list[list[dict[str, float]]] = [[] for _ in networks]

    def look(self, iteration: int) -> None:
        heads = {"": [network.head for network in self.networks]}
        test = predict(self.networks, heads, self.data.test, self.test)[""]
        train = predict(self.networks, heads, self.data.train, self.train)[""]
        for s, sample in enumerate(self.samples):
            truth = self.data.test.labels[self.test]
            ours = self._groups(test[s], truth, sample)
            self.curves[s].append(
                {"iteration": iteration, "test_accuracy": float((test[s].argmax(axis=1) == truth).mean())}
                | {f"test_{name}": value for name, value in ours.items()}
                | {
                    f"train_{name}": value
                    for name, value in self._groups(
                        train[s], self.data.train.labels[self.train[:, s]], sample
                    ).items()
                }
            )

    @staticmethod
    def _groups(decision: Floats, labels: Ints, sample: Sample) -> dict[str, float]:
        recalls = metrics.class_recalls(decision, labels)
        small = np.isin(np.arange(len(recalls)), sample.minority)
        return {
            "balanced": float(recalls.mean()),
            "minority": float(recalls[small].mean()),
            "majority": float(recalls[~small].mean()),
        }

    def records(
        self, heads: dict[str, Sequence[nn.Module]], effective: Sequence[Ints]
    ) -> list[dict[str, Any]]:
        """One record per set of heads, network and decision rule; `effective` are the class sizes after
        sampling, for the first set.
        """
        test = predict(self.networks, heads, self.data.test, self.test)
        first, *stages = heads
        seen = {first: self.train} | dict.fromkeys(stages, self.whole)
        train = predict(self.networks, {first: heads[first]}, self.data.train, self.train)
        if stages:
            train |= predict(
                self.networks, {name: heads[name] for name in stages}, self.data.train, self.whole
            )
        reserve = np.stack([sample.validation for sample in self.samples], axis=1)
        validation = predict(self.networks, heads, self.data.train, reserve) if len(reserve) else None
        found = []
        for name in heads:
            for s, sample in enumerate(self.samples):
                truth, own = self.data.test.labels[self.test], self.data.train.labels
                rules: dict[str, tuple[Ints, float]] = {
                    "plain": (sample.counts, 0.0),
                    "original": (sample.counts, 1.0),
                }
                if name == first:
                    rules["effective"] = (effective[s], 1.0)
                if validation is not None:
                    rules["tuned"] = (
                        sample.counts,
                        metrics.best_tau(validation[name][s], own[reserve[:, s]], sample.counts),
                    )
                base = {
                    "method": name, "seed": sample.seed, "total": int(sample.counts.sum()), "sizes": sample.counts.tolist(),
                    "minority_classes": sample.minority.tolist(), "curve": self.curves[s] if name == first else [],
                    **{f"train_{key}": value for key, value in self._groups(train[name][s], own[seen[name][:, s]], sample).items()},
                }  # fmt: skip
                sets = {"": (test[name][s], truth)}
                if validation is not None:
                    sets["validation"] = (validation[name][s], own[reserve[:, s]])
                aucs = {
                    key: float(metrics.one_vs_rest_auc(scores, labels).mean())
                    for key, (scores, labels) in sets.items()
                }
                for rule, (prior, tau) in rules.items():
                    scored = {
                        key: metrics.score(
                            scores,
                            metrics.divide_by_prior(scores, prior, tau),
                            labels,
                            sample.minority,
                            aucs[key],
                        )
                        for key, (scores, labels) in sets.items()
                    }
                    record = base | {"rule": rule, "tau": tau} | asdict(scored[""])
                    if validation is not None:
                        record |= {
                            "validation_auc": aucs["validation"],
                            "validation_accuracy": scored["validation"].accuracy,
                        }
                    found.append(record)
        return found


def _first_of_each_class(samples: Sequence[Sample], positions: Sequence[Ints], count: int) -> Ints:
    """Training images (n, S): of every sample, the first `count` of each class among its `positions`,
    repeated ones once.
    """
    found = []
    for sample, own in zip(samples, positions, strict=True):
        unique = np.unique(own)
        labels = sample.labels[unique]
        found.append(
            sample.index[np.concatenate([unique[labels == label][:count] for label in np.unique(labels)])]
        )
    return np.stack(found, axis=1)
