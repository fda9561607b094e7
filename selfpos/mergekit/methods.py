"""mergekit's merge methods: our names for their parameters, and settings without counterpart.

From mergekit's documentation (docs/merge_methods.md) and the behaviour of version 0.1.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Counterpart:
    """One of mergekit's methods here.

    params: its parameter names → ours. defaults: ours where mergekit's default differs, in our names.
    refused: parameter → the value that cannot be honoured, and why. notes: parameter → how it is honoured
        differently.
    per_model: parameters that each model may have. origin: what is merged: the vectors θ_i − θ0 ('vectors'),
    the models ('models'), or either, as the recipe has a base. halved: parameters that are half of ours.
    differs: where the numbers are others than mergekit's.
    """

    method: str
    params: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, tuple[bool, str]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    per_model: tuple[str, ...] = ("weight",)
    origin: str = "vectors"
    halved: tuple[str, ...] = ()
    differs: str = ""


BY_CHANCE = {"rescale": "what is kept is rescaled by its chance, not by the L1 norm: the same on average"}
NO_RESCALE = {"rescale": (True, "what is kept is not rescaled to the norm before")}
EQUAL_MAGNITUDES = (
    "a share of entries is rounded up, and those of the same magnitude as the last are kept too, where "
    "mergekit rounds down and keeps exactly so many"
)
WHOLE_TENSORS = "only the form over whole tensors is here"
SUM = {"normalize": "normalize", "lambda": "scale"}
SPARSE = {"density": "density", **SUM}
DROP = {"rescale": "rescale", **SPARSE}
DELLA = Counterpart(
    "della-linear",
    {"epsilon": "epsilon", **DROP},
    {"density": 1.0, "epsilon": 0.3},
    notes=BY_CHANCE,
    per_model=("weight", "density", "epsilon"),
    halved=("epsilon",),
)
DARE = Counterpart("dare-linear", DROP, {"density": 1.0}, notes=BY_CHANCE, per_model=("weight", "density"))
BREADCRUMBS = Counterpart(
    "breadcrumbs",
    {"gamma": "gamma", **SPARSE},
    {"density": 1.0},
    refused=NO_RESCALE,
    per_model=("weight", "density", "gamma"),
    differs=EQUAL_MAGNITUDES,
)
PLAIN_SUM = {"density": 1.0, "normalize": False}

MERGEKIT: dict[str, Counterpart] = {
    "linear": Counterpart(
        "linear",
        defaults={"normalize": True},
        refused={"normalize": (False, "weights that are not normalised scale the whole model")},
        origin="models",
    ),
    "slerp": Counterpart(
        "tensor-slerp",
        {"t": "t"},
        per_model=(),
        differs="a tensor that is all zeros in one model is mixed linearly, where mergekit takes it to lie "
        "at a right angle",
    ),
    "nuslerp": Counterpart(
        "nuslerp",
        refused={"nuslerp_row_wise": (True, WHOLE_TENSORS), "nuslerp_flatten": (False, WHOLE_TENSORS)},
        origin="either",
    ),
    "multislerp": Counterpart(
        "multi-slerp", {"normalize_weights": "normalize"}, notes={"eps": "not needed here"}, origin="either"
    ),
    "karcher": Counterpart(
        "karcher",
        {"max_iter": "steps", "tol": "tolerance"},
        {"steps": 10, "tolerance": 1e-5, "space": "models"},
        per_model=(),
        origin="models",
    ),
    "task_arithmetic": Counterpart(
        "task-arithmetic",
        {"lambda": "scale"},
        refused={"normalize": (True, "divide the weights by their sum, or use linear"), **NO_RESCALE},
        notes={"density": "task_arithmetic keeps everything, in mergekit too"},
    ),
    "ties": Counterpart(
        "ties",
        SPARSE,
        {"density": 1.0, "scope": "tensor"},
        refused=NO_RESCALE,
        per_model=("weight", "density"),
        differs=EQUAL_MAGNITUDES,
    ),
    "dare_linear": DARE,
    "dare_ties": replace(DARE, method="dare-ties", defaults=PLAIN_SUM),
    "della_linear": DELLA,
    "della": replace(DELLA, method="della-ties"),
    "breadcrumbs": BREADCRUMBS,
    "breadcrumbs_ties": replace(BREADCRUMBS, method="breadcrumbs-ties", defaults=PLAIN_SUM),
    "sce": Counterpart(
        "sce",
        {"select_topk": "select"},
        {"select": 1.0},
        per_model=(),
        differs="a share of entries is rounded up, where mergekit rounds down",
    ),
    "model_stock": Counterpart(
        "model-stock",
        refused={"filter_wise": (True, WHOLE_TENSORS)},
        per_model=(),
        differs="at angles wider than a right one a tensor stays the base's, where mergekit moves it away",
    ),
    "nearswap": Counterpart("nearswap", {"t": "t"}, per_model=()),
}
"""mergekit's name → ours."""

IGNORED = {"int8_mask"}
"""How mergekit holds masks in memory."""
EVERY_PARAMETER = {
    name
    for counterpart in MERGEKIT.values()
    for name in (*counterpart.params, *counterpart.refused, *counterpart.notes, *counterpart.per_model)
}
"""Parameters that some method has: mergekit ignores those that the chosen method does not use."""
