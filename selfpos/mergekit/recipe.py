"""mergekit's YAML recipes as merges of this engine: translated, or refused naming the line that cannot be honoured.

The format is mergekit's: `models`, or one `slices` entry over whole models, `merge_method`, `base_model`, and `parameters` at the top and per
model, each a number, a gradient over depth (a list) or a list of filters by tensor name.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError, nearest
from selfpos.mergekit.methods import EVERY_PARAMETER, HARMLESS, MERGEKIT, Counterpart
from selfpos.mergekit.recipe_file import Place, RecipeFile, read_recipe_file
from selfpos.merging.merge import MergeResult, merge
from selfpos.merging.method import get_method
from selfpos.merging.settings import number
from selfpos.storage.numbers import NAMES
from selfpos.vectors.names import layer_number

FIELDS = (
    "merge_method",
    "models",
    "slices",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "name",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
)


@dataclass(frozen=True)
class Translation:
    """A merge that a recipe asks for: the arguments of `merging.merge`, models by their names in the recipe. `notes` say what differs from
    mergekit; `layers` is how many layers the recipe says the models have, if it does.
    """

    base: str
    sources: list[str]
    method: str
    weights: list[Any] | None
    params: dict[str, Any]
    dtype: str | None
    notes: list[str] = field(default_factory=list)
    layers: int | None = None


def merge_recipe(file: Path, out: Path, **options: Any) -> MergeResult:
    """Carry out the mergekit recipe at `file`. Models are found as `locate_model` finds them; options are those of `merging.merge`.

    Raises SelfposError naming the line that cannot be honoured, or whatever the merge itself refuses.
    """
    from selfpos.storage.locate import locate_model

    base, sources, method, asked, _ = recipe_arguments(file)
    return merge(
        locate_model(base), [locate_model(source) for source in sources], method, out, **(asked | options)
    )


def recipe_arguments(file: Path) -> tuple[str, list[str], str, dict[str, Any], list[str]]:
    """(base, sources, method, options, notes) of the merge that a recipe asks for, after a look at how many layers its base has."""
    from selfpos.storage.locate import locate_model
    from selfpos.storage.model_folder import open_model

    asked = translate_recipe(file)
    if asked.layers is not None:
        keys = open_model(locate_model(asked.base)).tensors
        found = max((layer for key in keys if (layer := layer_number(key)) is not None), default=-1) + 1
        if found != asked.layers:
            raise SelfposError(
                f"{file} takes layers 0 to {asked.layers} of models that have {found}: parts of models cannot be put together here"
            )
    return (
        asked.base,
        asked.sources,
        asked.method,
        {"weights": asked.weights, "params": asked.params, "dtype": asked.dtype},
        asked.notes,
    )


def translate_recipe(file: Path) -> Translation:
    """What the mergekit recipe at `file` asks for, in this engine's terms. Raises SelfposError naming the line that cannot be honoured."""
    recipe = read_recipe_file(file)
    data = recipe.data
    for name in data:
        if name not in FIELDS:
            raise recipe.fault(
                (str(name),), f"field '{name}' has no counterpart here{nearest(str(name), FIELDS)}"
            )
    name = str(data.get("merge_method"))
    if name not in MERGEKIT:
        raise recipe.fault(
            ("merge_method",),
            f"mergekit's method '{name}' is not here{nearest(name, MERGEKIT)}; known: {', '.join(MERGEKIT)}",
        )
    for field_name in ("dtype", "out_dtype"):
        if data.get(field_name) is not None and str(data[field_name]) not in NAMES:
            raise recipe.fault(
                (field_name,),
                f"there is no number format '{data[field_name]}'; known: {', '.join(sorted(NAMES))}",
            )
    notes = (
        []
        if "tokenizer_source" not in data
        else ["tokenizer_source: the tokenizer is the base's, and models must share it"]
    )
    for field_name in ("tokenizer", "chat_template"):
        if field_name in data:
            raise recipe.fault(
                (field_name,), f"'{field_name}' is not done here: the output has the base's tokenizer"
            )
    counterpart = MERGEKIT[name]
    models, layers = _models(recipe)
    base = None if data.get("base_model") is None else _plain(recipe, data["base_model"], ("base_model",))
    if base is None and counterpart.origin == "vectors":
        raise recipe.fault(("merge_method",), f"method '{name}' needs a base_model")
    sources = [(model, place) for model, place in models if counterpart.origin == "models" or model != base]
    params = _params(recipe, counterpart, sources, notes)
    if counterpart.origin == "either" and base is None:
        params["space"] = "models"
    weights = None
    if "weight" in counterpart.per_model:
        weights = [_setting(recipe, place, "weight", 1.0) for _, place in sources]
    if base is None:
        notes.append(
            f"the recipe has no base_model: modules, tokenizer and buffers are those of {models[0][0]}"
        )
    names = [_model_name(recipe, model, base, place) for model, place in sources]
    return Translation(
        str(base or models[0][0]),
        names,
        counterpart.method,
        weights,
        params,
        data.get("out_dtype") or data.get("dtype"),
        notes,
        layers,
    )


def _models(recipe: RecipeFile) -> tuple[list[tuple[str, Place]], int | None]:
    """The models in order, each with its place in the file; and the number of layers when the recipe gives ranges."""
    place: Place = ("models",)
    layers = None
    entries = recipe.data.get("models")
    if entries is None:
        slices = recipe.data.get("slices") or []
        if not isinstance(slices, list) or not all(isinstance(piece, dict) for piece in slices):
            raise recipe.fault(("slices",), "expected a list of slices")
        if len(slices) != 1:
            raise recipe.fault(
                ("slices",), f"{len(slices)} slices put parts of models together, which is not done here"
            )
        for name in slices[0]:
            if name != "sources":
                raise recipe.fault(
                    ("slices", 0, name), f"'{name}' of a slice has no counterpart here; set it at the top"
                )
        entries, place = slices[0].get("sources"), ("slices", 0, "sources")
    if (
        not isinstance(entries, list)
        or not entries
        or not all(isinstance(entry, dict) and "model" in entry for entry in entries)
    ):
        raise recipe.fault(place, "expected a list of models")
    for index, entry in enumerate(entries):
        for name in entry:
            if name not in {"model", "parameters", "layer_range"}:
                raise recipe.fault((*place, index, name), f"'{name}' of a model has no counterpart here")
        if (span := entry.get("layer_range")) is None:
            continue
        if not isinstance(span, list) or len(span) != 2:
            raise recipe.fault(
                (*place, index, "layer_range"), f"expected a first and a last layer, found {span!r}"
            )
        if span[0] != 0 or span[1] != (layers or span[1]):
            raise recipe.fault(
                (*place, index, "layer_range"),
                f"layers {span[0]} to {span[1]}: only whole models are merged here",
            )
        layers = span[1]
    found = [
        (_plain(recipe, entry["model"], (*place, index, "model")), (*place, index))
        for index, entry in enumerate(entries)
    ]
    return found, layers


def _plain(recipe: RecipeFile, model: Any, place: Place) -> str:
    if not isinstance(model, str):
        raise recipe.fault(place, "a model is named by a path or a Hub name here")
    return model


def _model_name(recipe: RecipeFile, model: str, base: str | None, place: Place) -> str:
    """`base+adapter` is the adapter as a vector of that base."""
    start, plus, adapter = model.partition("+")
    if plus and start != base:
        raise recipe.fault(
            (*place, "model"), f"an adapter is merged over base_model here; found one over {start}"
        )
    return adapter if plus else model


def _params(
    recipe: RecipeFile, counterpart: Counterpart, sources: list[tuple[str, Place]], notes: list[str]
) -> dict[str, Any]:
    """The method's parameters in our names."""
    known = {*counterpart.params, *counterpart.refused, *counterpart.notes, *HARMLESS, *counterpart.per_model}
    places: list[Place] = [("parameters",), *((*place, "parameters") for _, place in sources)]
    for place in places:
        block = recipe.at(place) or {}
        if not isinstance(block, dict):
            raise recipe.fault(place, f"expected a mapping of parameters, found {block!r}")
        for name, value in block.items():
            where = (*place, str(name))
            if name in EVERY_PARAMETER and name not in known:
                notes.append(f"{name}: not used by this method")
                continue
            if name not in known:
                raise recipe.fault(
                    where,
                    f"parameter '{name}' has no counterpart in method {counterpart.method}{nearest(str(name), known)}",
                )
            if len(place) > 1 and name not in counterpart.per_model and name not in HARMLESS:
                raise recipe.fault(where, f"parameter '{name}' is one for all models")
            refused, reason = counterpart.refused.get(name, ((), ""))
            if value in refused:
                raise recipe.fault(where, f"{name}: {str(value).lower()} cannot be honoured: {reason}")
            if name in counterpart.notes:
                notes.append(f"{name}: {counterpart.notes[name]}")
    params = dict(counterpart.defaults)
    if counterpart.origin == "models" and counterpart.method != "linear":
        params["space"] = "models"
    kinds = {parameter.name: parameter for parameter in get_method(counterpart.method).parameters}
    for theirs, ours in counterpart.params.items():
        default = params.get(ours, kinds[ours].default)
        if theirs in counterpart.per_model:
            values = [_setting(recipe, place, theirs, None) for _, place in sources]
            if all(value is None for value in values):
                continue
            given = [
                default if value is None else _times(value, 2.0) if theirs in counterpart.twice else value
                for value in values
            ]
            params[ours] = given[0] if all(value == given[0] for value in given) else given
        elif (value := _setting(recipe, (), theirs, None)) is not None:
            params[ours] = value
    return params


def _setting(recipe: RecipeFile, place: Place, name: str, default: Any) -> Any:
    """A parameter of one model, or else the top's, as a value or rules of ours (see merging.rules)."""
    for where in [(*place, "parameters"), ("parameters",)]:
        block = recipe.at(where) or {}
        if name in block:
            return _rules(recipe, block[name], (*where, name))
    return default


def _rules(recipe: RecipeFile, value: Any, place: Place) -> Any:
    """A number stays, a list of numbers is a ramp over depth, a list of filters becomes rules."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        rules = {}
        for index, item in enumerate(value):
            if "default" in rules:
                raise recipe.fault(
                    (*place, index),
                    "the value without a filter before this one takes every tensor; put it last",
                )
            if not item.keys() <= {"filter", "value"} or "value" not in item:
                raise recipe.fault((*place, index), "expected a filter and a value")
            filter_ = item.get("filter")
            rule = "default" if filter_ in (None, "*") else f"*{glob.escape(str(filter_))}*"
            rules[rule] = _rules(recipe, item["value"], (*place, index, "value"))
        return rules
    if isinstance(value, list):
        value = [number(item) for item in value]
        if not value or not all(
            isinstance(item, int | float) and not isinstance(item, bool) for item in value
        ):
            raise recipe.fault(
                place, f"expected a number, a list of numbers over depth, or filters, found {value!r}"
            )
        return "..".join(map(str, value)) if len(value) > 1 else value[0]
    if isinstance(value, dict):
        raise recipe.fault(
            place, "a mapping by model has no counterpart here; give the parameter at each model"
        )
    value = number(value)
    if not isinstance(value, int | float | None):
        raise recipe.fault(place, f"expected a number, found {value!r}")
    return value


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, dict):
        return {rule: _times(inner, factor) for rule, inner in value.items()}
    if isinstance(value, str):
        return "..".join(str(float(stop) * factor) for stop in value.split(".."))
    return value * factor
