"""mergekit's merge methods that exist here too: what their parameters are called, and which of their settings have no counterpart.

From mergekit's documentation (docs/merge_methods.md) and the behaviour of version 0.1.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Counterpart:
    """One of mergekit's methods here.

    `params`: its parameter names → ours. `defaults`: ours where mergekit's default is another, in our names. `refused`: parameter → the values
    that cannot be honoured, and why. `notes`: parameter → in which way it is honoured differently. `per_model`: parameters each model may have.
    `origin`: with a base the vectors are θ_i − θ0 ('vectors'), or the models themselves are merged ('models'); 'either' as the recipe has a base.
    """

    method: str
    params: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    per_model: tuple[str, ...] = ("weight",)
    origin: str = "vectors"
    twice: tuple[str, ...] = ()


BY_NORM = "what is kept is rescaled by its chance, not by the L1 norm: the same on average"
COMMON = {"normalize": "normalize", "lambda": "scale"}
NO_RESCALE = {"rescale": ((True,), "what is kept is not rescaled to the norm before")}

MERGEKIT: dict[str, Counterpart] = {
    "linear": Counterpart(
        "linear",
        defaults={"normalize": True},
        refused={"normalize": ((False,), "weights that are not normalised scale the whole model")},
        origin="models",
    ),
    "slerp": Counterpart("tensor-slerp", {"t": "t"}, per_model=()),
    "nuslerp": Counterpart(
        "nuslerp",
        refused={
            "nuslerp_row_wise": ((True,), "only the form over whole tensors is here"),
            "nuslerp_flatten": ((False,), "only the form over whole tensors is here"),
        },
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
        refused={"normalize": ((True,), "divide the weights by their sum, or use linear"), **NO_RESCALE},
        notes={"density": "task_arithmetic keeps everything, in mergekit too"},
    ),
    "ties": Counterpart(
        "ties",
        {"density": "density", **COMMON},
        {"density": 1.0, "scope": "tensor"},
        refused=NO_RESCALE,
        per_model=("weight", "density"),
    ),
    "dare_linear": Counterpart(
        "dare-linear",
        {"density": "density", "rescale": "rescale", **COMMON},
        {"density": 1.0},
        notes={"rescale": BY_NORM},
        per_model=("weight", "density"),
    ),
    "dare_ties": Counterpart(
        "dare-ties",
        {"density": "density", "rescale": "rescale", **COMMON},
        {"density": 1.0, "normalize": False},
        notes={"rescale": BY_NORM},
        per_model=("weight", "density"),
    ),
    "della_linear": Counterpart(
        "della-linear",
        {"density": "density", "epsilon": "epsilon", "rescale": "rescale", **COMMON},
        {"density": 1.0, "epsilon": 0.3},
        notes={"rescale": BY_NORM},
        per_model=("weight", "density", "epsilon"),
        twice=("epsilon",),
    ),
    "della": Counterpart(
        "della-ties",
        {"density": "density", "epsilon": "epsilon", "rescale": "rescale", **COMMON},
        {"density": 1.0, "epsilon": 0.3},
        notes={"rescale": BY_NORM},
        per_model=("weight", "density", "epsilon"),
        twice=("epsilon",),
    ),
    "breadcrumbs": Counterpart(
        "breadcrumbs",
        {"density": "density", "gamma": "gamma", **COMMON},
        {"density": 1.0},
        refused=NO_RESCALE,
        per_model=("weight", "density", "gamma"),
    ),
    "breadcrumbs_ties": Counterpart(
        "breadcrumbs-ties",
        {"density": "density", "gamma": "gamma", **COMMON},
        {"density": 1.0, "normalize": False},
        refused=NO_RESCALE,
        per_model=("weight", "density", "gamma"),
    ),
    "sce": Counterpart("sce", {"select_topk": "select"}, {"select": 1.0}, per_model=()),
    "model_stock": Counterpart(
        "model-stock",
        refused={"filter_wise": ((True,), "only the form over whole tensors is here")},
        per_model=(),
    ),
    "nearswap": Counterpart("nearswap", {"t": "t"}, per_model=()),
}
"""mergekit's name → ours. `twice`: mergekit's ε is half of the width that DELLA calls ε."""

HARMLESS = {"int8_mask": "how masks are held in memory; here they are one byte anyway"}

EVERY_PARAMETER = {
    name
    for counterpart in MERGEKIT.values()
    for name in (*counterpart.params, *counterpart.refused, *counterpart.notes, *counterpart.per_model)
}
"""Parameters that some method has: mergekit passes over those that the chosen method does not use."""
