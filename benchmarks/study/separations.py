"""How vectors are separated before a search, and how hard their shares are pulled to the sum.

    python benchmarks/study/separations.py --data FOLDER --setting five-tasks --seeds 0 1

The default search runs over the vectors as they are and over WUDI's shares at several pulls; each merge is
scored on the test. Results: benchmarks/results/study_separations.json and .md.
"""

from __future__ import annotations

import json
from typing import Any

from arms import Piece
from options import study_parser
from settings import SETTINGS

RIDGES = (None, 0.1, 0.3, 1.0, 3.0)


def row(piece: Piece, ridge: float | None) -> dict[str, Any]:
    """Coefficients and test scores of the search at one pull; None: over the vectors as they are."""
    from selfpos.positioning import separated

    separated.RIDGE = separated.RIDGE if ridge is None else ridge
    found = piece.position({"separate": ridge is not None}, piece.specialists)
    scores = piece.merged(**found.merge_options)["scores"]
    mean = sum(scores[task] for task in piece.setting.steps) / len(piece.setting.steps)
    return {
        "setting": piece.label,
        "seed": piece.seed,
        "ridge": ridge,
        "coefficients": [round(value, 3) for value in found.coefficients],
        "mean": round(mean, 2),
        "scores": {task: round(value, 2) for task, value in scores.items()},
    }


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    from selfpos.console import markdown_table

    header = ["setting", "seed", "pull to the sum", "coefficients", "mean of the tasks"]
    cells = [
        [
            known["setting"],
            str(known["seed"]),
            "not separated" if known["ridge"] is None else f"{known['ridge']:g}",
            " ".join(f"{value:.2f}" for value in known["coefficients"]),
            f"{known['mean']:.2f}",
        ]
        for known in sorted(rows, key=lambda known: (known["setting"], known["seed"], known["ridge"] or 0))
    ]
    return (
        "# Separations\n\nMade by `benchmarks/study/separations.py`.\n\n"
        + markdown_table(header, cells)
        + "\n"
    )


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--setting", choices=SETTINGS, default="five-tasks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    file = options.results / "study_separations.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    known = {(row["setting"], row["seed"], row["ridge"]) for row in rows}
    for seed in options.seeds:
        piece = Piece(options.setting, seed, options.data, options.models, options.results)
        for ridge in RIDGES:
            if (options.setting, seed, ridge) not in known:
                rows.append(row(piece, ridge))
                file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
                file.with_suffix(".md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
