"""What `selfpos retain --index base` keeps where no document is embedded again, on retrieval domains.

    python benchmarks/retain_index.py --data FOLDER --seeds 3

The fine-tunes and the records are those of `retain.py`. The point and the correction are chosen on validation
records; shares are of the gain that the fine-tune has with all documents embedded again, on test records.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retain import DOMAINS, RESULTS, Test, domain_parts, fine_tuned, general_tasks, judged_tasks, opened

if TYPE_CHECKING:
    from torch import Tensor

    from selfpos.retention.path import Place


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asking = [name for name, (kind, *_) in DOMAINS.items() if kind == "retrieval"]
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--domains", nargs="+", default=asking, choices=asking)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--validation", type=int, default=300, help="records of a task to choose by")
    parser.add_argument("--records", type=int, default=500, help="records of a task to judge by")
    parser.add_argument("--models", type=Path, default=Path("checkpoints/retain"))
    parser.add_argument("--out", type=Path, default=RESULTS / "retain_index.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.is_file() else []
    for domain in options.domains:
        for seed in range(options.seeds):
            if not any((row["domain"], row["seed"]) == (domain, seed) for row in rows):
                rows.append(measured(domain, seed, options))
                options.out.write_text(json.dumps(rows, indent=1) + "\n")
                options.out.with_suffix(".md").write_text(table(rows))


def measured(domain: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Shares of the gain: of the fine-tune's questions asked of the base's documents; of the chosen point's
    with the correction, without it, and with all documents embedded again.
    """
    from selfpos.errors import SelfposError
    from selfpos.recipe import RetainSettings
    from selfpos.retention.path import Place
    from selfpos.retention.search import search

    folder = options.models / f"{domain}-seed{seed}" / "fine-tune"
    if not folder.exists():
        fine_tuned(domain, seed, options.data, folder)
    live = opened(folder)
    _, validation, _ = domain_parts(domain, options.data, options.validation, options.records)
    general = general_tasks(domain, options.data, options.validation, test=False)
    tasks = judged_tasks(domain, seed, validation, general)
    test = Test(domain, seed, options, live)
    base, tuned = test.at(0.0, exact=False), test.at(1.0, exact=False)
    gain = tuned.scores[domain] - base.scores[domain]
    row: dict[str, Any] = {"domain": domain, "seed": seed, "gain": gain}

    def share(place: Place, correction: Callable[[Tensor], Tensor]) -> float:
        return (_asked(test, domain, place, correction) - base.scores[domain]) / gain

    row["fine-tune"] = share(Place("fine-tune", 1.0), _as_they_are)
    try:
        chosen = search(live, tasks, RetainSettings(seed=seed, index="base"))
    except SelfposError as error:  # no point is better than the base's questions
        return row | {"refused": str(error)}
    place = Place("fine-tune", chosen.chosen.place.alpha, chosen.chosen.place.ramp)
    again = test.at(place.alpha, place.ramp)
    return row | {
        "alpha": place.alpha,
        "ramp": place.ramp,
        "kept": share(place, chosen.correction),
        "without the correction": share(place, _as_they_are),
        "embedded again": (again.scores[domain] - base.scores[domain]) / gain,
    }


def _as_they_are(embeddings: Tensor) -> Tensor:
    return embeddings


def _asked(test: Test, domain: str, place: Place, correction: Callable[[Tensor], Tensor]) -> float:
    """The domain's measure where questions at `place`, corrected, are asked of the base's documents."""
    from selfpos.retention.path import Place

    task, rows = test.judge.tasks[domain], test.judge.rows[domain]
    values = correction(test.embedder.exactly(place)[rows])
    values[task.asking :] = test.embedder.exactly(Place("fine-tune", 0.0))[rows[task.asking :]]
    return task.measure.score_of(task.measure.items(values), None)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people, and the mean over domains and seeds, in which more than all counts as all."""
    from selfpos.console import markdown_table

    shares = ("kept", "without the correction", "fine-tune", "embedded again")

    def cells(row: dict[str, Any]) -> list[str]:
        return [f"{100 * row[name]:.0f} %" if name in row else row.get("refused", "") for name in shares]

    lines = []
    for row in rows:
        gain, alpha = f"{100 * row['gain']:.1f}", f"{row.get('alpha', 0):.2f}"
        lines.append([row["domain"], str(row["seed"]), gain, alpha, *cells(row)])
    means = {name: statistics.mean(min(1.0, row.get(name, 0.0)) for row in rows) for name in shares}
    lines.append(["mean", "", "", "", *(f"{100 * means[name]:.0f} %" for name in shares)])
    columns = ["domain", "seed", "gain", "α", "kept", "without the correction"]
    columns += ["the fine-tune's questions", "all documents embedded again"]
    text = [
        "# The base's index kept", "",
        "Shares of the fine-tune's gain with all documents embedded again. All but the last column ask the "
        "base's documents.", "",
        markdown_table(columns, lines), "",
    ]  # fmt: skip
    return "\n".join(text)


if __name__ == "__main__":
    main()
