"""The study: specialists merged by Self Positioning beside joint training and every other merge.

    python benchmarks/study --data FOLDER                      # the small form, as far as it gets
    python benchmarks/study --data FOLDER --settings five-tasks --seeds 0 1 --arms base self-positioning

Models lie in --models, one JSON file for every arm of every setting and seed in --results. What is there is
not made again, so a stopped study continues, and nights of several machines add up: keep the result files.
The table benchmarks/results/study.json is written again after each arm.
"""

from __future__ import annotations

from arms import Piece
from options import study_parser
from report import write_report
from settings import SETTINGS


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["five-tasks"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", help="all when absent")
    options = parser.parse_args()
    for label in options.settings:
        for seed in options.seeds:
            piece = Piece(label, seed, options.data, options.models, options.results / "study")
            for name in options.arms or piece.arms():
                result = piece.run(name)
                scores = result["scores"]
                mean = sum(scores[task] for task in piece.setting.steps) / len(piece.setting.steps)
                print(f"{label}, seed {seed}, {name}: {mean:.2f}, {result['seconds']:.0f} s", flush=True)
                write_report(options.results)


if __name__ == "__main__":
    main()
