"""What is said of a front, on the screen and on the card, from its facts (`OUT.front.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]


def rows(facts: Facts) -> tuple[list[str], list[list[str]]]:
    """The front as a table: headings and rows, from the base to the fine-tune."""
    headings = ["point", "α", "ramp", "domain", "general", "gain kept", "loss undone"]
    several = len({point["line"] for point in facts["front"]}) > 1
    lines = []
    for point in facts["front"]:
        name = "base" if point["alpha"] == 0 else (point["line"] if several else "")
        if point == facts["tuned"]:
            name = "fine-tune"
        if point == facts["chosen"]:
            name = f"{name}, taken" if name in ("base", "fine-tune") else "taken"
        share = "–" if point["undone"] is None else f"{100 * point['undone']:.0f} %"
        lines.append(
            [
                *(name, f"{point['alpha']:.2f}", f"{point['ramp']:+.2f}" if point["ramp"] else ""),
                *(f"{100 * point['domain']:.2f}", f"{100 * point['general']:.2f}"),
                *(f"{100 * point['kept']:.0f} %", share),
            ]
        )
    return headings, lines


def index_rows(facts: Facts) -> tuple[list[str], list[list[str]]]:
    """The domain's measure with the old index, with new questions to it, and with all embedded again."""
    return ["index", "domain"], [[name, f"{100 * score:.2f}"] for name, score in facts["index"].items()]


def sentences(facts: Facts) -> list[str]:
    """What the point taken keeps and undoes, with intervals, and what speaks against it."""
    chosen = facts["chosen"]
    kept, (low, high) = facts["kept"]
    said = [
        f"taken: α = {chosen['alpha']:.2f}"
        + (f" with a ramp of {chosen['ramp']:+.2f} over depth" if chosen["ramp"] else "")
        + f", which keeps {100 * kept:.0f} % of the domain's gain ({100 * low:.0f} to {100 * high:.0f} %)"
    ]
    if facts["undone"] is None:
        said[0] += "; the fine-tune lost nothing clear on the general tasks"
    else:
        undone, (low, high) = facts["undone"]
        said[0] += f" and undoes {100 * undone:.0f} % of the general loss"
        said[0] += f" ({100 * low:.0f} to {100 * high:.0f} %)"
    if "correction" in facts:
        said.append(
            "this model is for questions to documents that the base has embedded: embed questions with it, "
            "and leave the documents as they are"
        )
    for drop in facts["drops"]:
        below = f"{-100 * drop['difference']:.1f} points below the base (p = {drop['p']:.3f})"
        said.append(f"task {drop['task']} is {below}")
    if not facts["drops"]:
        said.append("no general task is significantly below the base")
        worst = facts.get("worst")  # absent from the files of earlier versions, as what is tolerated
        if worst and worst["worst"] < 0:
            said[-1] += "; smaller losses than these records show are possible: at worst "
            said[-1] += (
                f"{-100 * worst['worst']:.1f} points, of {worst['task']} (95 % for all tasks together)"
            )
        for task, share in facts.get("tolerated", {}).items():
            said[-1] += f"; on plain texts ({task}), which show every change, {100 * share:.0f} % of what the"
            said[-1] += " fine-tune moved is tolerated"
    return said + list(facts["warnings"])
