"""From a method and its settings to a function that merges one chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from selfpos.merging.maths.geometry import inner_products
from selfpos.merging.plan import Plan
from selfpos.merging.stream import Array, Chunk, Stream

Coefficients = dict[str, list[float]]


@dataclass(frozen=True)
class Prepared:
    """`merge` maps a chunk to the merged V. `coefficients` are those of a combination, by tensor."""

    merge: Callable[[Chunk], Array]
    coefficients: Coefficients | None


def make_stream(plan: Plan, advance: Callable[[int], None] = lambda elements: None) -> Stream:
    """The plan's inputs as a stream."""
    combines = plan.method.form == "combination"
    return Stream(
        plan.base,
        plan.vectors,
        tuple(key for key in plan.keys if key not in plan.tied),
        plan.settings,
        chunking=plan.method.chunking,
        on_access=combines,
        checked=not combines,  # a sum is not finite when one of its terms is not
        seed=plan.options.seed,
        # A whole matrix at a time, with all threads for the linear algebra library; else a thread for each
        # task.
        threads=1 if plan.method.chunking == "matrix" else plan.threads,
        device=plan.options.device,
        tied=plan.tied,
        statistics=plan.statistics,
        advance=advance,
    )


def prepare(plan: Plan, stream: Stream) -> Prepared:
    """Run the method's statistics pass, where it has one."""
    method = plan.method
    # Statistics are always taken on the CPU: thresholds are then the same whatever device the arithmetic runs
    # on.
    on_cpu = replace(stream, device="cpu")
    if method.form == "combination":
        coefficients = _combination_coefficients(plan, on_cpu)
        return Prepared(lambda chunk: combine(chunk, coefficients[chunk.key]), coefficients)
    statistics = method.statistics_pass(on_cpu) if method.statistics_pass is not None else {}
    params = {key: plan.settings.params(key) for key in stream.keys}

    def run(chunk: Chunk) -> Array:
        chunk.statistics = statistics.get(chunk.key)
        return method.function(chunk, **params[chunk.key])

    return Prepared(run, None)


def _combination_coefficients(plan: Plan, stream: Stream) -> Coefficients:
    """The coefficients of every tensor, that of θ0 first where the method sets it."""
    method, settings = plan.method, plan.settings
    grams = {}
    if method.gram is not None:
        grams = inner_products(replace(stream, checked=True), with_base=method.with_base)
    if method.gram == "model" and grams:
        grams = dict.fromkeys(grams, np.sum(list(grams.values()), axis=0))
    coefficients = {}
    for key in stream.keys:
        gram = (grams[key],) if method.gram is not None else ()
        values = method.function(settings.weights(key), *gram, **settings.params(key))
        coefficients[key] = [float(value) for value in values]
    return coefficients


def combine(chunk: Chunk, coefficients: list[float]) -> Array:
    """Σ c_i V_i, plus (c_0 − 1) θ0 when there is one coefficient more than vectors."""
    total = None
    if len(coefficients) > len(chunk.vectors):
        base_coefficient, *coefficients = coefficients
        if base_coefficient != 1.0:
            total = chunk.base * (base_coefficient - 1.0)
    for vector, coefficient in zip(chunk.vectors, coefficients, strict=True):
        vector *= coefficient
        if total is None:
            total = vector
        else:
            total += vector
    return total
