"""Two rounds: specialists of half as many steps, merged, trained on from there, and merged again.

    python benchmarks/study/rounds.py --data FOLDER --setting five-tasks --note TEXT

Each merge is searched by Self Positioning. Two rounds of 30 steps draw as many records as the specialists of
the study in one round of 60. Results: benchmarks/results/study_rounds.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data import probe_of, training_records
from models import base_model, fit
from options import study_parser
from settings import MAX_LENGTH, SETTINGS

from tests import score


def trained(
    base: Path, label: str, seed: int, steps: int, number: int, data: Path, folder: Path
) -> list[Path]:
    """The specialists of a round, each of so many steps from `base`, with draws of its own."""
    setting, folders = SETTINGS[label], []
    for task in setting.steps:
        out = folder / f"round{number}-{task}"
        if not out.exists():
            records = {task: training_records(task, setting, seed, data)}
            fit(base, records, out, steps, setting, seed=seed + 1000 * number, name=task)
        folders.append(out)
    return folders


def merged(base: Path, folders: list[Path], label: str, seed: int, data: Path, out: Path) -> dict[str, Any]:
    """Search a merge of the specialists and keep it; returns its coefficients and test scores in percent."""
    from sentence_transformers import SentenceTransformer

    from selfpos.merging import merge
    from selfpos.positioning.position import position
    from selfpos.recipe import PositioningSettings

    setting = SETTINGS[label]
    probe = probe_of(setting, seed, data)
    found = position(base, folders, probe, PositioningSettings(max_length=MAX_LENGTH), seed=seed)
    if not out.exists():
        merge(base, folders, out=out, seed=seed, show=False, **found.merge_options)
    model = SentenceTransformer(str(out), device="cpu", local_files_only=True)
    scores = score(model, list(setting.steps), data, seed)
    return {
        "coefficients": [round(one, 3) for one in found.coefficients],
        "scores": {task: round(value, 2) for task, value in scores.items()},
    }


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--setting", choices=SETTINGS, default="five-tasks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30, help="of each specialist in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--note", required=True, help="on what it was run")
    options = parser.parse_args()
    label, seed, steps = options.setting, options.seed, options.steps
    folder = options.models / "rounds" / f"{label}-{steps}-seed{seed}"
    base, rows = base_model(), []
    for number in range(options.rounds):
        folders = trained(base, label, seed, steps, number, options.data, folder)
        out = folder / f"merged{number}"
        rows.append(merged(base, folders, label, seed, options.data, out))
        base = out
    facts = {"note": options.note, "setting": label, "seed": seed, "steps": steps, "rounds": rows}
    (options.results / "study_rounds.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
