"""The default search on problems whose answer is known: the optimum, one scale for all, resumption."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor

from selfpos.errors import SelfposError
from selfpos.positioning import folds, linearisation, linearised, objective
from selfpos.positioning.folds import assign_folds
from selfpos.positioning.linearised import LinearisedSearch
from selfpos.positioning.live import LiveModel
from selfpos.positioning.smooth import SmoothMeasure
from selfpos.tasks import get_task
from tests.helpers.searches import searched
from tests.helpers.stand_ins import PairTask, Probe, graded, make_live, pairs, words


class Near(SmoothMeasure):
    """The squared distance of each text's embedding to a given one: its minimum is known."""

    targets: Tensor

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.sharing = list(texts), [{text} for text in texts]

    @property
    def usable(self) -> int:
        return self.count

    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        return rows, (embeddings[rows] - self.targets[rows]).square().sum(1)


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> dict[str, Probe]:
    """A task that is measured by `Near`, whose targets are to be set."""
    monkeypatch.setattr(objective, "smooth_measure", lambda batch, *_: Near(batch.columns[0]))
    dataset = Dataset.from_dict({"text": words(60, seed=4)})
    return {"near": Probe("near", PairTask(), dataset)}


def aim(live: LiveModel, probe: dict[str, Probe], table: Tensor, noise: float = 0.0) -> None:
    """Put the minimum at the coefficients `table` (T, N); noise of each text's target moves it a little."""
    live.set_coefficients(table)
    with torch.no_grad():
        targets = live.embed(probe["near"].dataset["text"][:])
    generator = torch.Generator().manual_seed(0)
    Near.targets = targets + noise * torch.randn(targets.shape, generator=generator)


def everywhere(live: LiveModel, coefficients: list[float]) -> Tensor:
    return torch.tensor(coefficients, dtype=torch.float64).expand(len(live.keys), len(coefficients))


@pytest.mark.parametrize("optimum", [[1.0, 0.0, 0.0], [0.8, -0.3, 1.6]])
@pytest.mark.slow
def test_much_of_a_good_probe_leaves_the_coefficients_free(
    tiny_base: Path, tiny_specialists: list[Path], near: dict[str, Probe], optimum: list[float]
) -> None:
    live = make_live(tiny_base, tiny_specialists)
    aim(live, near, everywhere(live, optimum))
    search, point = searched(live, near, rounds=5)
    assert search.pull == min(linearised.PULLS)
    assert point[0].tolist() == pytest.approx(optimum, abs=0.15)


def test_a_useless_probe_stays_at_one_scale_for_all(
    tiny_base: Path, tiny_specialists: list[Path], near: dict[str, Probe]
) -> None:
    """What differs between the records is noise: no fold's coefficients help the others."""
    live = make_live(tiny_base, tiny_specialists)
    aim(live, near, everywhere(live, [0.6, 0.6, 0.6]), noise=0.3)
    search, point = searched(live, near)
    assert search.pull >= 1.0
    assert float(point[0].max() - point[0].min()) < 0.1
    assert float(point[0].mean()) == pytest.approx(search.scale, abs=0.05)


def test_a_probe_of_few_records_keeps_one_scale_and_says_how_many_would_do(
    tiny_base: Path, tiny_specialists: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    search, point = searched(make_live(tiny_base, tiny_specialists), {"pairs": pairs(12)})
    assert "12 records of task pairs" in caplog.text
    assert f"{linearised.FEWEST} would be enough" in caplog.text
    assert math.isinf(search.pull)
    assert search.units == search.losses(search.known["base"]), "tasks count in units of the base's values"
    assert torch.allclose(search.known["scale"], search.embed(point), atol=1e-6)  # no longer a parabola
    assert len({round(value, 9) for value in point[0].tolist()}) == 1


@pytest.mark.slow
def test_layers_find_different_coefficients(
    tiny_base: Path, tiny_specialists: list[Path], near: dict[str, Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpos.positioning.problem.SHRINKAGE", 0.0)
    live = make_live(tiny_base, tiny_specialists[:2])
    wanted = torch.full((len(live.keys), 2), 0.5, dtype=torch.float64)
    second = [row for row, key in enumerate(live.keys) if key.startswith("encoder.layer.1.")]
    wanted[second] = torch.tensor([1.5, 0.0], dtype=torch.float64)
    aim(live, near, wanted)
    search, point = searched(live, near, granularity="layer", rounds=6)
    table = search.problem.table(point)
    assert table[second[0]].tolist() == pytest.approx([1.5, 0.0], abs=0.05)
    assert table[0].tolist() == pytest.approx([0.5, 0.5], abs=0.05)


@pytest.mark.slow
def test_linearised_embeddings_are_the_true_ones_to_first_order(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    live = make_live(tiny_base, tiny_specialists)
    search, _ = searched(live, {"pairs": pairs()}, rounds=1, granularity="layer")
    around, errors = search.around, []
    assert around is not None
    for size in (0.1, 0.05):
        generator = torch.Generator().manual_seed(0)
        change = size * torch.randn(search.problem.start.shape, dtype=torch.float64, generator=generator)
        true = search.embed(around.parameters + change)
        predicted = around.predicted(around.parameters + change)
        errors.append(float((predicted - true).norm() / (true - around.embeddings).norm()))
    assert errors[0] < 0.3
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.slow
@pytest.mark.parametrize(("share", "passes"), [(0.0, 11), (math.inf, 8)])
def test_derivatives_that_foretold_a_step_are_kept(
    tiny_base: Path,
    tiny_specialists: list[Path],
    near: dict[str, Probe],
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    passes: int,
) -> None:
    """Of two rounds: the base, two scales, a point beside each of three vectors, and two steps."""
    monkeypatch.setattr(linearisation, "FORETOLD", share)
    live = make_live(tiny_base, tiny_specialists)
    aim(live, near, everywhere(live, [0.9, 0.2, 0.5]))
    before = live.embedded
    search, point = searched(live, near)
    assert live.embedded - before == passes * len(search.folds.table.texts)
    assert point[0].tolist() == pytest.approx([0.9, 0.2, 0.5], abs=0.2)


@pytest.mark.slow
def test_kept_derivatives_explain_the_step_they_foretold(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    search, _ = searched(make_live(tiny_base, tiny_specialists), {"pairs": pairs()}, rounds=1)
    around = search.around
    assert around is not None
    point = around.parameters + 0.05
    true = search.embed(point)
    moved = around.moved(point, true)
    assert moved is not None
    assert torch.allclose(moved.predicted(point), true, atol=1e-6)
    assert torch.allclose(moved.predicted(around.parameters), around.embeddings, atol=1e-5)
    assert around.moved(point, true + (true - around.embeddings)) is None


@pytest.mark.slow
def test_embeddings_at_the_tuned_scale_follow_from_those_near_by(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    search, _ = searched(make_live(tiny_base, tiny_specialists), {"pairs": pairs(), "graded": graded()})
    first = min(linearised.SCALES, key=lambda scale: abs(scale - search.scale))
    assert 0 < abs(search.scale - first) <= linearised.BETWEEN
    true, near = search.embed(search.uniform(search.scale)), search.embed(search.uniform(first))
    assert (search.known["scale"] - true).norm() < 0.2 * (true - near).norm()


def test_a_parabola_through_the_base_and_a_scale_near_by_is_exact_where_embeddings_are_one() -> None:
    start, slope, bend = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def at(scale: float) -> Tensor:
        return start + slope * scale + bend * scale**2

    around = SimpleNamespace(
        minimise=lambda *_: (torch.tensor([[0.7]], dtype=torch.float64), 0.0),
        predicted=lambda point: at(0.5) + (slope + bend) * (point - 0.5),  # the tangent at .5
    )
    search: Any = SimpleNamespace(
        known={"base": at(0.0), "point": at(0.5)}, uniform=lambda scale: scale, value=lambda *_: 0.0
    )
    LinearisedSearch._tune_scale(search, around, torch.tensor([[0.5]]))  # type: ignore[arg-type]
    assert search.scale == 0.7
    assert torch.allclose(search.known["scale"], at(0.7))


def test_a_larger_scale_is_tried_where_the_last_ones_fall_towards_it() -> None:
    assert linearised._falls_on({0.0: 1.0, 0.5: 0.8, 1.0: 0.65})
    assert linearised._falls_on({0.0: 1.0, 0.5: 0.9, 1.0: 0.7})  # ever faster
    assert not linearised._falls_on({0.0: 1.0, 0.5: 0.8, 1.0: 0.78})


@pytest.mark.parametrize(
    ("ratio", "reached", "factor"),
    [(0.05, True, 0.25), (0.2, True, 0.5), (0.5, True, 1.0), (0.8, True, 2.0), (0.8, False, 1.0)],
)
def test_a_radius_follows_what_came_true_of_a_step(ratio: float, reached: bool, factor: float) -> None:
    """Conn, Gould and Toint, algorithm 6.1.1; it grows only where the step went to the edge."""
    assert linearised._next_radius(0.6, ratio, reached) == pytest.approx(0.6 * factor)


def test_of_a_question_with_many_candidates_some_are_read() -> None:
    rows = [(question, f"right {question}", f"wrong {n} {question}") for question in "ab" for n in range(9)]
    rows.append(("c", "right c", "wrong c"))
    dataset = Dataset.from_list(
        [dict(zip(("anchor", "positive", "negative"), row, strict=True)) for row in rows]
    )
    task = objective.TaskProbe("reranking", get_task("reranking"), dataset, 0.05)
    batch = folds.searched_records(task, seed=0)
    assert Counter(batch.columns[0]) == {"a": folds.CANDIDATES, "b": folds.CANDIDATES, "c": 1}
    assert all(text.endswith(anchor) for anchor, _, text in zip(*batch.columns, strict=True))


@pytest.mark.slow
def test_a_step_that_makes_things_worse_is_not_taken(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linearised, "RADIUS", 4.0)
    path = tmp_path / "way.jsonl"
    searched(make_live(tiny_base, tiny_specialists), {"pairs": pairs(), "graded": graded()}, path, rounds=4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    taken = [line for line in lines if line.get("ratio", 0) >= linearised.ACCEPT]
    assert taken
    assert all(line["after"] < line["before"] for line in taken)
    refused = [number for number, line in enumerate(lines) if line.get("ratio", 1) < linearised.ACCEPT]
    for number in refused:
        if number + 1 < len(lines):
            assert lines[number + 1]["radius"] < lines[number]["radius"]


@pytest.mark.slow
def test_the_order_of_the_vectors_does_not_matter(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    found = []
    for sources in (tiny_specialists, tiny_specialists[::-1]):
        _, point = searched(make_live(tiny_base, sources), {"pairs": pairs(), "graded": graded()})
        found.append(point[0].tolist())
    assert found[0] == pytest.approx(found[1][::-1], abs=5e-3)


@pytest.mark.slow
def test_a_pull_is_chosen_by_records_that_did_not_choose_the_point(
    tiny_base: Path, tiny_specialists: list[Path], near: dict[str, Probe]
) -> None:
    live = make_live(tiny_base, tiny_specialists)
    aim(live, near, everywhere(live, [0.9, 0.2, 0.5]), noise=0.2)
    search, _ = searched(live, near)
    around = search.around
    assert around is not None
    validation = around.cross_validate(1.0)
    for pull, fold in itertools.product((0.1, 1.0), range(folds.FOLDS)):
        outside = around.minimise(pull, 1.0, fold=fold)[0]
        assert torch.allclose(validation.points[pull][fold], outside, atol=0.02)
        task = search.folds.tasks["near"]
        inside = task.inside(fold)
        predicted = around.predicted(validation.points[pull][fold])[task.rows]
        values = (predicted[inside] - Near.targets[inside]).square().sum(1) / search.units["near"]
        assert torch.allclose(validation.held_out[pull]["near"][inside].float(), values, rtol=1e-4)


def test_folds_keep_records_together_that_share_a_text_and_spread_labels() -> None:
    texts = [{"a"}, {"b"}, {"c"}, {"d"}, {"e"}, {"x", "a"}, {"f"}, {"g"}, {"h"}, {"i"}]
    assigned = assign_folds(texts, None, 0, "task").tolist()
    assert assigned[0] == assigned[5]
    assert set(assigned) == set(range(folds.FOLDS))
    labels = torch.tensor([0, 1] * 10)
    by_label = assign_folds([{str(row)} for row in range(20)], labels, 0, "task")
    for fold in range(folds.FOLDS):
        assert sorted(labels[by_label == fold].tolist()) == [0, 0, 1, 1]


def test_records_that_hang_together_are_parted_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    lone = [{str(row)} for row in range(12)]
    assigned = assign_folds([{"same"}] * 8 + lone, None, 0, "task")  # two folds of twenty records
    assert len(assigned[:8].unique()) == 1
    assert not caplog.text
    assigned = assign_folds([{"same", str(row)} for row in range(20)], None, 0, "task")
    assert torch.bincount(assigned).tolist() == [4] * folds.FOLDS
    assert "records of task task share texts" in caplog.text


def test_a_derivative_table_that_does_not_fit_is_one_sentence(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linearisation, "MEMORY", 1000)
    with pytest.raises(SelfposError, match="use a coarser granularity"):
        searched(make_live(tiny_base, tiny_specialists), {"pairs": pairs()})
