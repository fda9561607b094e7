from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.imbalance.study.methods import METHODS, get_method
from selfpos.imbalance.study.sampling import class_balanced_stream, oversample, stream, undersample

LABELS = np.repeat(np.arange(4), [40, 4, 20, 1])


def test_full_sampling_balances() -> None:
    over, under = oversample(LABELS, 0), undersample(LABELS, 0)
    assert np.bincount(LABELS[over]).tolist() == [40] * 4
    assert set(over.tolist()) == set(range(len(LABELS)))  # every original stays
    assert np.bincount(LABELS[under]).tolist() == [1] * 4
    assert len(set(under.tolist())) == len(under)


def test_partial_sampling_reaches_the_ratio() -> None:
    assert np.bincount(LABELS[oversample(LABELS, 0, 4)]).tolist() == [40, 10, 20, 10]
    assert np.bincount(LABELS[undersample(LABELS, 0, 4)]).tolist() == [4, 4, 4, 1]
    assert np.array_equal(oversample(LABELS, 5, 4), oversample(LABELS, 5, 4))
    assert not np.array_equal(oversample(LABELS, 5), oversample(LABELS, 6))


def test_streams_draw_equally_often() -> None:
    indices = np.arange(100, 110)
    drawn = np.concatenate(list(islice(stream(indices, 64, seed=1), 10)))
    assert len(drawn) == 640
    assert np.bincount(drawn - 100).tolist() == [64] * 10


def test_class_balanced_stream_is_uniform_over_classes() -> None:
    drawn = np.concatenate(
        list(islice(class_balanced_stream(np.arange(len(LABELS)), LABELS, 50, seed=0), 200))
    )
    shares = np.bincount(LABELS[drawn]) / len(drawn)
    assert np.abs(shares - 0.25).max() < 0.02
    assert len(set(drawn.tolist())) == len(LABELS)


def test_methods_by_name() -> None:
    assert {
        "baseline",
        "ros",
        "rus",
        "two-phase-ros",
        "two-phase-rus",
        "ldam-drw",
        "crt",
        "ncm",
        "smote",
    } <= set(METHODS)
    assert get_method("ros:100").ratio == 100  # type: ignore[union-attr]
    assert get_method("two-phase-rus").parent == "rus"
    for name, words in [
        ("rsu", "did you mean 'rus'"),
        ("baseline:10", "only ros:R and rus:R"),
        ("ros:x", "a number of 1 or more"),
    ]:
        with pytest.raises(SelfposError, match=words):
            get_method(name)
