"""Recipes as they are published: lines that do no harm, filters that fit nothing, several in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from selfpos.errors import SelfposError
from selfpos.mergekit import translate_recipes
from tests.helpers.command import CommandLine
from tests.helpers.folders import make_folder
from tests.helpers.mergekit_recipes import merge_recipe, translated, write_recipe
from tests.helpers.merges import models


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        ("chat_template: auto", "chat_template: the base's is kept"),
        ("tokenizer: {source: base}", "the tokenizer is the base's, and models must share it"),
        ("tokenizer:\n  source: union\n  pad_to_multiple_of: null", "the tokenizer is the base's"),
        ("normalize: true", "normalize: mergekit reads it under 'parameters' only"),
        ("name: mine", ""),
    ],
)
def test_lines_that_do_no_harm_are_noted(lines: str, note: str, tmp_path: Path) -> None:
    head = "models: [{model: a, parameters: {weight: 1}}]\nmerge_method: ties\nbase_model: b\n"
    notes = translated(write_recipe(tmp_path / "merge.yml", head + lines)).notes
    assert any(note in line for line in notes)
    assert any("same magnitude" in line for line in notes)


def test_filters_that_fit_no_tensor_have_no_effect(tmp_path: Path) -> None:
    base, tuned = models(8, 1)
    make_folder(tmp_path / "base", base)
    make_folder(tmp_path / "one", tuned[0])
    rules = [{"filter": "lm_head", "value": 1}, {"filter": "model.embeddings", "value": 0.5}, {"value": 0.25}]
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(tmp_path / "base"),
        "models": [{"model": str(tmp_path / "one"), "parameters": {"weight": rules}}],
    }
    file = write_recipe(tmp_path / "merge.yml", yaml.safe_dump(recipe))
    fitted = translated(file).fitted()
    assert [note for note in fitted.notes if "lm_head" in note]
    assert not [note for note in fitted.notes if "embeddings" in note]
    coefficients = merge_recipe(file, tmp_path / "out").coefficients
    assert isinstance(coefficients, dict)
    assert {key: value[0] for key, value in coefficients.items()} == {
        key: 0.5 if key.startswith("embeddings") else 0.25 for key in base
    }


def test_karcher_takes_the_base_for_a_model(tmp_path: Path) -> None:
    text = "merge_method: karcher\nbase_model: b\nmodels: [{model: a}, {model: c}]\n"
    found = translated(write_recipe(tmp_path / "merge.yml", text))
    assert found.sources == ["a", "c", "b"] and any("one more of the models" in note for note in found.notes)
    listed = translated(write_recipe(tmp_path / "merge.yml", text.replace("model: c", "model: b")))
    assert listed.sources == ["a", "b"]


def test_several_recipes_are_merged_in_their_order(tmp_path: Path, selfpos: CommandLine) -> None:
    base, tuned = models(8, 2)
    for name, state in [("base", base), ("one", tuned[0]), ("two", tuned[1])]:
        make_folder(tmp_path / name, state)
    half = {"merge_method": "task_arithmetic", "base_model": str(tmp_path / "base")}
    first = half | {
        "name": "half",
        "models": [{"model": str(tmp_path / "one"), "parameters": {"weight": 0.5}}],
    }
    last = half | {
        "models": [
            {"model": "half", "parameters": {"weight": 1}},
            {"model": str(tmp_path / "two"), "parameters": {"weight": 1}},
        ]
    }
    file = write_recipe(tmp_path / "merge.yml", yaml.safe_dump_all([first, last]))
    before = sorted(tmp_path.iterdir())
    for out in (tmp_path / "out", tmp_path / "new" / "folder" / "out"):
        planned = selfpos("merge", file, "--out", out, "--dry-run")
        assert f"then task-arithmetic of half, {tmp_path / 'two'}" in planned.stdout, planned.stderr
    existing = selfpos("merge", file, "--out", tmp_path / "two")
    assert existing.returncode == 2 and "exists already" in existing.stderr
    assert sorted(tmp_path.iterdir()) == before
    done = selfpos("merge", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"the results of half do not stay, so `selfpos reproduce` cannot make {tmp_path / 'out'}" in (
        " ".join(done.stderr.split())
    )
    found = load_file(tmp_path / "out" / "model.safetensors")
    for key, value in base.items():
        expected = value + 0.5 * (tuned[0][key] - value) + (tuned[1][key] - value)
        np.testing.assert_allclose(found[key], expected, atol=1e-6, err_msg=key)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out"])
    unnamed = write_recipe(
        tmp_path / "unnamed.yml", yaml.safe_dump_all([half | {"models": [{"model": "a"}]}, last])
    )
    with pytest.raises(SelfposError, match="a recipe before the last needs a name"):
        translate_recipes(unnamed)
