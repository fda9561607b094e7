"""Keep the result of a run: benchmarks/results/NAME.json, its table as NAME.md, its means as docs/NAME.png.

python benchmarks/keep_run.py checkpoints/quickstart --note "make quickstart in a fresh clone, two CPU cores"
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from selfpos.comparison.tables import markdown
from selfpos.recipe import load_recipe
from selfpos.report import read_run
from selfpos.report.figures import means, save
from selfpos.report.results import Results, make_table
from selfpos.storage.locate import without_folders
from selfpos.storage.manifest import read_json
from selfpos.storage.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent


def facts(results: Results, folder: RunFolder, note: str) -> dict[str, Any]:
    """The recipe, scores, coefficients and seconds of a run."""
    searches = {name: search.position for name, search in results.searches.items()}
    return {
        "recipe": without_folders(load_recipe(folder.recipe).model_dump(mode="json", exclude_unset=True)),
        "note": note,
        "tasks": results.tasks,
        "scores": results.scores,
        "vectors": results.vectors,
        "gram": results.gram,
        "coefficients": {
            name: dict(zip(found["names"], found["coefficients"], strict=True))
            for name, found in searches.items()
        },
        "verdicts": {name: found.get("verdict") for name, found in searches.items()},
        "seconds": results.seconds,
        "pipelines": results.pipelines,
        **({"overlap": read_json(folder.overlap)["sources"]} if folder.overlap.is_file() else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument(
        "--note", required=True, help="on what it was run, how long it took, in how much memory"
    )
    options = parser.parse_args()
    results = keep(RunFolder(options.run), options.note)
    save(means(results), ROOT / "docs" / f"{results.name}.png")


def keep(run: RunFolder, note: str) -> Results:
    """Write the result of a finished run as JSON and as a table."""
    results = read_run(run)
    if results.missing:
        sys.exit(f"{run.path} is not finished: {', '.join(results.missing)} missing")
    place = ROOT / "benchmarks" / "results" / results.name
    text = json.dumps(facts(results, run, note), indent=1)
    place.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    table = markdown(make_table(results))
    place.with_suffix(".md").write_text(f"# {place.name}\n\n{note}\n\n{table}\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
