"""What the default search costs on the study's probe, and a candidate of cma-es beside encoding its texts.

    python benchmarks/study/cost.py --data FOLDER --note TEXT  # five minutes of one core, and the trainings

1. The search over the five specialists, and over the vectors as they are (`separate: false`): CPU seconds,
   texts embedded at all points together, coefficients.
2. A candidate (weights from the coefficients, embeddings, losses) over encoding the same distinct texts with
   `selfpos.evaluation`, tokens at hand, no weights to set and no loss: the median CPU seconds of each.

Results: benchmarks/results/study_cost.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from arms import SEARCHES, Piece
from data import probe_of
from models import base_model
from options import study_parser
from settings import MAX_LENGTH

REPEATS = 5


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of `work`, and what it returns."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def search_cost(piece: Piece, name: str) -> dict[str, Any]:
    """Cost and point of one of SEARCHES."""
    seconds, found = cpu_seconds(lambda: piece.position(SEARCHES[name], piece.specialists))
    coefficients = [round(value, 4) for value in found.coefficients]
    return {"cpu_seconds": round(seconds, 1), "texts": found.texts, "coefficients": coefficients}


def candidate_cost(specialists: list[Path], probe: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds of a candidate and of encoding its texts, in turn."""
    from selfpos.evaluation.embed import EncodingOptions, constant_features, embed, tokenise
    from selfpos.evaluation.load import load_model
    from selfpos.evaluation.store import MemoryStore
    from selfpos.positioning.draws import Draws, split_probe
    from selfpos.positioning.objective import TextTable, texts_of
    from selfpos.positioning.position import open_live
    from selfpos.positioning.problem import Problem
    from selfpos.positioning.searches import CANDIDATE_RECORDS
    from selfpos.recipe import PositioningSettings

    settings = PositioningSettings(preset="cma-es", max_length=MAX_LENGTH)
    tasks, _ = split_probe(probe, settings.validation, 0, settings.temperature)
    problem = Problem(open_live(base_model(), specialists, settings, "cpu"), tasks, settings)
    batches = Draws(tasks, CANDIDATE_RECORDS, 0, single=True).fixed(CANDIDATE_RECORDS)
    model, options = load_model(base_model()), EncodingOptions(None)
    model.max_seq_length = MAX_LENGTH
    texts = TextTable(texts_of(batches)).texts
    tokens = tokenise(model, texts, options, MemoryStore(0))
    extra = constant_features(model, options) or {}
    works: dict[str, Callable[[], Any]] = {
        "candidate": lambda: problem.losses(problem.start, batches),
        "encoding": lambda: list(embed(model, tokens, options, extra, 32)),
    }
    turns = [{name: cpu_seconds(work)[0] for name, work in works.items()} for _ in range(1 + REPEATS)]
    medians = {name: statistics.median(turn[name] for turn in turns[1:]) for name in works}
    seconds = {name: round(value, 3) for name, value in medians.items()}
    return {"texts": len(texts), **seconds, "ratio": round(medians["candidate"] / medians["encoding"], 3)}


def main() -> None:
    import torch

    from selfpos.storage.atomic import write_text

    parser = study_parser(__doc__)
    parser.add_argument("--note", required=True, help="on what it was run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    piece = Piece("five-tasks", 0, options.data, options.models, options.results)
    probe = probe_of(piece.setting, piece.seed, options.data)
    results = {
        "date": date.today().isoformat(),
        "note": options.note,
        "records": sum(len(task.records) for task in probe.values()),
        "candidate": candidate_cost(piece.specialists, probe),
        **{name: search_cost(piece, name) for name in ("self-positioning", "self-positioning-plain")},
    }
    text = json.dumps(results, indent=1) + "\n"
    write_text(options.results / "study_cost.json", text)
    print(text)


if __name__ == "__main__":
    main()
