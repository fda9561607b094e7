"""The law of vector lengths against a closed form."""

from __future__ import annotations

import itertools

import pytest

from selfpos.analysis.findings import ShortTraining, length_law


def test_the_law_of_lengths_tells_records_from_steps() -> None:
    trainings = [
        ShortTraining(task, "", records, steps, scale * records**0.1 * steps**0.6, 0)
        for (task, scale), records, steps in itertools.product(
            [("a", 1.0), ("b", 7.0)], [100, 200, 400], [4, 8, 16]
        )
    ]
    law = length_law(trainings)
    assert law is not None
    assert (law.by_records, law.by_steps, law.explained) == pytest.approx((0.1, 0.6, 1))
    assert law.explained_by_steps > 0.9 > 0.1 > law.explained_by_records


def test_equal_epochs_alone_cannot_tell() -> None:
    assert length_law([ShortTraining("a", "", n, n // 10, n**0.5, 0) for n in (100, 200, 400)]) is None
    assert length_law([]) is None
