"""Experts, norms and the path between networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from selfpos.imbalance.carryover import experts, norms, path
from selfpos.imbalance.carryover.comparison import Bench, difference, gram_of, moved
from selfpos.imbalance.study.data import read_images
from selfpos.imbalance.study.heads import normalised_head
from selfpos.imbalance.study.networks import build
from selfpos.imbalance.study.unit import Imbalance
from tests.helpers.companion import tiny_recipe


@pytest.fixture(scope="module")
def bench(archive: Path) -> Bench:
    recipe = tiny_recipe(archive, test_limit=8)
    return Bench(
        Imbalance("step", 10, 0.5),
        recipe,
        read_images(str(archive), preprocessing="scale"),
        torch.device("cpu"),
    )


def test_points_between_networks() -> None:
    first, second = build("lenet", 10, 0), build("lenet", 10, 1)
    way = difference(second, first)
    middle = moved(first, [way], [0.25])
    torch.testing.assert_close(
        middle.classifier.weight, 0.75 * first.classifier.weight + 0.25 * second.classifier.weight
    )
    assert torch.equal(moved(first, [way], [0.0]).classifier.weight, first.classifier.weight)
    assert float(gram_of([way])) == pytest.approx(sum(float(v.double().square().sum()) for v in way.values()))


def measure(comparison: ModuleType, bench: Bench) -> dict:
    """What the comparison measures for seed 0; the progress bar ends at its total."""
    ticks: list[None] = []
    result = comparison.measure(replace(bench, tick=lambda: ticks.append(None)), 0)
    assert len(ticks) == comparison.iterations(bench.recipe.training.iterations)
    return result


def test_path(bench: Bench) -> None:
    result = measure(path, bench)
    assert list(result["alpha"]) == [f"{0.1 * step:g}" for step in range(11)]
    # The ends of the path are the baseline and ROS themselves.
    assert result["alpha"]["0"] == result["ratio"]["10"]
    assert result["alpha"]["1"] == pytest.approx(result["ratio"]["1"], abs=0.1)
    best = {kind: max(result[kind].values(), key=lambda pair: pair[0])[1] for kind in result}
    claim, over_ends = path.outcome([result, result]).findings
    assert claim.gain.mean == pytest.approx(best["alpha"] - best["ratio"])
    assert over_ends.gain.mean == pytest.approx(
        best["alpha"] - max(result["alpha"]["0"], result["alpha"]["1"])[1]
    )


def test_experts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "STEPS", 40)
    result = measure(experts, bench)
    arms, coefficients = result["arms"], result["coefficients"]
    assert {"ros", "logit-adjustment", "experts, average", "baseline + thresholding", *coefficients} <= set(
        arms
    )
    assert coefficients["experts, average"] == [0.5, 0.5]
    balanced, natural = (
        coefficients[f"experts, Self Positioning, {probe} probe"] for probe in ("balanced", "natural")
    )
    assert balanced != natural
    # On a balanced probe the search must not forget the small classes, which half of the probe is of, and of
    # the natural one an eleventh.
    assert balanced[1] > natural[1] + 0.1
    recalls = [
        arms[f"experts, Self Positioning, {probe} probe"]["minority recall"]
        for probe in ("balanced", "natural")
    ]
    assert recalls[0] > recalls[1]
    sample = bench.experts(0)[2]
    thinned = np.bincount(bench.data.train.labels[experts.thinned(sample, bench.data.train.labels)])
    assert thinned.tolist() == [10 if count == 40 else 1 for count in sample.counts]


def test_experts_hold_only_above_each_rival() -> None:
    names = [f"experts, Self Positioning, {probe} probe" for probe in ("balanced", "natural")]
    rivals = ["ros", "baseline + thresholding, τ tuned on the balanced probe", "logit-adjustment"]

    def verdicts(balanced: float, natural: float, best: str) -> list[str]:
        values = {names[0]: balanced, names[1]: natural} | {
            rival: 60.0 if rival == best else 50.0 for rival in rivals
        }
        result = [
            {
                "arms": {
                    name: {"auc": value + seed, "balanced accuracy": value + seed}
                    for name, value in values.items()
                }
            }
            for seed in range(5)
        ]
        return [one.verdict for one in experts.outcome(result).findings]

    yes, no = "holds", "does not hold"
    assert verdicts(55, 45, "none") == [yes, yes, no, no, yes, yes]
    assert verdicts(45, 55, "none") == [no, no, yes, yes, no, no]
    assert verdicts(50, 50, "none") == [no] * 6  # level is not better
    assert [verdicts(55, 55, best).index(no) for best in rivals] == [0, 4, 5]


def test_the_search_has_no_dropout(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "STEPS", 5)
    start = bench.untrained(0)
    start.trunk.append(torch.nn.Dropout(0.5))
    vectors = [difference(build("lenet", 10, seed), bench.untrained(0)) for seed in (1, 2)]
    gram = gram_of(vectors)
    assert start.training
    first, again = (experts.search(bench, start, vectors, gram, np.arange(40), 0) for _ in range(2))
    assert first == again


def test_experts_are_trained_from_their_seed(bench: Bench) -> None:
    start, sample = bench.untrained(0), bench.train("baseline", 0).samples[0]
    start.trunk.append(torch.nn.Dropout(0.5))
    trained = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        trained.append(bench.train_on(start, sample, sample.minority, 3).classifier.weight)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*trained)


def norms_of(rows: dict[str, list[float]], vectors: dict[str, list[float]], steps: float = 0.9) -> dict:
    """What a seed measured: validation and test by τ, and R² of ‖V‖ on N at equal steps."""
    regimes = {"steps": [1.0, 3.0], "epochs": [2.0, 4.0]}
    fit = {"‖V‖ on N, equal steps": steps, "‖V‖ on N, equal epochs": 0.9}
    scores = {"ros": [0.0, 60.0], "baseline": [0.0, 50.0], "head rows": rows, "vectors": vectors}
    return {"lengths": regimes, "cosines": regimes, "fit": fit, **scores}


def test_norms_conclude_by_the_tau_chosen_on_validation() -> None:
    def conclude(**changes: float) -> tuple[list[str], list[list[str]]]:
        good, bad = {"0": [1.0, 40.0], "1.5": [2.0, 62.0]}, {"0": [1.0, 70.0], "2": [2.0, 55.0]}
        outcome = norms.outcome([norms_of(good, bad, **changes) for _ in range(5)])
        return [one.verdict for one in outcome.findings], outcome.rows

    verdicts, rows = conclude()
    assert verdicts == ["holds", "holds", "does not hold"]
    assert ["balanced accuracy, τ-normalised head rows", "τ 1.5, 1.5, 1.5, 1.5, 1.5", "62.00"] in rows
    assert ["balanced accuracy, τ-normalised vectors", "τ 2, 2, 2, 2, 2", "55.00"] in rows
    assert ["‖V‖ at N ÷ ‖V‖ at N/16, equal steps", "", "3.00"] in rows
    assert conclude(steps=0.7)[0][0] == "does not hold"


def test_nothing_normalised_has_no_verdict() -> None:
    idle, busy = {"0": [2.0, 62.0], "1": [1.0, 90.0]}, {"0": [1.0, 62.0], "1": [2.0, 62.0]}
    alike = norms.outcome([norms_of(idle, busy) for _ in range(5)]).findings
    assert [one.verdict for one in alike[1:]] == ["not decided", "holds"]
    assert alike[1].row[1] == "the chosen τ is 0 for every seed, so nothing is normalised"
    some = norms.outcome([norms_of(idle, busy)] * 4 + [norms_of(busy, busy)]).findings
    assert some[1].verdict == "holds"


def test_norms(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "TAUS", [0.0, 2.0])
    result = measure(norms, bench)
    assert result["lengths"]["steps"][-1] == pytest.approx(result["lengths"]["epochs"][-1])
    assert result["lengths"]["epochs"][0] < result["lengths"]["epochs"][-1]
    assert all(part[-1] == pytest.approx(1) for part in result["cosines"].values())
    assert result["vectors"]["0"] != result["vectors"]["2"]
    claim = norms.outcome([result]).findings[0]
    fits = [result["fit"][f"‖V‖ on N, equal {regime}"] for regime in ("steps", "epochs")]
    assert claim.gain.mean == pytest.approx(fits[0] - fits[1])
    assert norms.r_squared([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    network = build("lenet", 10, 0)
    rows = normalised_head(network, 1.0)[0].weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(rows, torch.ones(10))
    assert not torch.allclose(network.classifier.weight.flatten(1).norm(dim=1), torch.ones(10))
