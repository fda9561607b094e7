"""The results of benchmarks/positioning.py as JSON and as Markdown tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from positioning_inputs import ADAPTERS, RANK, SHAPES


def write_report(folder: Path, results: dict[str, Any]) -> None:
    """Write positioning.json and positioning.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if "steps" in results:
        results["ratios"] = [*ratios(results["steps"]), *counted(results["facts"]["shape"])]
        if "wide" in results:
            results["ratios"] += [
                *wide_ratios(results["wide"]),
                *counted("tiny" if results["facts"]["quick"] else "base"),
            ]
        results["on_paper"] = dict(on_paper())
    if "searches" in results:
        reached(results["searches"])
    (folder / "positioning.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "positioning.md").write_text(markdown(results), encoding="utf-8")


def ratios(steps: dict[str, Any]) -> list[dict[str, Any]]:
    """The numbers that the targets are about: what, found, target (at most), or None without a target."""

    def of(first: str, second: str, what: str) -> float:
        return float(steps[first][what] / steps[second][what])

    memory = [steps[f"step {n}"]["megabytes"] for n in (2, 4, 8, 16)]
    ours, theirs = steps["step 3"]["gradient"], steps["graph 3"]["gradient"]
    largest = max(map(abs, theirs))
    rows = [
        ("step, N = 4 / forward and backward: time", of("step 4", "forward and backward", "seconds"), 1.15),
        ("step, N = 4 / AdamW step: memory", of("step 4", "AdamW step", "megabytes"), 0.6),
        (
            "the same with activations of 16 texts at a time (chunk): memory",
            of("step 4, chunk 16", "AdamW step", "megabytes"),
            None,
        ),
        (
            "that chunked step / forward and backward: time",
            of("step 4, chunk 16", "forward and backward", "seconds"),
            None,
        ),
        ("memory for N = 2, 4, 8, 16: largest / smallest", max(memory) / min(memory), 1.1),
        (
            "gradient, N = 3: largest difference from the graph's, relative",
            max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / largest,
            1e-3,
        ),
        *(
            (
                f"step / graph through the merge, N = {n}: memory",
                of(f"step {n}", f"graph {n}", "megabytes"),
                0.5 if n == 3 else None,
            )
            for n in (2, 3, 8)
        ),
        ("step / graph through the merge, N = 3: time", of("step 3", "graph 3", "seconds"), None),
        ("low-rank step / dense step: time", of("adapters, low rank", "adapters, dense", "seconds"), 0.75),
        ("low-rank step / dense step: memory", of("adapters, low rank", "adapters, dense", "megabytes"), 0.6),
    ]
    return [{"what": what, "found": found, "target": target} for what, found, target in rows]


def wide_ratios(steps: dict[str, Any]) -> list[dict[str, Any]]:
    """The low-rank step on the wide model, as a share of the dense one."""
    low, dense = steps["adapters, low rank"], steps["adapters, dense"]
    return [
        {
            "what": f"the same two, 12 layers of width 768: {name}",
            "found": low[what] / dense[what],
            "target": target,
        }
        for name, what, target in (("time", "seconds", 0.75), ("memory", "megabytes", 0.6))
    ]


def counted(shape: str) -> list[dict[str, Any]]:
    """Multiplications of a low-rank step over a dense one's, in the products of a layer of BERT's: what time
    can come to at best.

    A dense step makes each product three times (forward, gradient of the input, gradient of the weight). A
    low-rank one makes it twice, with the factors beside it, and the widening product a third time, for that
    keeps its output out of memory.
    """
    width, inner = SHAPES[shape]["hidden_size"], SHAPES[shape]["intermediate_size"]
    linears = [(width, width)] * 4 + [(width, inner), (inner, width)]
    layer = sum(a * b for a, b in linears)
    beside = sum(ADAPTERS * RANK * (a + b) for a, b in linears)
    again = width * inner + ADAPTERS * RANK * (width + inner)
    kept, made_again = 2 * (layer + beside) / (3 * layer), (2 * (layer + beside) + again) / (3 * layer)
    return [
        {"what": "the same two: multiplications counted", "found": made_again, "target": None},
        {"what": "the same two: multiplications, were wide outputs kept", "found": kept, "target": None},
    ]


def on_paper(
    *, width: int = 4096, inner: int = 14336, keys: int = 1024, layers: int = 32, vocabulary: int = 32000
) -> list[tuple[str, float]]:
    """What a low-rank search over a base of 7·10⁹ weights (the shape of Mistral-7B) with eight adapters of
    rank 16 needs, in GB, part by part.

    Counted, not measured: weights and factors in float32; for each token and layer, in bf16, what the
    backward pass keeps of a gated layer whose weights have no gradient and whose widening products are made
    again: two norms' inputs (float32) and scales, queries, keys and values before and after their rotation,
    the attention's result, the activation function's result and the factors' products.
    """
    adapters, rank, tokens = 8, 16, 8 * 512
    linears = [
        (width, width),
        (width, keys),
        (width, keys),
        (width, width),
        (width, inner),
        (width, inner),
        (inner, width),
    ]
    weights = vocabulary * width + layers * (sum(a * b for a, b in linears) + 2 * width)
    factors = adapters * layers * rank * sum(a + b for a, b in linears)
    kept = (
        2 * 2 * 2 * width + 2 * (width + 2 * keys) + width + inner + len(linears) * adapters * rank
    )  # numbers of two bytes
    widest = 3 * tokens * inner * 2  # made again, of one layer at a time
    parts = [
        ("base, float32", 4 * weights),
        ("eight adapters of rank 16 on all linear layers, float32", 4 * factors),
        ("activations of 8 texts of 512 tokens, bf16", 2 * kept * tokens * layers),
        ("made again, one layer", widest),
        ("weights cast to bf16, which the backward pass keeps", 2 * weights),
    ]
    rows = [(name, size / 1e9) for name, size in parts]
    return [*rows, ("together (a large GPU has 80)", sum(size for _, size in rows))]


def reached(searches: dict[str, Any]) -> None:
    """Add to each search when it came to the paper's validation loss, in seconds and as a share of the
    paper's whole time; None: never."""
    paper = next(search for name, search in searches.items() if name.startswith("paper"))
    for search in searches.values():
        search["reached"] = next(
            (seconds for seconds, value in search["way"] if value <= paper["value"]), None
        )
        search["share"] = None if search["reached"] is None else search["reached"] / paper["seconds"]


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    facts = results["facts"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines = [
        "# Positioning: time and memory",
        "",
        f"{facts['date']}, {facts['processor']}, {facts['cores']} core(s), "
        f"Python {facts['python']}; {versions}.",
        "How it was measured: benchmarks/positioning.py, at its head.",
    ]
    if facts["quick"]:
        lines += ["", "**A quick try on tiny random models: the numbers mean nothing.**"]
    if "steps" in results:
        lines += [
            "",
            f"A model of shape `{facts['shape']}`, 32 pairs of texts of {facts['words']} words.",
            "",
            "| step | seconds | MB |",
            "|---|---:|---:|",
        ]
        lines += [
            f"| {name} | {step['seconds']:.3f} | {step['megabytes']:.0f} |"
            for name, step in results["steps"].items()
        ]
        lines += ["", "| ratio | found | target |", "|---|---:|---:|"]
        for row in results["ratios"]:
            target = "–" if row["target"] is None else f"≤ {row['target']:g}"
            lines.append(f"| {row['what']} | {row['found']:.3g} | {target} |")
        lines += [
            "",
            "On paper, a low-rank search over a base of 7·10⁹ weights, batches in chunks of eight texts:",
            "",
            "| part | GB |",
            "|---|---:|",
        ]
        lines += [f"| {name} | {size:.1f} |" for name, size in on_paper()]
    if "searches" in results:
        lines += [
            "",
            f"Searches, texts of at most {facts['max_length']} tokens: the best validation loss on the way "
            "(base = 1), time of the whole search,",
            "and when it had reached the loss that the paper's search ends with. "
            "All have losses over the base's, no price on coefficients, and",
            "choose points by the validation loss, "
            "so none is the default or the paper's preset to the letter.",
            "",
            "| search | validation loss | seconds | texts embedded | reached after | of the paper's time "
            "| coefficients |",
            "|---|---:|---:|---:|---:|---:|---|",
        ]
        for name, search in results["searches"].items():
            after = "never" if search["reached"] is None else f"{search['reached']:.1f} s"
            share = "–" if search["share"] is None else f"{100 * search['share']:.1f} %"
            coefficients = ", ".join(f"{c:.2f}" for c in search["coefficients"])
            lines.append(
                f"| {name} | {search['value']:.4f} | {search['seconds']:.1f} | {search['texts']:,} "
                f"| {after} | {share} | {coefficients} |"
            )
    return "\n".join(lines) + "\n"
