"""From a method and its settings to a function that merges one chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from selfpos.merging.inner_products import inner_products
from selfpos.merging.plan import Plan
from selfpos.merging.stream import Array, Chunk, Stream

Coefficients = dict[str, list[float]]


@dataclass(frozen=True)
class Prepared:
    """`merge` maps a chunk to the merged V. `coefficients` are those of a combination per tensor, θ0's own first where the method sets it."""

    merge: Callable[[Chunk], Array]
    coefficients: Coefficients | None


def make_stream(plan: Plan, advance: Callable[[int], None] = lambda elements: None) -> Stream:
    """The plan's inputs as a stream."""
    return Stream(
        plan.base,
        plan.vectors,
        tuple(key for key in plan.keys if key not in plan.tied),
        plan.settings,
        grain=plan.method.grain,
        one_by_one=plan.method.form == "combination",
        checked=plan.method.form != "combination",  # a sum is not finite when one of its terms is not
        seed=plan.seed,
        # A whole matrix at a time, with all threads for the linear algebra library; else a thread for each task.
        threads=1 if plan.method.grain == "matrix" else plan.threads,
        device=plan.options.get("device", "cpu"),
        tied=plan.tied,
        statistics=plan.statistics,
        advance=advance,
    )


def prepare(plan: Plan, stream: Stream) -> Prepared:
    """Run the method's statistics pass, where it has one."""
    method, settings = plan.method, plan.settings
    if method.form == "combination":
        coefficients = combination_coefficients(plan, stream)
        return Prepared(lambda chunk: combine(chunk, coefficients[chunk.key]), coefficients)
    # Statistics are taken on the CPU in any case: thresholds are then the same whatever device the arithmetic runs on.
    statistics = method.survey(replace(stream, device="cpu")) if method.survey is not None else {}
    params = {key: settings.params(key) for key in stream.keys}

    def run(chunk: Chunk) -> Array:
        chunk.statistics = statistics.get(chunk.key)
        return method.function(chunk, **params[chunk.key])

    return Prepared(run, None)


def combination_coefficients(plan: Plan, stream: Stream) -> Coefficients:
    """The coefficients of every tensor."""
    method, settings = plan.method, plan.settings
    grams = (
        inner_products(replace(stream, device="cpu", checked=True), with_base=method.with_base)
        if method.gram is not None
        else {}
    )
    if method.gram == "model" and grams:
        grams = dict.fromkeys(grams, np.sum(list(grams.values()), axis=0))
    found = {}
    for key in stream.keys:
        inner = (grams[key],) if method.gram is not None else ()
        found[key] = [
            float(value) for value in method.function(settings.weights(key), *inner, **settings.params(key))
        ]
    return found


def combine(chunk: Chunk, coefficients: list[float]) -> Array:
    """Σ c_i V_i, plus (c_0 − 1) θ0 when there is one coefficient more than vectors."""
    own = coefficients[: len(coefficients) - len(chunk.vectors)]
    total = None if not own or own[0] == 1.0 else chunk.base * (own[0] - 1.0)
    for vector, coefficient in zip(chunk.vectors, coefficients[len(own) :], strict=True):
        vector *= coefficient
        if total is None:
            total = vector
        else:
            total += vector
    return total
