"""Experts of large and of small classes, merged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from selfpos.imbalance.carryover import experts
from selfpos.imbalance.carryover.experts import Bench, difference, gram_of, moved
from selfpos.imbalance.study.data import read_images
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


def test_experts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts, "STEPS", 40)
    ticks: list[None] = []
    result = experts.measure(replace(bench, tick=lambda: ticks.append(None)), 0)
    # The progress bar ends at its total.
    assert len(ticks) == experts.iterations(bench.recipe.training.iterations)
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
    start = build("lenet", 10, 0)
    start.trunk.append(torch.nn.Dropout(0.5))
    vectors = [difference(build("lenet", 10, seed), build("lenet", 10, 0)) for seed in (1, 2)]
    gram = gram_of(vectors)
    assert start.training
    first, again = (experts.search(bench, start, vectors, gram, np.arange(40), 0) for _ in range(2))
    assert first == again


def test_experts_are_trained_from_their_seed(bench: Bench) -> None:
    start, sample = build("lenet", 10, 0), bench.train("baseline", 0).samples[0]
    start.trunk.append(torch.nn.Dropout(0.5))
    trained = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        trained.append(bench.train_on(start, sample, sample.minority, 3).classifier.weight)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*trained)
