"""mergekit's recipes: what they become here, the same weights as mergekit's own arithmetic, and the lines
that cannot be honoured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from selfpos.errors import SelfposError
from selfpos.mergekit.methods import MERGEKIT
from selfpos.mergekit.rules import EVERY_LAYER
from selfpos.merging.method import get_method
from tests.helpers.folders import make_folder
from tests.helpers.mergekit_recipes import merge_recipe, translated, write_recipe
from tests.helpers.merges import models


def over_depth(ramp: str, first: float) -> dict[str, Any]:
    """A gradient, of which tensors outside the layers have the first stop, as in mergekit."""
    return {EVERY_LAYER: ramp, "default": first}


def test_a_recipe_with_everything(tmp_path: Path) -> None:
    file = write_recipe(
        tmp_path / "merge.yml",
        """
models:
  - model: a/base
  - model: one
    parameters:
      density: [1, 0.7, 0.1]
      weight: 1.0
  - model: two
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: [0, 0.25]
merge_method: ties
base_model: a/base
parameters:
  normalize: false
  lambda: 0.9
  int8_mask: true
dtype: float32
out_dtype: bfloat16
tokenizer_source: union
""",
    )
    found = translated(file)
    assert (found.base, found.sources, found.method, found.options["dtype"]) == (
        "a/base",
        ["one", "two"],
        "ties",
        "bfloat16",
    )
    assert found.options["weights"] == [1.0, {"*mlp*": 0.5, "default": over_depth("0..0.25", 0)}]
    assert found.options["params"] == {
        "density": [over_depth("1..0.7..0.1", 1), 0.33],
        "normalize": False,
        "scale": 0.9,
        "scope": "tensor",
    }
    assert any("tokenizer" in note for note in found.notes)


def test_whole_slices_are_models(tmp_path: Path) -> None:
    file = write_recipe(
        tmp_path / "merge.yml",
        """
slices:
  - sources:
      - model: one
        layer_range: [0, 3]
      - model: two
        layer_range: [0, 3]
merge_method: slerp
base_model: one
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 1]
    - value: 0.5
dtype: bfloat16
""",
    )
    found = translated(file)
    assert (found.base, found.sources, found.method, found.layers) == ("one", ["two"], "tensor-slerp", 3)
    assert (
        found.options["params"] == {"t": {"*self_attn*": over_depth("0..0.5..1", 0), "default": 0.5}}
        and found.options["weights"] is None
    )


HEAD = "merge_method: ties\nbase_model: b\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("merge_method: passthrough\nmodels: [{model: a}]", 1, "method 'passthrough' is not here"),
        ("merge_method: slrep\nmodels: [{model: a}]", 1, "did you mean 'slerp'"),
        ("merge_method: ties\nmodels: [{model: a}]", 1, "needs a base_model"),
        (
            f"{HEAD}models:\n  - model: a\n    parameters:\n      densty: 0.3",
            6,
            "parameter 'densty'.*did you mean 'density'",
        ),
        (f"{HEAD}models:\n  - model: a\nparameters:\n  rescale: true", 6, "rescale: true cannot be honoured"),
        (
            f"{HEAD}models:\n  - model: a\nmerge_metod: x",
            5,
            "field 'merge_metod'.*did you mean 'merge_method'",
        ),
        (
            f"{HEAD}slices:\n  - sources: [{{model: a, layer_range: [0, 2]}}]\n  - sources: []",
            3,
            "2 slices put parts of models together",
        ),
        (f"{HEAD}slices:\n  - sources:\n    - model: a\n      layer_range: [2, 4]", 6, "only whole models"),
        (f"{HEAD}models:\n  - model: a\ntokenizer: {{tokens: {{x: 1}}}}", 5, "'tokens' of a tokenizer"),
        (f"{HEAD}models:\n  - model: a\n    parameters:\n      weight: [a, b]", 6, "expected a number"),
        (f"{HEAD}models:\n  - model: c+lora", 4, "an adapter is merged over base_model"),
        (
            "merge_method: linear\nmodels:\n  - model: a\nparameters:\n  normalize: false",
            5,
            "normalize: false cannot be honoured",
        ),
        (
            "merge_method: nuslerp\nmodels:\n  - model: a\nparameters:\n  nuslerp_row_wise: true",
            5,
            "row_wise: true cannot be honoured",
        ),
        (f"{HEAD}models: []", 3, "expected a list of models"),
        (f"{HEAD}slices: {{sources: []}}", 3, "expected a list of slices"),
        (f"{HEAD}slices:\n  - sources:\n    - a", 4, "expected a list of models"),
        (
            f"{HEAD}slices:\n  - sources:\n    - model: a\n      layer_range: 4",
            6,
            "expected a first and a last layer, found 4",
        ),
        (f"{HEAD}models:\n  - model: a\n    layer_range: [2, 4]", 5, "only whole models"),
        (f"{HEAD}models:\n  - model: a\n    parameters: 5", 5, "expected a mapping of parameters"),
        (
            f"{HEAD}models:\n  - model: a\n    parameters:\n      weight: much",
            6,
            "expected a number, found 'much'",
        ),
        (f"{HEAD}models:\n  - model: a\ndtype: float31", 5, "no number format 'float31'"),
        (f"{HEAD}models:\n  - model: a\n5: x", 5, "field '5' has no counterpart"),
        (f"{HEAD}models:\n  - model: a\nparameters:\n  5: x", 6, "parameter '5' has no counterpart"),
        (
            f"{HEAD}models:\n  - model: a\n    parameters:\n      weight:\n      - value: 1\n      - "
            f"{{filter: mlp, value: 2}}",
            8,
            "put it last",
        ),
        (
            "merge_method: ties\nbase_model: {model: a}\nmodels: [{model: a}]",
            2,
            "a model is named by a path or a Hub name",
        ),
    ],
)
def test_what_cannot_be_honoured_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(SelfposError, match=rf"line {line}: .*{message}"):
        translated(write_recipe(tmp_path / "merge.yml", text))


def test_numbers_that_yaml_takes_for_words(tmp_path: Path) -> None:
    text = "merge_method: karcher\nmodels: [{model: a}, {model: b}]\nparameters: {tol: 1e-6, max_iter: 20}"
    assert translated(write_recipe(tmp_path / "merge.yml", text)).options["params"]["tolerance"] == 1e-6


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    for text, message in [("[1, 2]", "mapping"), ("a: [", "not YAML")]:
        with pytest.raises(SelfposError, match=message):
            translated(write_recipe(tmp_path / "merge.yml", text))
    with pytest.raises(SelfposError, match="no recipe file"):
        translated(tmp_path / "nowhere.yml")


def test_counterparts_exist() -> None:
    for name, counterpart in MERGEKIT.items():
        parameters = {parameter.name: parameter for parameter in get_method(counterpart.method).parameters}
        assert {*counterpart.params.values(), *counterpart.defaults} <= set(parameters), name
        for theirs, ours in counterpart.params.items():
            assert parameters[ours].per_vector == (theirs in counterpart.per_model), (name, theirs)


TRIMMED = [{"weight": 1.0, "density": 0.5}, {"weight": 0.5, "density": 0.25}]
# (method, top parameters, parameters of each of three models, whether a base model is named)
SHARED: list[tuple[str, dict[str, Any], list[dict[str, Any]], bool]] = [
    ("linear", {}, [{"weight": 1.0}, {"weight": 2.0}, {"weight": 0.5}], False),
    ("linear", {}, [{"weight": 1.0}, {"weight": 2.0}, {"weight": 0.5}], True),
    ("slerp", {"t": 0.3}, [{}], True),
    ("nuslerp", {}, [{"weight": 1.0}, {"weight": 3.0}], True),
    ("nuslerp", {}, [{"weight": 1.0}, {"weight": 3.0}], False),
    ("multislerp", {}, [{"weight": 1.0}, {"weight": 2.0}, {"weight": 0.5}], True),
    ("multislerp", {}, [{"weight": 1.0}, {"weight": 2.0}, {"weight": 0.5}], False),
    ("karcher", {}, [{}, {}, {}], False),
    ("task_arithmetic", {"lambda": 0.5}, [{"weight": 1.0}, {"weight": -0.5}, {"weight": 0.5}], True),
    ("ties", {}, [*TRIMMED, {"weight": 2.0, "density": 1.0}], True),
    ("ties", {"normalize": False, "lambda": 0.7}, [*TRIMMED, {"weight": 2.0}], True),
    ("breadcrumbs", {"density": 0.5, "gamma": 0.25}, [{"weight": 1.0}, {"weight": 0.5}], True),
    ("breadcrumbs_ties", {"density": 0.5, "gamma": 0.25}, [{"weight": 1.0}, {"weight": 0.5}], True),
    ("sce", {"select_topk": 0.5}, [{}, {}, {}], True),
    ("model_stock", {}, [{}, {}, {}], True),
    ("nearswap", {"t": 0.05}, [{}], True),
]  # fmt: skip


@pytest.mark.parametrize(("method", "top", "each", "based"), SHARED)
def test_same_weights_as_mergekit(
    tmp_path: Path, method: str, top: dict[str, Any], each: list[dict[str, Any]], based: bool
) -> None:
    """Where mergekit is installed. Shapes are chosen so that shares of elements are whole numbers: mergekit
    rounds them down, we round them up."""
    api = pytest.importorskip("mergekit.merge_methods.api")
    import torch

    base, tuned = models(7, len(each))
    shapes = ("encoder.layer.0.dense.weight", "encoder.layer.0.dense.bias", "encoder.layer.2.conv.weight")
    base = {key: base[key] for key in shapes}
    tuned = [{key: state[key] for key in shapes} for state in tuned]
    if method == "model_stock":  # a common part: at wide angles the base is kept here, and left in mergekit
        tuned = [{key: value + np.float32(0.2) for key, value in state.items()} for state in tuned]
    make_folder(tmp_path / "base", base)
    recipe: dict[str, Any] = {"merge_method": method, "parameters": top, "models": []}
    for index, (state, parameters) in enumerate(zip(tuned, each, strict=True)):
        make_folder(tmp_path / f"m{index}", state)
        recipe["models"].append({"model": str(tmp_path / f"m{index}"), "parameters": parameters})
    if based:
        recipe["base_model"] = str(tmp_path / "base")
    file = write_recipe(tmp_path / "merge.yml", yaml.safe_dump(recipe))
    found = load_file(merge_recipe(file, tmp_path / "out").out / "model.safetensors")

    inputs = {
        f"m{index}": {key: torch.from_numpy(value) for key, value in state.items()}
        for index, state in enumerate(tuned)
    }
    parameters = dict(top)
    for name in {name for given in each for name in given}:
        parameters[name] = {f"m{index}": given.get(name, 1.0) for index, given in enumerate(each)}
    if based and method != "linear":
        inputs = {"base": {key: torch.from_numpy(value) for key, value in base.items()}} | inputs
    expected = api.merge_state_dicts(
        inputs, method, parameters=parameters, base="base" if "base" in inputs else None
    )
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value.numpy(), atol=3e-6, err_msg=key)


def test_recipes_over_depth_and_names_act_where_they_say(tmp_path: Path) -> None:
    base, tuned = models(8, 2)
    for name, state in [("base", base), ("one", tuned[0]), ("two", tuned[1])]:
        make_folder(tmp_path / name, state)
    file = write_recipe(
        tmp_path / "merge.yml",
        f"""
models:
  - model: {tmp_path / "one"}
    parameters:
      weight: [0, 1]
  - model: {tmp_path / "two"}
    parameters:
      weight:
        - filter: bias
          value: 2
        - value: 0
merge_method: task_arithmetic
base_model: {tmp_path / "base"}
""",
    )
    result = merge_recipe(file, tmp_path / "out")
    found = load_file(result.out / "model.safetensors")
    assert isinstance(result.coefficients, dict)
    depth = {0: 0.0, 1: 0.5, 2: 1.0}
    for key, value in base.items():
        first = depth[int(key.split(".")[2])] if "layer." in key else 0.0
        second = 2.0 if "bias" in key else 0.0
        assert result.coefficients[key] == [first, second]
        np.testing.assert_allclose(
            found[key],
            value + first * (tuned[0][key] - value) + second * (tuned[1][key] - value),
            atol=1e-6,
            err_msg=key,
        )


def test_della_keeps_all_by_default(tmp_path: Path) -> None:
    base, tuned = models(9, 1)
    make_folder(tmp_path / "base", base)
    make_folder(tmp_path / "one", tuned[0])
    recipe = {
        "merge_method": "della_linear",
        "base_model": str(tmp_path / "base"),
        "models": [{"model": str(tmp_path / "one")}],
    }
    found = load_file(
        merge_recipe(write_recipe(tmp_path / "merge.yml", yaml.safe_dump(recipe)), tmp_path / "out").out
        / "model.safetensors"
    )
    for key, value in tuned[0].items():
        np.testing.assert_allclose(found[key], value, atol=1e-6, err_msg=key)


def test_layers_must_be_all(tmp_path: Path) -> None:
    base, tuned = models(8, 1)
    make_folder(tmp_path / "base", base)
    make_folder(tmp_path / "one", tuned[0])
    sources = [{"model": str(tmp_path / name), "layer_range": [0, 2]} for name in ("base", "one")]
    recipe = {
        "merge_method": "slerp",
        "base_model": str(tmp_path / "base"),
        "slices": [{"sources": sources}],
        "parameters": {"t": 0.5},
    }
    with pytest.raises(SelfposError, match="layers 0 to 2 of models that have 3"):
        merge_recipe(write_recipe(tmp_path / "merge.yml", yaml.safe_dump(recipe)), tmp_path / "out")


def test_a_folder_may_have_a_plus_in_its_name(tmp_path: Path) -> None:
    base, one = tmp_path / "a+b", tmp_path / "one+two"
    for folder in (base, one):
        folder.mkdir()
    head = f"merge_method: task_arithmetic\nbase_model: {base}\nmodels:\n"
    file = write_recipe(
        tmp_path / "r.yml", f"{head}  - model: {one}\n  - model: {base}+{one}\n  - model: {base}+o/n\n"
    )
    assert (translated(file).base, translated(file).sources) == (str(base), [str(one), str(one), "o/n"])
