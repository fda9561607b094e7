"""A run whose merge keeps as much of a specialist as a promise allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfpos.errors import SelfposError
from selfpos.pipeline.checks import retain_settings
from selfpos.pipeline.run import plan_run, run_recipe
from selfpos.recipe import Recipe, RetainSettings, validate
from selfpos.storage.manifest import read_manifest
from tests.helpers.pipelines import every_pipeline


@pytest.mark.slow
def test_a_run_retains_on_its_own_probe_set(tiny_base: Path, tmp_path: Path) -> None:
    texts = tmp_path / "general.txt"
    texts.write_text("\n".join(f"{a} {b} {c}" for a in "abcd" for b in "efgh" for c in "ijkl"))
    settings = {"alpha": 0.5, "general": [str(texts)], "device": "cpu", "seed": 5}
    run_recipe(recipe_of(tiny_base, tmp_path, ("retrieval", "pairs"), **settings), tmp_path / "run")
    manifest = read_manifest(tmp_path / "run" / "merged" / "retained")
    assert manifest["retain"]["tasks"] == {"domain": ["retrieval", "pairs"], "general": ["general"]}
    assert manifest["retain"]["chosen"]["alpha"] == 0.5
    assert manifest["retain"]["settings"]["seed"] == 5
    front = json.loads((tmp_path / "run" / "merged" / "retained.front.json").read_text())
    assert front["chosen"] == manifest["retain"]["chosen"]


def recipe_of(tiny_base: Path, folder: Path, tasks: tuple[str, ...], **settings: Any) -> Recipe:
    recipe = every_pipeline(tiny_base, folder)
    for name in ("joint", "iterative", "bagging", "budget"):
        del recipe[name]
    recipe["tasks"] = {name: recipe["tasks"][name] for name in tasks}
    recipe["merges"] = {"retained": {"method": "retain", "retain": settings}}
    recipe["probe"] = {"per_task": 40}
    return validate(Recipe, recipe, "recipe")


def test_the_seed_and_the_data_of_the_run_hold_where_the_merge_gives_none(
    tiny_base: Path, tmp_path: Path
) -> None:
    plain = recipe_of(tiny_base, tmp_path, ("retrieval",))
    found = retain_settings(plain, plain.merges["retained"], tmp_path)
    assert (found.seed, found.data_dir) == (3, tmp_path)
    settings = RetainSettings(seed=0, data_dir=tmp_path / "own")
    own = plain.merges["retained"].model_copy(update={"retain": settings})
    assert retain_settings(plain, own, tmp_path) == settings
    dumped = validate(RetainSettings, RetainSettings().model_dump(mode="json"), "dumped")
    again = plain.merges["retained"].model_copy(update={"retain": dumped})
    assert retain_settings(plain, again, tmp_path).seed == 3


@pytest.mark.parametrize(
    ("tasks", "settings", "words"),
    [
        (("retrieval",), {"general": ["nowhere.txt"]}, "'nowhere.txt' is no file or folder"),
        (("retrieval",), {"general": ["{few}"]}, "2 distinct texts, and 32 are needed"),
        (("pairs",), {"general": ["{many}"], "index": "base"}, "needs a domain of questions and documents"),
    ],
)
def test_what_cannot_be_retained_is_refused_before_anything_is_trained(
    tiny_base: Path, tmp_path: Path, tasks: tuple[str, ...], settings: dict, words: str
) -> None:
    files = {"few": tmp_path / "few.txt", "many": tmp_path / "many.txt"}
    files["few"].write_text("one\ntwo")
    files["many"].write_text("\n".join(f"text {number}" for number in range(40)))
    settings |= {"general": [word.format(**files) for word in settings["general"]]}
    recipe = recipe_of(tiny_base, tmp_path, tasks, **settings)
    with pytest.raises(SelfposError, match=f"recipe every, merge retained: .*{words}"):
        plan_run(recipe, tmp_path / "run")


def test_a_probe_too_small_to_retain_on_is_refused_before_anything_is_trained(
    tiny_base: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_base, tmp_path, ("retrieval",))
    recipe = recipe.model_copy(update={"probe": recipe.probe.model_copy(update={"per_task": 12})})
    with pytest.raises(SelfposError, match="gives 12 records for task retrieval, and 32 are needed"):
        plan_run(recipe, tmp_path / "run")


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
