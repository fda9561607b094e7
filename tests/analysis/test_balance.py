"""Dominance, gaps and the law of lengths, against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from selfpos.analysis.balance import Arm, dominance, joint_gaps, length_law


def test_dominance_finds_the_combination_that_made_the_joint_vector() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((3, 50))
    outside = draw.standard_normal(50)
    outside -= np.linalg.lstsq(vectors.T, outside, rcond=None)[0] @ vectors
    joint = 1.5 * vectors[0] + 0.25 * vectors[1] - 0.1 * vectors[2] + outside
    rows = np.vstack([vectors, joint])
    found = dominance(rows @ rows.T, ["a", "b", "c"])
    assert [share.coefficient for share in found.shares] == pytest.approx([1.5, 0.25, -0.1])
    assert found.explained == pytest.approx(1 - outside @ outside / (joint @ joint))
    assert found.shares[0].cosine == pytest.approx(
        vectors[0] @ joint / np.linalg.norm(vectors[0]) / np.linalg.norm(joint)
    )
    assert found.shares[1].projection == pytest.approx(vectors[1] @ joint / (vectors[1] @ vectors[1]))
    assert max(found.shares, key=lambda share: share.cosine).name == "a"


def test_a_specialist_that_stands_still_has_no_share() -> None:
    found = dominance(np.diag([1.0, 0.0, 1.0]), ["a", "still"])
    assert [(share.cosine, share.projection) for share in found.shares] == [(0, 0), (0, 0)]


def test_gaps_are_to_the_best_specialist() -> None:
    scores = {
        "base": {"X": 0.1, "Y": 0.2},
        "joint": {"X": 0.5, "Y": 0.6},
        "a": {"X": 0.7, "Y": 0.1},
        "b": {"X": 0.2, "Y": 0.5},
        "ties": {"X": 1, "Y": 1},
    }
    found = joint_gaps(scores, ["a", "b", "unfinished"], ["joint", "untrained"])
    assert [(gap.task, gap.specialist, gap.gap) for gap in found] == [
        ("X", "a", pytest.approx(-0.2)),
        ("Y", "b", pytest.approx(0.1)),
    ]
    assert joint_gaps({"base": {"X": 1}}, ["a"], ["joint"]) == []


def test_the_law_of_lengths_tells_records_from_steps() -> None:
    arms = [
        Arm(task, "", records, steps, scale * records**0.1 * steps**0.6, 0)
        for (task, scale), records, steps in itertools.product(
            [("a", 1.0), ("b", 7.0)], [100, 200, 400], [4, 8, 16]
        )
    ]
    law = length_law(arms)
    assert law is not None
    assert (law.by_records, law.by_steps, law.explained) == (
        pytest.approx(0.1),
        pytest.approx(0.6),
        pytest.approx(1),
    )
    assert law.explained_by_steps > 0.9 > 0.1 > law.explained_by_records


def test_equal_epochs_alone_cannot_tell() -> None:
    assert length_law([Arm("a", "", n, n // 10, n**0.5, 0) for n in (100, 200, 400)]) is None
    assert length_law([]) is None
