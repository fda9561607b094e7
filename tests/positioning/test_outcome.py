"""What is said of a point: rivals, verdicts, tasks that pay for others, vectors that help none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch

from selfpos.positioning import outcome
from selfpos.positioning.folds import FOLDS
from selfpos.positioning.outcome import _intervals, _TaskCheck, _warn_of_idle, _warn_of_unhelped
from selfpos.positioning.position import position
from selfpos.positioning.selection import Measurement
from selfpos.positioning.verdict import Rival, TaskMeasures, compare, contributions, resampled, verdict
from selfpos.recipe import PositioningSettings
from selfpos.tasks.measure import TaskMeasure, Texts
from tests.helpers.searches import searched
from tests.helpers.stand_ins import graded, make_live, pairs


class Mean:
    """A measure that is the mean of one value a record."""

    of_base = False

    def score_of(self, items: dict[str, np.ndarray], rows: np.ndarray | None) -> float:
        values = items["hits"] if rows is None else items["hits"][rows]
        return float(values.mean())


def items(values: list[float]) -> dict[str, dict[str, np.ndarray]]:
    return {"task": {"hits": np.array(values)}}


@pytest.mark.slow
def test_a_position_is_compared_with_what_needs_no_search(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    probe = {"pairs": pairs(), "graded": graded()}
    found = position(tiny_base, tiny_specialists, probe, PositioningSettings(rounds=1), seed=0, device="cpu")
    assert [rival.name for rival in found.rivals][:4] == ["base", "alpha", "beta", "gamma"]
    assert set(found.scores) == set(found.losses) == {"pairs", "graded"}
    for rival in found.rivals:
        mean = sum(found.scores[task] - score for task, score in rival.scores.items()) / 2
        assert rival.gain == pytest.approx(mean)
        assert rival.low <= rival.high
    assert found.intervals is not None
    for (low, high), coefficient in zip(found.intervals, found.coefficients, strict=True):
        assert low <= coefficient <= high
    assert found.verdict
    assert found.scale is not None


def test_of_many_rivals_the_nearest_are_named() -> None:
    rivals = [Rival(f"r{n}", {}, 0.01 * n, -0.01, 0.3) for n in range(20)]
    words = verdict(rivals, "records")
    assert "r0 (+0.0 points" in words
    assert "r11 (" in words
    assert "r12" not in words
    assert "and 8 others on records" in words
    better = [Rival(f"r{n}", {}, 0.1 + 0.01 * n, 0.02, 0.3) for n in range(20)]
    assert "better than all 20 rivals on records; the nearest is r0, 10.0 points" in verdict(
        better, "records"
    )


def test_a_kept_scale_is_said_in_those_words(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    settings = PositioningSettings(rounds=1)
    found = position(tiny_base, tiny_specialists, {"pairs": pairs(12)}, settings, seed=0, device="cpu")
    assert found.pull is None
    assert found.verdict is not None
    assert found.verdict.startswith(f"kept one scale for all: {found.coefficients[0]:.2f}; ")


def test_gains_are_paired_and_their_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    ours = base + 0.02  # every record gains as much, however much records differ
    (rival,) = compare({"task": Mean()}, items(ours), {"base": items(base)}, seed=0)
    assert rival.gain == pytest.approx(0.02)
    assert (rival.low, rival.high) == pytest.approx((0.02, 0.02))
    noisy = base + 0.02 + rng.normal(0, 0.5, 400)
    (rival,) = compare({"task": Mean()}, items(noisy), {"base": items(base)}, seed=0)
    assert rival.high - rival.low == pytest.approx(2 * 1.645 * 0.5 / 20, rel=0.25)


def test_the_verdict_names_what_is_not_beaten() -> None:
    close = Rival("one scale for all, 0.57", {}, 0.003, -0.004, 0.01)
    far = Rival("base", {}, 0.05, 0.03, 0.07)
    words = verdict([close, far], "records that did not choose it")
    assert "not clearly better than one scale for all, 0.57 (+0.3 points, -0.4 to +1.0) on records" in words
    assert "base" not in words
    assert verdict([far], "records").startswith(
        "better than base on records; the nearest is base, 5.0 points"
    )


def checked(
    base: Path, specialists: list[Path], monkeypatch: pytest.MonkeyPatch, answers: list[list[str]]
) -> tuple[_TaskCheck, torch.Tensor]:
    """A check of a found point that is told, one embedding after the other, which tasks are worse."""
    search, point = searched(make_live(base, specialists), {"pairs": pairs(), "graded": graded()})
    search.pull = 0.03
    check = _TaskCheck(search, TaskMeasures(search.folds), seed=0)
    told = iter(answers)
    monkeypatch.setattr(_TaskCheck, "worse", lambda self, embeddings: next(told))
    return check, point


@pytest.mark.parametrize(
    ("below_base", "below_scale", "worse"),
    [([], ["texts", "records"], ["records"]), (["texts"], ["texts"], ["texts"]), ([], ["texts"], [])],
)
def test_taught_tasks_are_compared_with_the_base_alone(
    below_base: list[str], below_scale: list[str], worse: list[str]
) -> None:
    check: Any = object.__new__(_TaskCheck)
    kinds = {"records": SimpleNamespace(taught=False), "texts": SimpleNamespace(taught=True)}
    check.measures = SimpleNamespace(
        measures=kinds, items=lambda embeddings: {}, below=lambda items, reference, seed: reference
    )
    check.references, check.seed = {"the base": below_base, "the tuned scale": below_scale}, 0
    assert check.worse(torch.zeros(1, 2)) == worse
    values = {"base": torch.tensor(3.0), "scale": torch.tensor(1.0)}
    folds = SimpleNamespace(values=lambda at, fold: dict.fromkeys(kinds, values[at]))
    check.search, check.embeddings = (
        SimpleNamespace(folds=folds),
        {"the base": "base", "the tuned scale": "scale"},
    )
    assert check._ceilings(["records", "texts"], None) == {"records": 1.0, "texts": 3.0}


@pytest.mark.slow
def test_a_point_that_is_worse_than_one_scale_on_average_is_not_kept(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    live, tasks = make_live(tiny_base, tiny_specialists), {"pairs": pairs(), "graded": graded()}
    search, point = searched(live, tasks)
    search.pull = 0.03
    point = point + torch.tensor([[0.2, -0.2, 0.0]], dtype=torch.float64)
    search.known["point"] = search.embed(point)
    monkeypatch.setattr(_TaskCheck, "worse", lambda self, embeddings: [])
    found: dict[bool, outcome.Outcome] = {}
    for below in (False, True):
        monkeypatch.setattr(_TaskCheck, "below_scale", lambda self, embeddings, below=below: below)
        found[below] = outcome.outcome_of(search, point, seed=0)
    free, kept = (found[below].parameters for below in (False, True))
    assert free is not None and torch.equal(free, point)
    assert kept is not None and torch.allclose(kept, search.uniform(search.scale))
    assert found[True].pull is None
    assert str(found[True].verdict).startswith("kept one scale for all")


@pytest.mark.slow
def test_a_point_that_a_task_pays_for_moves_towards_the_tuned_scale(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["graded"], ["graded"], []]  # the point, the solution with a ceiling, half of the way to it
    check, point = checked(tiny_base, tiny_specialists, monkeypatch, answers)
    search = check.search
    assert search.around is not None
    solved, _ = search.around.minimise(0.03, outcome.REACH, ceilings=check._ceilings(["graded"], None))
    moved, embeddings, by_fold = check.keep(point)
    assert torch.allclose(moved, check.scaled + 0.5 * (solved - check.scaled), atol=1e-6)
    assert torch.allclose(embeddings, search.embed(moved), atol=1e-5)
    assert len(by_fold) == FOLDS
    assert len({tuple(other[0].tolist()) for other in by_fold}) > 1


def test_where_no_point_spares_a_task_the_solution_with_a_ceiling_stays_and_the_task_is_named(
    tiny_base: Path,
    tiny_specialists: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    check, point = checked(tiny_base, tiny_specialists, monkeypatch, [["graded"]] * 5)
    assert check.search.around is not None
    ceilings = check._ceilings(["graded"], None)
    solved, _ = check.search.around.minimise(0.03, outcome.REACH, ceilings=ceilings)
    assert torch.allclose(check.keep(point)[0], solved, atol=1e-6)
    assert "task graded is worse than at the base or at one scale for all, and" in caplog.text


@pytest.mark.slow
def test_a_point_that_no_task_pays_for_stays(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    check, point = checked(tiny_base, tiny_specialists, monkeypatch, [[]])
    assert check.keep(point)[0] is point


@pytest.mark.slow
def test_a_ceiling_holds_a_task_down(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    search, _ = searched(make_live(tiny_base, tiny_specialists), {"pairs": pairs(), "graded": graded()})
    assert search.around is not None
    free, _ = search.around.minimise(0.03, 1.0)
    values = {
        name: value.item() for name, value in search.folds.values(search.around.predicted(free)).items()
    }
    for task in values:
        ceiling = values[task] - 0.002
        held, _ = search.around.minimise(0.03, 1.0, ceilings={task: ceiling})
        value = search.folds.values(search.around.predicted(held))[task].item()
        assert value < values[task]


def test_only_a_significant_loss_counts_as_worse() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(200)
    measures = SimpleNamespace(measures={"task": Mean()})
    slightly = TaskMeasures.below(measures, items(base - 0.001 + rng.normal(0, 0.2, 200)), items(base), 0)
    clearly = TaskMeasures.below(measures, items(base - 0.1), items(base), 0)
    assert slightly == []
    assert clearly == ["task"]


def test_of_very_many_tasks_one_that_is_clearly_worse_is_found() -> None:
    base, noise = np.random.default_rng(0).random((2, 100))
    names = [f"task {number}" for number in range(60)]
    reference = {name: {"hits": base} for name in names}
    point = reference | {"task 7": {"hits": base - 0.2 * noise}}
    measures = SimpleNamespace(measures={name: Mean() for name in names})
    assert TaskMeasures.below(measures, point, reference, 0) == ["task 7"]


def test_a_task_that_the_base_taught_is_not_checked_and_those_after_it_are() -> None:
    base = np.random.default_rng(0).random(100)
    names = ("taught", "task")
    measures = {name: Mean() for name in names}
    measures["taught"].of_base = True
    reference, lower = ({name: {"hits": values} for name in names} for values in (base, base - 0.1))
    assert TaskMeasures.below(SimpleNamespace(measures=measures), lower, reference, 0) == ["task"]


def test_the_interval_of_a_coefficient_is_the_jackknifes_over_five_folds() -> None:
    by_fold = [torch.tensor([0.5 + change, 1.0]) for change in (-0.2, -0.1, 0.0, 0.1, 0.2)]
    problem = SimpleNamespace(mean_coefficients=lambda parameters: parameters)
    first, second = _intervals(problem, torch.tensor([0.7, 1.0]), by_fold)
    half = 2.1318 * (4 / 5 * 0.1) ** 0.5  # Student's t of four degrees of freedom at .95; 0.1 = Σ change²
    assert first == pytest.approx((0.7 - half, 0.7 + half), abs=1e-4)
    assert second == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("known", [True, False])
def test_the_rivals_of_a_validated_point_are_measured_on_its_records(known: bool) -> None:
    """The measure is 1 − (c − ¾)². A search that had ended before it was killed does not know its base."""
    at: list[float] = []

    def measure(_: object = None) -> Measurement:
        score = 1 - (at[-1] - 0.75) ** 2
        return Measurement({}, {"task": score}, -score, items([score] * 4))

    live = SimpleNamespace(keys=["k"], set_coefficients=lambda table: at.append(float(table[0, 0])))
    problem: Any = SimpleNamespace(names=["alpha"], live=live, apply=at.append)
    base = Measurement({}, {}, 0.0, items([0.4375] * 4)) if known else None
    selection: Any = SimpleNamespace(base=base, measure=measure, measures={"task": Mean()})
    found = outcome.validated_outcome(problem, selection, 0.85, seed=0)  # type: ignore[arg-type]
    gains = {"base": 0.5525, "alpha": 0.0525, "task arithmetic 0.75": -0.01}
    assert {rival.name: rival.gain for rival in found.rivals} == pytest.approx(gains)
    assert (0.0 in at) is not known


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_few_records_that_differ_show_neither_a_loss_nor_a_gain(count: int) -> None:
    higher = np.array([1.0] * count + [0.5] * (200 - count))
    lower = np.full(200, 0.5)
    measures = {"task": Mean()}
    for seed in range(10):
        own = SimpleNamespace(measures=measures)
        assert TaskMeasures.below(own, items(lower), items(higher), seed) == []
        (rival,) = compare(measures, items(higher), {"base": items(lower)}, seed)
        assert rival.low <= 0 < rival.high and rival.gain == pytest.approx(count / 400)


@pytest.mark.parametrize("whole", [True, False])
def test_pairs_of_which_few_differ_show_no_gain_and_many_do(whole: bool) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 100) if whole else rng.random(100)
    noise = rng.normal(0, 0.5, 100)
    measure = TaskMeasure(*[Texts([["a"], ["b"]], torch.tensor([1]))] * 2)

    def at(cosines: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        return {"task": {"cosines": cosines, "target": target}}

    few = target + noise
    few[:2] = target[:2]
    for better, gains in ((few, False), (target + 0.1 * noise, True)):
        (rival,) = compare({"task": measure}, at(better), {"base": at(target + noise)}, 0)
        assert (rival.low > 0) == gains


@pytest.mark.parametrize("whole", [True, False])
def test_resampled_pairs_have_the_measure_of_their_records(whole: bool) -> None:
    rng = np.random.default_rng(1)
    target = rng.integers(0, 2, 40) if whole else rng.integers(0, 6, 40) / 5
    pairs = {"cosines": np.round(target + rng.normal(0, 1, 40), 1), "target": target}  # with ties
    measure = TaskMeasure(*[Texts([["a"], ["b"]], torch.tensor([1]))] * 2)
    rows = np.random.default_rng([3, crc32(b"task")]).integers(40, size=(20, 40))
    expected = [measure.score_of(pairs, drawn) for drawn in rows]
    assert resampled(measure, pairs, "task", 3, 20) == pytest.approx(expected)
    without = [measure.score_of(pairs, np.delete(np.arange(40), row)) for row in range(40)]
    expected = measure.score_of(pairs, None) - 39 / 40 * np.array(without)
    assert contributions(pairs) == pytest.approx(expected)


def test_a_task_that_no_vector_helps_and_a_vector_that_helps_none_get_a_sentence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    points = {"base": items([0.5, 0.5]), "alpha": items([0.4, 0.5]), "beta": items([0.5, 0.3])}
    _warn_of_unhelped(SimpleNamespace(measures={"task": Mean()}), points)
    assert "no vector helps task task" in caplog.text
    caplog.clear()
    _warn_of_unhelped(SimpleNamespace(measures={"task": Mean()}), points | {"beta": items([0.9, 0.9])})
    perfect = {"base": items([1.0, 1.0]), "alpha": items([1.0, 1.0]), "beta": items([0.9, 1.0])}
    _warn_of_unhelped(SimpleNamespace(measures={"task": Mean()}), perfect)
    assert not caplog.text
    problem = SimpleNamespace(names=["alpha", "beta"])
    _warn_of_idle(problem, torch.tensor([0.8, -0.1]), [(0.5, 1.1), (-0.4, 0.2)])
    assert "vector beta helps no task: its coefficient is -0.10 (-0.40 to 0.20)" in caplog.text
    assert "alpha" not in caplog.text
