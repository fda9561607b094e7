"""mergekit's YAML recipes as merges of this engine; lines that cannot be honoured are named.

The format is mergekit's: `models`, or one `slices` entry over whole models, `merge_method`, `base_model`, and
`parameters` at the top and per model. A parameter is a number, a gradient over depth (a list) or a list of
filters by name.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError, nearest
from selfpos.mergekit.methods import EVERY_PARAMETER, IGNORED, MERGEKIT, Counterpart
from selfpos.mergekit.recipe_file import At, RecipeFile, read_recipe_file
from selfpos.mergekit.rules import EVERY_LAYER, fit_rules
from selfpos.merging.method import get_method
from selfpos.merging.settings import DEFAULT, number
from selfpos.storage.numbers import NAMES

FIELDS = (
    *("merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype", "name"),
    *("tokenizer_source", "tokenizer", "chat_template"),
)


@dataclass(frozen=True)
class Translation:
    """A merge that a recipe asks for, models by their names in the recipe, and its options.

    `notes` say what differs from mergekit; `layers` is how many layers the recipe says the models have, if it
    does.
    """

    base: str
    sources: list[str]
    method: str
    options: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    layers: int | None = None

    def fitted(self) -> Translation:
        """The translation for the base's tensors: filters that fit none have no effect, as in mergekit.

        Raises SelfposError where the recipe takes only some of the base's layers.
        """
        from selfpos.storage.locate import locate_model
        from selfpos.storage.model_folder import open_model
        from selfpos.vectors.names import layer_number

        tensors = open_model(locate_model(self.base)).tensors
        keys = [key for key, entry in tensors.items() if entry.mergeable]
        layers = 1 + max((layer for key in keys if (layer := layer_number(key)) is not None), default=-1)
        if self.layers not in (None, layers):
            raise SelfposError(
                f"the recipe takes layers 0 to {self.layers} of models that have {layers}: parts of models "
                "cannot be put together here"
            )
        notes = list(self.notes)
        weights = fit_rules(self.options["weights"], keys, notes)
        params = {name: fit_rules(value, keys, notes) for name, value in self.options["params"].items()}
        options = self.options | {"weights": weights, "params": params}
        return replace(self, options=options, notes=list(dict.fromkeys(notes)))

    def over(self, made: Mapping[str, Path]) -> Translation:
        """The same merge, with the results of earlier recipes by their names."""
        base, *sources = (str(made.get(name, name)) for name in (self.base, *self.sources))
        return replace(self, base=base, sources=sources)


def translate_recipes(file: Path) -> list[tuple[str, Translation]]:
    """What the mergekit recipes in `file` ask for, in this engine's terms, by their names.

    Several, as for mergekit-multi, are merged in their order: a later one may name an earlier one's result.
    Raises SelfposError naming the line that cannot be honoured.
    """
    recipes = read_recipe_file(file)
    for recipe in recipes[:-1]:
        if not re.fullmatch(r"\w[\w.-]*", str(recipe.data.get("name", ""))):
            raise recipe.fault(
                (), "a recipe before the last needs a name, by which a later one takes its result"
            )
    return [(str(recipe.data.get("name", "")), _Translator(recipe).translate()) for recipe in recipes]


class _Translator:
    def __init__(self, recipe: RecipeFile) -> None:
        self.recipe = recipe
        self.data = recipe.data
        self.notes: list[str] = []

    def translate(self) -> Translation:
        counterpart = self._counterpart()
        models, layers = self._models()
        name, base = self.data.get("merge_method"), self.data.get("base_model")
        if base is not None:
            base = self._model(base, ("base_model",))
        elif counterpart.origin == "vectors":
            raise self.recipe.fault(("merge_method",), f"method '{name}' needs a base_model")
        sources = [(model, at) for model, at in models if counterpart.origin == "models" or model != base]
        if counterpart.method == "karcher" and base not in (None, *(model for model, _ in sources)):
            sources.append((str(base), ("base_model",)))
            self.notes.append("base_model: it is one more of the models whose mean is taken, as in mergekit")
        params = self._params(counterpart, [at for _, at in sources])
        if counterpart.origin == "either" and base is None:
            params["space"] = "models"
        weights = None
        if "weight" in counterpart.per_model:
            weights = [self._setting(at, "weight", 1.0) for _, at in sources]
        if base is None:
            first = models[0][0]
            self.notes.append(
                f"the recipe has no base_model: modules, tokenizer and buffers are those of {first}"
            )
        dtype = self.data.get("out_dtype") or self.data.get("dtype")
        options = {"weights": weights, "params": params, "dtype": dtype}
        names = [self._vector_name(model, base, at) for model, at in sources]
        return Translation(str(base or models[0][0]), names, counterpart.method, options, self.notes, layers)

    def _counterpart(self) -> Counterpart:
        """Checks the fields of the top and returns the method's counterpart."""
        fault, file = self.recipe.fault, self.recipe.file
        if "tasks" in self.data and "merge_method" not in self.data:
            raise SelfposError(f"{file} is a recipe of selfpos: carry it out with `selfpos run {file}`")
        for name in self.data:
            if name in EVERY_PARAMETER:
                self.notes.append(f"{name}: mergekit reads it under 'parameters' only; it has no effect here")
            elif name not in FIELDS:
                hint = nearest(str(name), FIELDS)
                raise fault((str(name),), f"field '{name}' has no counterpart here{hint}")
        method = str(self.data.get("merge_method"))
        if method not in MERGEKIT:
            hint = f"{nearest(method, MERGEKIT)}; known: {', '.join(MERGEKIT)}"
            raise fault(("merge_method",), f"mergekit's method '{method}' is not here{hint}")
        for name in ("dtype", "out_dtype"):
            dtype = self.data.get(name)
            if dtype is not None and str(dtype) not in NAMES:
                raise fault(
                    (name,), f"there is no number format '{dtype}'; known: {', '.join(sorted(NAMES))}"
                )
        self._check_tokenizer()
        if MERGEKIT[method].differs:
            self.notes.append(f"{method}: {MERGEKIT[method].differs}")
        return MERGEKIT[method]

    def _check_tokenizer(self) -> None:
        """The output has the base's tokenizer: note it, and refuse tokens that are to be changed."""
        tokenizer = self.data.get("tokenizer")
        if tokenizer is not None and not isinstance(tokenizer, dict):
            raise self.recipe.fault(("tokenizer",), f"expected a mapping with a source, found {tokenizer!r}")
        for name, value in (tokenizer or {}).items():
            if name != "source" and value:
                reason = f"'{name}' of a tokenizer is not done here: the output has the base's tokenizer"
                raise self.recipe.fault(("tokenizer", str(name)), reason)
        for name in ("tokenizer", "tokenizer_source"):
            if name in self.data:
                self.notes.append(f"{name}: the tokenizer is the base's, and models must share it")
        if "chat_template" in self.data:
            self.notes.append("chat_template: the base's is kept")

    def _models(self) -> tuple[list[tuple[str, At]], int | None]:
        """The models with their positions in the file; the number of layers when ranges are given."""
        entries, at = self._entries()
        well_formed = isinstance(entries, list) and all(
            isinstance(entry, dict) and "model" in entry for entry in entries
        )
        if not entries or not well_formed:
            raise self.recipe.fault(at, "expected a list of models")
        layers = None
        for index, entry in enumerate(entries):
            for name in entry:
                if name not in {"model", "parameters", "layer_range"}:
                    raise self.recipe.fault(
                        (*at, index, name), f"'{name}' of a model has no counterpart here"
                    )
            span, span_at = entry.get("layer_range"), (*at, index, "layer_range")
            if span is None:
                continue
            if not isinstance(span, list) or len(span) != 2:
                raise self.recipe.fault(span_at, f"expected a first and a last layer, found {span!r}")
            first, last = span
            if first != 0 or last != (layers or last):
                raise self.recipe.fault(
                    span_at, f"layers {first} to {last}: only whole models are merged here"
                )
            layers = last
        models = [
            (self._model(entry["model"], (*at, index, "model")), (*at, index))
            for index, entry in enumerate(entries)
        ]
        return models, layers

    def _entries(self) -> tuple[Any, At]:
        """The list of models, and its position: `models`, or the sources of the only slice."""
        if self.data.get("models") is not None:
            if self.data.get("slices") is not None:
                raise self.recipe.fault(("slices",), "there are models and slices; keep one of them")
            return self.data["models"], ("models",)
        slices = self.data.get("slices") or []
        if not isinstance(slices, list) or not all(isinstance(entry, dict) for entry in slices):
            raise self.recipe.fault(("slices",), "expected a list of slices")
        if len(slices) != 1:
            reason = f"{len(slices)} slices put parts of models together, which is not done here"
            raise self.recipe.fault(("slices",), reason)
        for name in slices[0]:
            if name != "sources":
                reason = f"'{name}' of a slice has no counterpart here; set it at the top"
                raise self.recipe.fault(("slices", 0, name), reason)
        return slices[0].get("sources"), ("slices", 0, "sources")

    def _model(self, model: Any, at: At) -> str:
        if not isinstance(model, str):
            raise self.recipe.fault(at, "a model is named by a path or a Hub name here")
        return model

    def _vector_name(self, model: str, base: str | None, at: At) -> str:
        """`base+adapter` is the adapter as a vector of that base; a folder may have a + in its name."""
        if base is not None and model.startswith(f"{base}+"):
            return model.removeprefix(f"{base}+")
        if "+" in model and not Path(model).expanduser().is_dir():
            reason = f"an adapter is merged over base_model here; found one over {model.partition('+')[0]}"
            raise self.recipe.fault((*at, "model"), reason)
        return model

    def _params(self, counterpart: Counterpart, sources: list[At]) -> dict[str, Any]:
        """The method's parameters in our names."""
        for at in [(), *sources]:
            self._check_parameters(counterpart, at)
        params = dict(counterpart.defaults)
        if counterpart.origin == "models" and counterpart.method != "linear":
            params["space"] = "models"
        defaults = {
            parameter.name: parameter.default for parameter in get_method(counterpart.method).parameters
        }
        for theirs, ours in counterpart.params.items():
            if theirs not in counterpart.per_model:
                value = self._setting((), theirs, None)
                params |= {} if value is None else {ours: value}
                continue
            values = [self._setting(at, theirs, None) for at in sources]
            if all(value is None for value in values):
                continue
            default = params.get(ours, defaults[ours])
            factor = 2.0 if theirs in counterpart.halved else 1.0
            filled = [default if value is None else _times(value, factor) for value in values]
            params[ours] = filled[0] if all(value == filled[0] for value in filled) else filled
        return params

    def _check_parameters(self, counterpart: Counterpart, at: At) -> None:
        """Refuse what cannot be honoured among the parameters of the top (`at` is empty) or of one model."""
        block = self.recipe.at((*at, "parameters")) or {}
        if not isinstance(block, dict):
            raise self.recipe.fault((*at, "parameters"), f"expected a mapping of parameters, found {block!r}")
        applicable = {
            *counterpart.params,
            *counterpart.refused,
            *counterpart.notes,
            *IGNORED,
            *counterpart.per_model,
        }
        for name, value in block.items():
            where = (*at, "parameters", str(name))
            if name in EVERY_PARAMETER and name not in applicable:
                self.notes.append(f"{name}: not used by this method")
                continue
            if name not in applicable:
                hint = nearest(str(name), applicable)
                reason = f"parameter '{name}' has no counterpart in method {counterpart.method}{hint}"
                raise self.recipe.fault(where, reason)
            if at and name not in counterpart.per_model and name not in IGNORED:
                raise self.recipe.fault(where, f"parameter '{name}' is one for all models")
            refused, reason = counterpart.refused.get(name, (None, ""))
            if refused is not None and value == refused:
                raise self.recipe.fault(where, f"{name}: {str(value).lower()} cannot be honoured: {reason}")
            if name in counterpart.notes:
                self.notes.append(f"{name}: {counterpart.notes[name]}")

    def _setting(self, at: At, name: str, default: Any) -> Any:
        """A parameter of one model, or else the top's, as a value or rules of ours (see merging.settings)."""
        for where in [(*at, "parameters"), ("parameters",)]:
            block = self.recipe.at(where) or {}
            if name in block:
                return self._rules(block[name], (*where, name))
        return default

    def _rules(self, value: Any, at: At) -> Any:
        """A number stays, a list of numbers is a ramp over depth, a list of filters becomes rules."""
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            rules: dict[str, Any] = {}
            for index, item in enumerate(value):
                if DEFAULT in rules:
                    reason = "the value without a filter before this one takes every tensor; put it last"
                    raise self.recipe.fault((*at, index), reason)
                if not item.keys() <= {"filter", "value"} or "value" not in item:
                    raise self.recipe.fault((*at, index), "expected a filter and a value")
                pattern = item.get("filter")
                rule = DEFAULT if pattern in (None, "*") else f"*{glob.escape(str(pattern))}*"
                rules[rule] = self._rules(item["value"], (*at, index, "value"))
            return rules
        if isinstance(value, dict):
            reason = "a mapping by model has no counterpart here; give the parameter at each model"
            raise self.recipe.fault(at, reason)
        if not isinstance(value, list):
            value = number(value)
            if not isinstance(value, int | float | None):
                raise self.recipe.fault(at, f"expected a number, found {value!r}")
            return value
        stops = [number(item) for item in value]
        if not stops or not all(
            isinstance(stop, int | float) and not isinstance(stop, bool) for stop in stops
        ):
            reason = f"expected a number, a list of numbers over depth, or filters, found {stops!r}"
            raise self.recipe.fault(at, reason)
        if len(stops) == 1 or stops[0] == stops[-1] == max(stops) == min(stops):
            return stops[0]
        # Depth is that of layers; tensors before and after them have the first stop in mergekit.
        return {EVERY_LAYER: "..".join(map(str, stops)), DEFAULT: stops[0]}


def _times(value: Any, factor: float) -> Any:
    if factor == 1.0:
        return value
    if isinstance(value, dict):
        return {rule: _times(inner, factor) for rule, inner in value.items()}
    if isinstance(value, str):
        return "..".join(str(float(stop) * factor) for stop in value.split(".."))
    return value * factor
