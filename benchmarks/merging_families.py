"""Which encoder families merge and reload: tiny random models of each, merged by methods of every kind, as a table.

    python benchmarks/merging_families.py [FAMILY…]

`error` is the largest distance of a merged weight from the float64 mean of the specialists (method average); `differs` how far the embeddings
of the reloaded models lie from the base's, by method: each was merged from its files, written, and loaded by sentence-transformers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

METHODS = ("average", "ties", "tsv-m", "fisher", "regmean")


def row(folder: Path, family: str) -> list[str]:
    """One line of the table; a method that fails says why."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from selfpos.errors import SelfposError
    from selfpos.operations import merge
    from selfpos.storage import open_model
    from tests.conftest import make_specialist
    from tests.merging import reference
    from tests.merging.test_families import FAMILIES, make_family
    from tests.positioning.stand_ins import graded, pairs

    base = make_family(folder / "base", *FAMILIES[family])
    sources = [make_specialist(base, folder / name, seed=seed) for seed, name in enumerate(["pairs", "graded"])]
    probe: Any = {"pairs": pairs(16), "graded": graded(16)}

    def embed(model: Path) -> Any:
        return SentenceTransformer(str(model), device="cpu").encode(["a b c", "d e"], prompt_name="query")

    start, differs = embed(base), []
    for method in METHODS:
        try:
            out = merge(str(base), sources, method, folder / method, probe=probe if method in ("fisher", "regmean") else None)
            differs.append(f"{np.abs(embed(out) - start).max():.3f}")
        except SelfposError as error:
            differs.append(str(error))
    states = [reference.load(source) for source in sources]
    merged = reference.load(folder / "average")
    error = max(float(np.abs(value - np.mean([state[key] for state in states], axis=0)).max(initial=0)) for key, value in merged.items())
    return [family, str(len(open_model(base).tensors)), f"{error:.0e}", *differs]


def main() -> None:
    from selfpos.quiet import quiet_process

    quiet_process()
    from tests.merging.test_families import FAMILIES

    print("| family | tensors | error |" + "".join(f" differs: {method} |" for method in METHODS))
    print("|---|--:|--:|" + "--:|" * len(METHODS))
    for family in sys.argv[1:] or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            print(f"| {' | '.join(row(Path(folder), family))} |", flush=True)


if __name__ == "__main__":
    main()
