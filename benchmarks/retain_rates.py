"""At which rate does a fine-tune of `retain.py` forget? By records that choose, never by those that judge.

    python benchmarks/retain_rates.py --data FOLDER --try banking77:1e-4 banking77:2e-4

Trains each domain at each rate, with seed 0, and measures all tasks on validation records before and after,
as `retain.py` does. Rows of other domains and rates stay. Results: results/retain_rates.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from retain import RATE, RATES, domain_parts, fine_tuned, general_tasks, judged_tasks, opened

RESULTS = Path(__file__).parent / "results"


def changes(domain: str, rate: float, data: Path, models: Path, records: int) -> dict[str, float]:
    """Points that each task changes by, on so many validation records a task."""
    from selfpos.positioning.objective import TextTable
    from selfpos.retention.judging import Judge

    folder = models / f"{domain}-{rate:.0e}"
    if not folder.exists():
        fine_tuned(domain, 0, data, folder, rate=rate / RATES.get(domain, RATE))
    live = opened(folder)
    _, validation, _ = domain_parts(domain, data, records, records)
    tasks = judged_tasks(domain, 0, validation, general_tasks(domain, data, records, test=False))
    table = TextTable([text for task in tasks for text in task.texts])
    judge = Judge(tasks, table, 0)
    before, after = (
        judge.scores(judge.items(live.embed_by(model, table.texts).float())) for model in (None, 0)
    )
    return {task: round(100 * (after[task] - before[task]), 2) for task in before}


def main() -> None:
    from selfpos.console import markdown_table

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--models", type=Path, default=Path("checkpoints/retain_rates"))
    parser.add_argument("--validation", type=int, default=250, help="records of a task")
    parser.add_argument("--try", nargs="+", required=True, metavar="DOMAIN:RATE", dest="tries")
    options = parser.parse_args()
    results = RESULTS / "retain_rates.json"
    rows = json.loads(results.read_text()) if results.exists() else {}
    for name in options.tries:
        domain, _, rate = name.partition(":")
        rows[name] = changes(domain, float(rate), options.data, options.models, options.validation)
        results.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")
    lines = []
    for name, row in sorted(rows.items()):
        domain, _, rate = name.partition(":")
        general = {task: change for task, change in row.items() if task != domain}
        tasks = ", ".join(f"{task} {change:+.1f}" for task, change in general.items())
        lines.append(
            [domain, rate, f"{row[domain]:+.1f}", f"{statistics.mean(general.values()):+.1f}", tasks]
        )
    heads = ["domain", "rate", "domain's change", "general mean", "general tasks"]
    text = ["# Rates at which a fine-tune forgets", "", "Points, on validation records, seed 0.", ""]
    text += [markdown_table(heads, lines), ""]
    results.with_suffix(".md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
