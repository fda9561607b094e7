"""Which encoder families merge and reload: tiny random models of each, merged by methods of every kind, as a table.

    python benchmarks/merging_families.py [FAMILY…]

The table goes to the screen, and that of all families to benchmarks/results/merging_families.md.

`error` is the largest distance of a merged weight from the float64 mean of the specialists (method average); `differs` how far the embeddings
of the reloaded models lie from the base's, by method: each was merged from its files, written, and loaded by sentence-transformers.
"""

from __future__ import annotations

import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

METHODS = ("average", "ties", "tsv-m", "fisher", "regmean")
RESULT = Path(__file__).parent / "results" / "merging_families.md"


def row(folder: Path, family: str) -> list[str]:
    """One line of the table; a method that fails says why."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from selfpos.errors import SelfposError
    from selfpos.operations import merge
    from selfpos.storage import open_model
    from tests.conftest import make_specialist
    from tests.helpers import reference
    from tests.helpers.families import FAMILIES, make_family
    from tests.helpers.stand_ins import graded, pairs

    base = make_family(folder / "base", *FAMILIES[family])
    sources = [
        make_specialist(base, folder / name, seed=seed) for seed, name in enumerate(["pairs", "graded"])
    ]
    probe: Any = {"pairs": pairs(16), "graded": graded(16)}

    def embed(model: Path) -> Any:
        return SentenceTransformer(str(model), device="cpu").encode(["a b c", "d e"], prompt_name="query")

    start, differs = embed(base), []
    for method in METHODS:
        try:
            out = merge(
                str(base),
                sources,
                method,
                folder / method,
                probe=probe if method in ("fisher", "regmean") else None,
            )
            differs.append(f"{np.abs(embed(out) - start).max():.3f}")
        except SelfposError as error:
            differs.append(str(error))
    states = [reference.load(source) for source in sources]
    merged = reference.load(folder / "average")
    error = max(
        float(np.abs(value - np.mean([state[key] for state in states], axis=0)).max(initial=0))
        for key, value in merged.items()
    )
    return [family, str(len(open_model(base).tensors)), f"{error:.0e}", *differs]


def main() -> None:
    from selfpos.console import quiet_process

    quiet_process()
    from tests.helpers.families import FAMILIES

    lines = [
        "| family | tensors | error |" + "".join(f" differs: {method} |" for method in METHODS),
        "|---|--:|--:|" + "--:|" * len(METHODS),
    ]
    print("\n".join(lines))
    for family in sys.argv[1:] or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(f"| {' | '.join(row(Path(folder), family))} |")
        print(lines[-1], flush=True)
    if not sys.argv[1:]:
        versions = ", ".join(
            f"{name} {version(name)}" for name in ("torch", "transformers", "sentence-transformers")
        )
        head = [
            "# Families that merge and reload",
            "",
            f"{time.strftime('%Y-%m-%d')}; {versions}. Tiny random models of each family, two specialists, merged from their files and loaded again.",
            "`error`: the largest distance of a weight merged by average from the float64 mean; `differs`: of the embeddings from the base's.",
            "",
        ]
        RESULT.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
