"""Experts, norms and the path between networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from selfpos.carryover import experts, norms, path
from selfpos.carryover.arms import Bench, difference, inner, moved
from selfpos.imbalance.cell import Imbalance
from selfpos.imbalance.methods.decoupled import normalised_head
from selfpos.imbalance.networks import build
from selfpos.imbalance.recipe import ImbalanceRecipe
from selfpos.imbalance.sources import read_images
from tests.imbalance.test_grid import tiny


@pytest.fixture(scope="module")
def bench(archive: Path) -> Bench:
    recipe = ImbalanceRecipe.model_validate(tiny(archive, test_limit=8))
    return Bench(Imbalance("step", 10, 0.5, "random"), recipe, read_images(str(archive), preprocessing="scale"), torch.device("cpu"))


def test_points_between_networks() -> None:
    first, second = build("lenet", 10, 0), build("lenet", 10, 1)
    way = difference(second, first)
    middle = moved(first, [way], [0.25])
    torch.testing.assert_close(middle.classifier.weight, 0.75 * first.classifier.weight + 0.25 * second.classifier.weight)
    assert torch.equal(moved(first, [way], [0.0]).classifier.weight, first.classifier.weight)
    assert inner(way, way) == pytest.approx(sum(float(v.double().square().sum()) for v in way.values()))


def test_path(bench: Bench) -> None:
    found = path.measure(bench, 0)
    assert list(found["alpha"]) == [f"{0.1 * step:g}" for step in range(11)]
    # The ends of the path are the baseline and ROS themselves.
    assert found["alpha"]["0"] == found["ratio"]["10"]
    assert found["alpha"]["1"] == pytest.approx(found["ratio"]["1"], abs=0.1)
    best = {kind: max(found[kind].values(), key=lambda pair: pair[0])[1] for kind in found}
    claim, over_ends = path.outcome([found, found]).findings
    assert claim.gain.mean == pytest.approx(best["alpha"] - best["ratio"])
    assert over_ends.gain.mean == pytest.approx(best["alpha"] - max(found["alpha"]["0"], found["alpha"]["1"])[1])


def test_experts(bench: Bench) -> None:
    found = experts.measure(bench, 0)
    arms, coefficients = found["arms"], found["coefficients"]
    assert {"ros", "logit-adjustment", "experts, average", "baseline + thresholding", *coefficients} <= set(arms)
    assert coefficients["experts, average"] == [0.5, 0.5]
    balanced, natural = (coefficients[f"experts, Self Positioning, {probe} probe"] for probe in ("balanced", "natural"))
    assert balanced != natural
    # On a balanced probe the search must not forget the small classes, which half of the probe is of, and of the natural one an eleventh.
    assert balanced[1] > natural[1] + 0.1
    recalls = [arms[f"experts, Self Positioning, {probe} probe"]["minority recall"] for probe in ("balanced", "natural")]
    assert recalls[0] > recalls[1]
    sample = bench.experts(0)[2]
    thinned = np.bincount(bench.data.train.labels[experts.thinned(sample, bench.data.train.labels)])
    assert thinned.tolist() == [10 if count == 40 else 1 for count in sample.counts]


def test_experts_hold_only_above_each_rival() -> None:
    names = [f"experts, Self Positioning, {probe} probe" for probe in ("balanced", "natural")]
    rivals = ["ros", "baseline + thresholding, τ tuned on the balanced probe", "logit-adjustment"]

    def verdicts(balanced: float, natural: float, best: str) -> list[str]:
        values = {names[0]: balanced, names[1]: natural} | {rival: 60.0 if rival == best else 50.0 for rival in rivals}
        found = [
            {"arms": {name: {"auc": value + seed, "balanced accuracy": value + seed} for name, value in values.items()}}
            for seed in range(5)
        ]
        return [one.verdict for one in experts.outcome(found).findings]

    yes, no = "holds", "does not hold"
    assert verdicts(55, 45, "none") == [yes, yes, no, no, yes, yes]
    assert verdicts(45, 55, "none") == [no, no, yes, yes, no, no]
    assert verdicts(50, 50, "none") == [no] * 6  # level is not better
    assert [verdicts(55, 55, best).index(no) for best in rivals] == [0, 4, 5]


def test_the_search_has_no_dropout(bench: Bench) -> None:
    start = bench.untrained(0)
    start.trunk.append(torch.nn.Dropout(0.5))
    vectors = [difference(build("lenet", 10, seed), bench.untrained(0)) for seed in (1, 2)]
    gram = torch.tensor([[inner(a, b) for b in vectors] for a in vectors], dtype=torch.float64)
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


def test_norms(bench: Bench) -> None:
    found = norms.measure(bench, 0)
    assert found["lengths"]["steps"][-1] == pytest.approx(found["lengths"]["epochs"][-1])
    assert found["lengths"]["epochs"][0] < found["lengths"]["epochs"][-1]
    assert all(own[-1] == pytest.approx(1) for own in found["cosines"].values())
    assert found["vectors"]["0"] != found["vectors"]["2"]
    assert len(norms.outcome([found, found]).findings) == 3
    assert norms.r_squared([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    network = build("lenet", 10, 0)
    rows = normalised_head(network, 1.0)[0].weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(rows, torch.ones(10))
    assert not torch.allclose(network.classifier.weight.flatten(1).norm(dim=1), torch.ones(10))
