"""A run whose base is a reranker: trained, merged, positioned, scored and reported as such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfpos.errors import SelfposError
from selfpos.pipeline.run import plan_run, run_recipe
from selfpos.recipe import Recipe
from selfpos.scores.files import read_scores
from selfpos.storage.model_class import class_of
from tests.helpers.rerankers import questions, reranker, write_candidates

WORDS = {"one": ("a", "b"), "two": ("c", "q")}


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A recipe over a tiny reranker, with two tasks that each tell two words apart."""
    base = reranker(tmp_path)
    for name, (right, wrong) in WORDS.items():
        questions(tmp_path / f"{name}.jsonl", right, wrong)
        questions(tmp_path / f"{name}-test.jsonl", right, wrong, 10)
        declared = f"name: {name.title()}\ntype: reranking\nfiles: {{test: {name}-test.jsonl}}\n"
        (tmp_path / f"{name}.yaml").write_text(declared)
    return {
        "name": "rerankers",
        "base": str(base),
        "tasks": {name: {"type": "reranking", "data": str(tmp_path / f"{name}.jsonl")} for name in WORDS},
        "training": {"steps": 60, "batch_size": 32, "learning_rate": 3e-3},
        "probe": {"per_task": 24},
        "merges": {
            "average": {"method": "average"},
            "fisher": {"method": "fisher"},
            "regmean": {"method": "regmean"},
            "found": {"method": "self-positioning", "positioning": {"separate": False}},
        },
        "evaluation": {"tasks": [str(tmp_path / f"{name}.yaml") for name in WORDS]},
    }


@pytest.mark.slow
def test_a_run_of_rerankers(content: dict[str, Any], tmp_path: Path) -> None:
    folder = run_recipe(Recipe.model_validate(content), tmp_path / "run")
    scores = {
        name: {task: score.main_score for task, score in read_scores(folder.scores(name)).items()}
        for name in ("base", "one", "two", "joint", "average", "fisher", "regmean", "found")
    }
    assert all(set(of_model) == {"One", "Two"} for of_model in scores.values())
    assert min(scores["one"]["One"], scores["two"]["Two"], *scores["joint"].values()) > 0.9
    assert max(scores["one"]["Two"], scores["two"]["One"]) < 0.8
    assert min(scores["found"].values()) > 0.9
    for name in ("average", "fisher", "regmean", "found"):
        assert class_of(folder.merged(name)) == "CrossEncoder"
        card = (folder.merged(name) / "README.md").read_text()
        assert "CrossEncoder(" in card and "| embedding |" not in card
    found = json.loads(folder.position("found").read_text())
    assert {rival["name"] for rival in found["rivals"]} >= {"base", "one", "two"}
    assert folder.report.is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluation": {"tasks": ["corpus"]}}, "scores on reranking tasks only, not on PythonDocs"),
        ({"merges": {"f": {"method": "retain"}}}, "merge f: retain takes models that embed texts"),
        ({"training": {"steps": 2, "temperature": 0.1}}, "task one: temperature is for losses of embeddings"),
        (
            {"tasks": {"one": {"type": "sts", "data": "{one}"}}},
            "task one: .*task type sts is for other models",
        ),
        (
            {"tasks": {"one": {"type": "reranking", "data": "{one}", "prompts": "ask: "}}},
            "task one: a cross-encoder is trained without prompts",
        ),
    ],
)
def test_what_is_not_for_rerankers_is_refused_before_anything_is_trained(
    change: dict[str, Any], message: str, content: dict[str, Any], tmp_path: Path
) -> None:
    for task in change.get("tasks", {}).values():
        task["data"] = str(tmp_path / "one.jsonl")
    with pytest.raises(SelfposError, match=message):
        plan_run(Recipe.model_validate(content | change), tmp_path / "run")


def test_a_validation_that_orders_nothing_is_refused_before_anything_is_trained(
    content: dict[str, Any], tmp_path: Path
) -> None:
    write_candidates(tmp_path / "one.jsonl", [0.4, 0.1, 0.3, 0.0])
    content["training"] |= {"batch_size": 8, "validation": {"share": 0.3}}
    content["probe"] = {"per_task": 4}
    with pytest.raises(SelfposError, match="task one: no question of the validation records has both"):
        plan_run(Recipe.model_validate(content), tmp_path / "run")
