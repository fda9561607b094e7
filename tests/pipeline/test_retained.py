"""A run whose merge keeps as much of a specialist as a promise allows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfpos.errors import SelfposError
from selfpos.pipeline.run import run_recipe
from selfpos.recipe import Recipe, validate
from selfpos.storage.manifest import read_manifest
from tests.helpers.pipelines import every_pipeline


@pytest.mark.slow
def test_a_run_retains_on_its_own_probe_set(tiny_base: Path, tmp_path: Path) -> None:
    recipe = every_pipeline(tiny_base, tmp_path)
    for name in ("joint", "iterative", "bagging", "budget"):
        del recipe[name]
    texts = tmp_path / "general.txt"
    texts.write_text("\n".join(f"{a} {b} {c}" for a in "abcd" for b in "efgh" for c in "ijkl"))
    settings = {"alpha": 0.5, "general": [str(texts)], "device": "cpu"}
    recipe["merges"] = {"retained": {"method": "retain", "retain": settings}}
    recipe["probe"] = {"per_task": 40}
    run_recipe(validate(Recipe, recipe, "recipe"), tmp_path / "run")
    manifest = read_manifest(tmp_path / "run" / "merged" / "retained")
    assert manifest["retain"]["tasks"] == {"domain": ["retrieval", "pairs"], "general": ["general"]}
    assert manifest["retain"]["chosen"]["alpha"] == 0.5
    front = json.loads((tmp_path / "run" / "merged" / "retained.front.json").read_text())
    assert front["chosen"] == manifest["retain"]["chosen"]


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        ({"method": "ties", "retain": {}}, "'retain' belongs to method retain, not to ties"),
        ({"method": "retain", "weights": 0.5}, "its settings go under 'retain'"),
        ({"method": "retain", "retain": {"aplha": 1}}, "did you mean 'alpha'?"),
    ],
)
def test_settings_of_another_method_are_refused(merge: dict, words: str) -> None:
    recipe = {"name": "r", "tasks": {"a": {"type": "sts", "data": "x"}}, "merges": {"m": merge}}
    with pytest.raises(SelfposError) as caught:
        validate(Recipe, recipe, "recipe r.yaml")
    assert words in str(caught.value)
