"""How often "better than X" holds on the test: searches over two specialists of the five tasks each.

    python benchmarks/study/verdict_rate.py --data FOLDER --seeds 0 1 2 3 4

Ten pairs of tasks a seed. The command says of the base, of each specialist and of one tuned scale whether
the point is better on the probe; the mean of both tasks' test scores says whether that is so. A JSON file for
each pair is kept in results/study_verdicts, so a stopped run continues. The summary is
benchmarks/results/study_verdicts.md.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from arms import Piece
from models import base_model
from options import study_parser
from settings import FIVE, SETTINGS, Setting

from tests import score

SETTING = "five-tasks"


@dataclass
class Pair(Piece):
    """Two tasks of the setting, with their specialists alone."""

    tasks: tuple[str, ...] = ()

    @property
    def setting(self) -> Setting:
        whole = SETTINGS[self.label]
        return replace(whole, steps={task: whole.steps[task] for task in self.tasks})

    @property
    def work(self) -> Path:
        return self.folder / f"pair-{'-'.join(self.tasks)}-seed{self.seed}"

    def _score(self, model: Path) -> dict[str, float]:
        return scored(model, self.tasks, self.data, self.seed)


def scored(model: Path, tasks: Sequence[str], data: Path, seed: int) -> dict[str, float]:
    """Test scores of a model in percent, without the unseen tasks."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu", local_files_only=True)
    return score(loaded, tasks, data, seed, unseen=False)


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The content of a JSON file, made where it is not there yet."""
    from selfpos.storage.atomic import write_text

    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(make(), indent=1) + "\n")
    return json.loads(file.read_text(encoding="utf-8"))


def claims(pair: Pair, folder: Path) -> dict[str, Any]:
    """What the search says of each rival, and its lead over the rival on the test, in points."""
    from selfpos.positioning.separated import merge_method

    position = pair.position({}, pair.specialists)
    ours = pair.merged(**position.merge_options)["scores"]
    models = dict(zip(["base", *pair.tasks], [base_model(), *pair.specialists], strict=True))
    rows = []
    for index, rival in enumerate(position.rivals):  # the base, the specialists, one tuned scale
        if index < len(models):
            name = list(models)[index]
            theirs = kept(folder / f"{name}.json", partial(scored, models[name], FIVE, pair.data, pair.seed))
        else:
            name = "one scale"
            weights = [position.scale] * len(pair.tasks)
            theirs = pair.merged(weights=weights, **merge_method(position.separated))["scores"]
        lead = float(np.mean([ours[task] - theirs[task] for task in pair.tasks]))
        kind = "specialist" if name in pair.tasks else name
        rows.append({"rival": kind, "better": rival.low > 0, "probe": 100 * rival.gain, "test": lead})
    facts = {"coefficients": position.coefficients, "verdict": position.verdict, "rivals": rows}
    return {"tasks": pair.tasks, "seed": pair.seed, **facts}


def write_summary(results: Path) -> None:
    """Write the table of claims by rival."""
    from selfpos.console import markdown_table
    from selfpos.storage.atomic import write_text

    files = sorted((results / "study_verdicts").glob("seed*/*+*.json"))
    searches = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    every = [row for search in searches for row in search["rivals"]]
    rows = []
    for rival in ("base", "specialist", "one scale", "all"):
        compared = [row for row in every if rival in (row["rival"], "all")]
        said = [row for row in compared if row["better"]]
        unsaid = [row for row in compared if not row["better"]]
        right = sum(row["test"] > 0 for row in said)
        missed = sum(row["test"] > 0 for row in unsaid)
        rows.append([rival, str(len(compared)), str(len(said)), str(right), f"{missed} of {len(unsaid)}"])
    heads = ["rival", "compared", 'said "better"', "better on the test", "not said, yet better on the test"]
    seeds = sorted({search["seed"] for search in searches})
    text = [
        '# How often "better than X" holds',
        "",
        f"{len(searches)} searches over two specialists each, seeds {', '.join(map(str, seeds))}. Made by",
        "`python benchmarks/study/verdict_rate.py`; see `docs/study.md`.",
        "",
        markdown_table(heads, rows),
        "",
    ]
    write_text(results / "study_verdicts.md", "\n".join(text))


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    for seed in options.seeds:
        folder = options.results / "study_verdicts" / f"seed{seed}"
        for tasks in itertools.combinations(FIVE, 2):
            pair = Pair(SETTING, seed, options.data, options.models, options.results, tasks)
            row = kept(folder / f"{'+'.join(tasks)}.json", partial(claims, pair, folder))
            print(seed, *tasks, row["verdict"], f"{pair.seconds:.0f} s", flush=True)
            write_summary(options.results)


if __name__ == "__main__":
    main()
