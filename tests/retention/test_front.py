"""Fronts whose answer is known: shares, promises, barriers. No model is loaded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.positioning.objective import TextTable
from selfpos.retention.front import Point, Scale, barriers, choose, front
from selfpos.retention.judging import Judge, JudgedTask
from selfpos.retention.path import Place
from tests.helpers.fronts import BASE, JUDGE, RECORDS, SCALE, TUNED, Hits, point


def test_shares_are_of_the_gain_and_of_the_loss() -> None:
    middle = point(0.5, 0.74, 0.75)
    assert SCALE.gain == pytest.approx(0.30)
    assert SCALE.loss == pytest.approx(0.10)
    assert SCALE.kept(middle) == pytest.approx(0.8)
    assert SCALE.undone(middle) == pytest.approx(0.75)
    (low, high), (lower, higher) = SCALE.intervals(middle)
    assert low < 0.8 < high < 1.0
    assert lower < 0.75 < higher < 1.0


def test_where_no_loss_is_clear_the_gain_alone_decides() -> None:
    noisy = point(1.0, 0.80, 0.7975)
    scale = Scale(JUDGE, BASE, noisy)
    assert not scale.forgot
    assert SCALE.forgot
    assert scale.units[1] > scale.loss
    more, less = point(0.8, 0.78, 0.795), point(0.2, 0.60, 0.80)
    assert choose(scale, [BASE, less, more], None) is more


def test_more_than_all_of_the_gain_is_worth_no_more_and_the_most_general_is_taken() -> None:
    scale = Scale(JUDGE, BASE, point(1.0, 0.80, 0.7975))
    beyond, all_of_it = point(0.8, 0.84, 0.795), point(0.5, 0.80, 0.80)
    assert scale.value(beyond) == pytest.approx(1.0)
    assert choose(scale, [BASE, all_of_it, beyond], None) is all_of_it


def noisy(place: float, share: float, general: float) -> Point:
    """A point that is right on other domain records than the fine-tune: so many of all by chance."""
    right = point(place, share, general)
    hits = np.random.default_rng(0).permutation(right.items["d"]["hits"])
    items = right.items | {"d": {"hits": hits}}
    return Point(right.place, JUDGE.scores(items), items)


def test_a_gain_that_may_be_chance_is_not_counted_as_kept() -> None:
    scale = Scale(JUDGE, BASE, point(1.0, 0.80, 0.7975))
    lucky = noisy(0.3, 0.80, 0.80)
    assert scale.kept(lucky) == pytest.approx(1.0)
    assert scale.surely_kept(lucky) < 0.95
    assert choose(scale, [BASE, lucky, scale.tuned], None) is scale.tuned
    assert choose(scale, [BASE, lucky, scale.tuned], 0.95) is scale.tuned


def test_an_interval_is_of_the_share_beside_it_where_the_gain_is_not_clear() -> None:
    hits = BASE.items["d"]["hits"].copy()
    hits[:28], hits[-32:] = 0.0, 1.0
    items = BASE.items | {"d": {"hits": hits}}
    scale = Scale(JUDGE, BASE, Point(Place("tuned", 1.0), JUDGE.scores(items), items))
    assert scale.gain == pytest.approx(0.01)
    assert not scale.learned
    (low, high), _ = scale.intervals(scale.tuned)
    assert (low + high) / 2 == pytest.approx(scale.kept(scale.tuned), abs=0.2)
    assert high - low == pytest.approx(2, abs=0.3), "four standard errors, and shares are of two"


def test_the_front_leaves_out_what_another_beats_on_both_sides() -> None:
    beaten, good = point(0.5, 0.60, 0.70), point(0.4, 0.70, 0.75)
    assert front(SCALE, [TUNED, beaten, good, BASE]) == [BASE, good, TUNED]


def test_the_promise_is_kept_by_no_task_that_is_significantly_below() -> None:
    small, large = point(0.3, 0.70, 0.795), point(0.6, 0.80, 0.72)
    assert SCALE.drops(small) == []
    (drop,) = SCALE.drops(large)
    assert drop.task == "g"
    assert drop.difference == pytest.approx(-0.08)
    assert choose(SCALE, [BASE, small, large, TUNED], None) is small


def test_of_points_that_keep_the_promise_both_shares_together_decide() -> None:
    more, less = point(0.4, 0.74, 0.7975), point(0.2, 0.60, 0.80)
    assert choose(SCALE, [BASE, less, more], None) is more


def test_a_share_of_the_gain_is_asked_for_at_the_least_loss() -> None:
    points = [BASE, point(0.2, 0.70, 0.79), point(0.5, 0.795, 0.74), point(0.7, 0.80, 0.70), TUNED]
    assert choose(SCALE, points, 0.95) is points[2]
    with pytest.raises(
        SelfposError, match=r"no point keeps 95% .* at α = 0.20, keeps 67% .*: ask for less, or"
    ):
        choose(SCALE, points[:2], 0.95)


def test_a_promise_that_no_point_keeps_names_the_task_and_the_nearest_point() -> None:
    points = [BASE, point(0.3, 0.70, 0.70, 0.80), point(0.6, 0.80, 0.60, 0.80)]
    with pytest.raises(SelfposError, match=r"task g is in the way, 10.0 points below .* α = 0.30"):
        choose(SCALE, points, None)


def test_many_equal_tasks_do_not_break_the_promise_by_chance() -> None:
    """Without Holm, one of twenty tasks of noise would often look worse."""
    names = [f"g{n}" for n in range(20)]
    tasks = [JudgedTask("d", "domain", Hits()), *(JudgedTask(name, "general", Hits()) for name in names)]
    judge = Judge(tasks, TextTable([]), seed=0)
    broken = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        first, second = (
            {name: {"hits": rng.random(100).round()} for name in ("d", *names)} for _ in range(2)
        )
        points = [Point(Place("t", a), judge.scores(i), i) for a, i in ((0.0, first), (0.5, second))]
        broken += bool(Scale(judge, points[0], points[1]).drops(points[1]))
    assert broken <= 2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_few_records_that_differ_break_no_promise(count: int) -> None:
    assert SCALE.drops(point(0.3, 0.70, 0.80 - count / RECORDS)) == []


def test_at_worst_is_a_bound_that_new_records_keep() -> None:
    """A loss of one point, of which a hundred records show nothing."""
    names = [f"g{n}" for n in range(6)]
    judge = Judge([JudgedTask(name, "general", Hits()) for name in names], TextTable([]), seed=0)
    broken = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        base = {name: {"hits": rng.normal(0.8, 0.2, 100)} for name in names}
        lower = {name: {"hits": base[name]["hits"] - rng.normal(0.01, 0.1, 100)} for name in names}
        points = [Point(Place("t", a), judge.scores(i), i) for a, i in ((0.0, base), (0.5, lower))]
        found = Scale(judge, points[0], points[0]).below(points[1])
        assert all(drop.worst < drop.difference for drop in found)
        broken += any(drop.worst > -0.01 for drop in found)
    assert 2 <= broken <= 20, "one in twenty, over all six tasks"


def test_of_very_many_tasks_one_that_is_clearly_below_is_found() -> None:
    names = [f"g{n}" for n in range(150)]
    judge = Judge([JudgedTask(name, "general", Hits()) for name in names], TextTable([]), seed=0)
    rng = np.random.default_rng(0)
    base = {name: {"hits": rng.random(100)} for name in names}
    lower = base | {"g7": {"hits": base["g7"]["hits"] - 0.2 * rng.random(100)}}
    points = [Point(Place("t", a), judge.scores(i), i) for a, i in ((0.0, base), (0.5, lower))]
    assert [drop.task for drop in Scale(judge, points[0], points[0]).drops(points[1])] == ["g7"]


def test_of_plain_texts_a_fifth_of_the_loss_is_tolerated() -> None:
    tolerant = [replace(task, tolerated=0.2) if task.name == "g" else task for task in JUDGE.tasks.values()]
    scale = Scale(Judge(tolerant, TextTable([]), seed=0), BASE, TUNED)
    slightly, clearly = point(0.3, 0.7, 0.765), point(0.6, 0.8, 0.70)
    assert SCALE.drops(slightly)
    assert not scale.drops(slightly)
    assert scale.drops(clearly)


def test_a_barrier_is_a_point_clearly_worse_than_both_ends() -> None:
    through = [BASE, point(0.25, 0.3, 0.7), point(0.5, 0.2, 0.7), point(0.75, 0.4, 0.7), TUNED]
    (sentence,) = barriers(SCALE, through)
    assert "at α = 0.5 the domain falls 30.0 points below the worse of base and fine-tune" in sentence
    assert barriers(SCALE, [BASE, point(0.25, 0.6, 0.78), point(0.5, 0.7, 0.75), TUNED]) == []
