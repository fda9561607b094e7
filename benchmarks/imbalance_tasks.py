"""Imbalance between tasks within hours on one core: `selfpos imbalance compare tasks` on tasks with short
texts, scored on 500 records of each test.

    python benchmarks/imbalance_tasks.py --data ../shared/data/text --rho 50

Same mixtures, merges, budget and probe as recipes/imbalance-tasks.yaml; STSBenchmark, Emotion and MRPC are
the tasks, so that a model is scored in seconds. Started again it continues.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

TASKS = {"sts": "stsbenchmark", "classification": "emotion", "pair-classification": "mrpc"}
RECORDS = 500


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the three data sets")
    parser.add_argument("--rho", default="1,10,50")
    parser.add_argument("--largest", type=int, default=800, help="training records of a large task")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/imbalance-tasks"))
    options = parser.parse_args()

    template = Path(__file__).parent.parent / "recipes" / "imbalance-tasks.yaml"
    recipe = yaml.safe_load(template.read_text(encoding="utf-8"))
    recipe["name"] = "imbalance-tasks-short"
    sources = {kind: options.data / folder for kind, folder in TASKS.items()}
    recipe["tasks"] = {kind: {"type": kind, "data": str(source)} for kind, source in sources.items()}
    recipe["training"]["batch_size"] = 8  # at ρ = 50 a small task has 16 records
    tasks = options.out / "tasks"
    recipe["evaluation"]["tasks"] = [str(declare(kind, source, tasks)) for kind, source in sources.items()]
    file = options.out / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "selfpos", "imbalance", "compare", "tasks", file]
    command += ["--rho", options.rho, "--largest", options.largest, "--seeds", options.seeds]
    command += ["--out", options.out / f"rho-{options.rho.replace(',', '-')}.json"]
    sys.exit(subprocess.run([str(word) for word in command]).returncode)


def declare(kind: str, source: Path, out: Path) -> Path:
    """A task file on records drawn from the test, and on the training data where the task fits a head."""
    from selfpos.data.sources import load_source
    from selfpos.tasks import get_task

    out.mkdir(parents=True, exist_ok=True)
    limits = {"test": RECORDS} | ({"train": None} if kind == "classification" else {})
    files = {}
    for split, limit in limits.items():
        files[split] = f"{kind}-{split}.jsonl"
        load_source(str(source), get_task(kind), split=split, limit=limit).dataset.to_json(out / files[split])
    task = {"name": f"{source.name}-{RECORDS}", "type": kind, "files": files}
    file = out / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(task), encoding="utf-8")
    return file


if __name__ == "__main__":
    main()
