"""What the space of the specialists' vectors can give: the best point by the test itself of those tried.

    python benchmarks/study/best_point.py --data FOLDER --setting five-tasks

A pattern search from the point that Self Positioning found, on embeddings that are linear in the
coefficients (`objectives.py` takes them); then the best point is merged and scored. No method may look at the
test: this says that choosing better could win so much, or more. Results:
benchmarks/results/study_best_point.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from arms import Piece
from objectives import Linear
from options import study_parser
from settings import SETTINGS

from tests import MEASURES

STEPS = (0.5, 0.25)


def best_point(label: str, seed: int, data: Path, models: Path, results: Path) -> dict[str, Any]:
    """Test scores at the point that was found, and at the best of the points tried from there."""
    from selfpos.console import progress

    linear = Linear(models / "spans" / f"{label}-seed{seed}.pt", _missing, [])
    piece = results / "study" / label / f"seed{seed}" / "self-positioning.json"
    start = json.loads(piece.read_text(encoding="utf-8"))["position"]["coefficients"]
    tasks = list(SETTINGS[label].steps)
    tried: dict[tuple[float, ...], dict[str, float]] = {}

    def mean(point: tuple[float, ...]) -> float:
        if point not in tried:
            units = linear.at(point).numpy()

            def embed(texts: Any) -> np.ndarray:
                return units[linear.rows(texts).numpy()]

            tried[point] = {task: round(100 * MEASURES[task](embed, data, seed), 2) for task in tasks}
            bar.advance(1, best=max(np.mean([*scores.values()]) for scores in tried.values()))
        return float(np.mean([*tried[point].values()]))

    found = best = tuple(round(value, 2) for value in start)
    with progress("points", None, unit="points") as bar:
        for step in STEPS:
            improved = True
            while improved:
                improved = False
                for index in range(len(best)):
                    for change in (step, -step):
                        point = (*best[:index], round(best[index] + change, 2), *best[index + 1 :])
                        if mean(point) > mean(best):
                            best, improved = point, True
    rows = {"found": found, "best": best}
    facts = {
        name: {"coefficients": point, "mean": round(mean(point), 2), **tried[point]}
        for name, point in rows.items()
    }
    return {"setting": label, "seed": seed, "tried": len(tried), **facts}


def _missing() -> Any:
    raise SystemExit("the embeddings are not there; run objectives.py for this setting and seed first")


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--setting", choices=SETTINGS, default="five-tasks")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    file = options.results / "study_best_point.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    row = next((r for r in rows if (r["setting"], r["seed"]) == (options.setting, options.seed)), None)
    if row is None:
        row = best_point(options.setting, options.seed, options.data, options.models, options.results)
        rows.append(row)
    if "merged" not in row["best"]:
        from selfpos.positioning.separated import merge_method

        piece = Piece(options.setting, options.seed, options.data, options.models, options.results)
        scores = piece.merged(weights=list(row["best"]["coefficients"]), **merge_method(True))
        tasks = [scores["scores"][task] for task in piece.setting.steps]
        row["best"]["merged"] = round(sum(tasks) / len(tasks), 2)
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
