from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from selfpos.errors import SelfposError
from selfpos.recipe import (
    PositioningSettings,
    ProbeSettings,
    Recipe,
    RetainSettings,
    Settings,
    load_recipe,
    validate,
)

GOOD = {
    "name": "r",
    "tasks": {"a": {"type": "sts", "data": "x.jsonl"}},
    "merges": {"m": {"method": "average"}},
}


def faults(change: dict) -> str:
    with pytest.raises(SelfposError) as caught:
        validate(Recipe, GOOD | change, "recipe r.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml")), ids=lambda file: file.stem
)
def test_shipped_recipes_are_valid_and_named_as_their_file(file: Path) -> None:
    assert load_recipe(file).name == file.stem


def test_bounds_go_by_the_types_of_a_field_and_not_by_their_names() -> None:
    class Place(Settings):
        where: Literal["Anywhere"] | int = 0
        free: dict[str, Any] | None = None
        strict: bool | None = None

    for value in (10**13, True):
        with pytest.raises(SelfposError, match="expected a number"):
            validate(Place, {"where": value}, "place")
    assert validate(Place, {"free": {"a": 10**13, "b": True}, "strict": True}, "place").strict is True


@pytest.mark.parametrize("rule", [{}, {"keep": 0.9}, {"alpha": 0.5}, {"promise": "none-worse"}])
def test_settings_to_retain_are_loaded_again_from_what_was_dumped(rule: dict[str, object]) -> None:
    settings = validate(RetainSettings, rule, "given")
    assert validate(RetainSettings, settings.model_dump(mode="json"), "dumped") == settings


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trainning": {}}, "no field 'trainning'; did you mean 'training'?"),
        (
            {"training": {"learning_rat": 1}},
            "no field 'training.learning_rat'; did you mean 'learning_rate'?",
        ),
        ({"tasks": {"a": {"type": "sts", "dat": "x"}}}, "no field 'tasks.a.dat'; did you mean 'data'?"),
        (
            {"merges": {"m": {"method": "self-positioning", "positioning": {"step": 3}}}},
            "did you mean 'steps'?",
        ),
        ({"training": {"batch_size": "many"}}, "field 'training.batch_size'"),
        ({"training": {"steps": 0}}, "greater than or equal to 1"),
        ({"tasks": {}}, "field 'tasks'"),
        (
            {"merges": {"m": {"method": "ties", "positioning": {}}}},
            "belongs to methods that search (self-positioning, lm-cocktail",
        ),
        (
            {"merges": {"m": {"method": "lm-cocktail", "positioning": {"preset": "paper"}}}},
            "omit 'preset: paper'",
        ),
        ({"merges": {"m": {"method": "layer-wise", "positioning": {"step": 3}}}}, "did you mean 'steps'?"),
        (
            {"merges": {"m": {"method": "cma-es", "weights": [1, 1]}}},
            "'weights' is for other methods: cma-es finds the coefficients",
        ),
        (
            {"merges": {"m": {"method": "self-positioning", "weights": [1, 1]}}},
            "'weights' is for other methods",
        ),
        (
            {"merges": {"m": {"method": "self-positioning", "params": {"steps": 3}}}},
            "'params' is for other methods",
        ),
        ({"seed": 2**32}, "field 'seed'"),
        ({"joint": {"mixtur": "proportional"}}, "no field 'joint.mixtur'; did you mean 'mixture'?"),
        (
            {"joint": {"hot": {"mixture": "temperature", "alfa": 1}}},
            "no field 'joint.hot.alfa'; did you mean 'alpha'?",
        ),
        ({"joint": {"mixture": "random"}}, "field 'joint.mixture'"),
        ({"joint": {"alpha": 0.5}}, "'alpha' belongs to mixture temperature, not to proportional"),
        ({"joint": {"mixture": "temperature", "ratio": {"a": 1}}}, "'ratio' belongs to mixture resampled"),
        (
            {"joint": {"mixture": "resampled", "ratio": {"aa": 1}}},
            "joint: there is no task 'aa'; did you mean 'a'?",
        ),
        ({"joint": {"surgery": "pcgrad", "mixture": "proportional"}}, "needs round-robin"),
        ({"joint": {"surgery": "pcgrad"}}, "joint: gradient surgery is between tasks"),
        ({"iterative": {"order": ["a", "b"]}}, "must name every task once"),
        (
            {"merges": {"m": {"method": "average", "vectors": "iterative"}}},
            "a pipeline that the recipe does not have",
        ),
        ({"bagging": {}}, "no merge has 'vectors: bagging'"),
        ({"budget": {"equal": "steps"}, "joint": {"steps": 3}}, "joint has steps, which the budget decides"),
        ({"name": "../up"}, "field 'name'"),
    ],
)
def test_a_mistake_is_named_with_the_nearest_right_name(change: dict, says: str) -> None:
    assert says in faults(change)


@pytest.mark.parametrize(
    ("joint", "names"),
    [
        (None, []),
        ({}, ["joint"]),
        ({"mixture": "round-robin", "steps": 3}, ["joint"]),
        ({"ratio": {"a": 2}, "mixture": "resampled"}, ["joint"]),
        (
            {"plain": {}, "max-3-1": {"mixture": "resampled", "size": "max", "ratio": {"a": 3}}},
            ["plain", "max-3-1"],
        ),
    ],
)
def test_joint_is_one_rival_or_several_and_comes_back_as_it_was_written(
    joint: dict | None, names: list[str]
) -> None:
    recipe = validate(Recipe, GOOD | {"joint": joint}, "recipe r.yaml")
    assert list(recipe.joints) == names
    assert (
        validate(Recipe, recipe.model_dump(mode="json", exclude_unset=True), "again").joints == recipe.joints
    )


def test_methods_that_search_are_presets_on_which_fields_beside_them_win() -> None:
    merges = {
        "cocktail": {"method": "lm-cocktail", "positioning": {"temperature": 0.1}},
        "layers": {"method": "layer-wise"},
        "own": {"method": "self-positioning"},
        "plain": {"method": "ties"},
    }
    recipe = validate(Recipe, GOOD | {"merges": merges}, "recipe")
    cocktail, layers, own, plain = (merge.search for merge in recipe.merges.values())
    assert cocktail is not None and (cocktail.search, cocktail.temperature, cocktail.validation) == (
        "loss-softmax",
        0.1,
        0.0,
    )
    assert layers is not None and (layers.search, layers.granularity) == ("sgd", "layer")
    assert own == PositioningSettings() and plain is None
    assert Recipe.model_validate(recipe.model_dump(mode="json", exclude_unset=True)) == recipe


def test_the_probe_has_as_many_records_of_each_task_or_the_ratio_asked_for() -> None:
    assert ProbeSettings(per_task=30).counts("abc") == {"a": 30, "b": 30, "c": 30}
    assert ProbeSettings(per_task=30, ratio={"a": 3, "b": 2}).counts("abc") == {"a": 30, "b": 20, "c": 10}
    assert "there is no task 'strs'" in faults(GOOD | {"probe": {"ratio": {"strs": 2}}})


def test_all_mistakes_are_told_at_once() -> None:
    text = faults({"trainning": {}, "tasks": {"a": {"type": "sts"}}})
    assert "trainning" in text
    assert "field 'tasks.a.data' is missing" in text


@pytest.mark.parametrize(("text", "says"), [("a: [", "is not YAML"), ("- 1", "must be a mapping")])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SelfposError, match=says):
        load_recipe(tmp_path / "r.yaml")
    with pytest.raises(SelfposError, match="no recipe file"):
        load_recipe(tmp_path / "absent.yaml")
