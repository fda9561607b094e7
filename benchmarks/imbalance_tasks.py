"""Imbalance between tasks within hours on one core: `selfpos imbalance compare tasks` on tasks with short
texts, scored on 500 records of each test.

    python benchmarks/imbalance_tasks.py --data ../shared/data/text --rho 50

Same mixtures, merges, budget and probe as recipes/imbalance-tasks.yaml; STSBenchmark, Emotion and MRPC are
the tasks, so that a model is scored in seconds. Started again it goes on where it was.
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

    recipe = yaml.safe_load(
        (Path(__file__).parent.parent / "recipes" / "imbalance-tasks.yaml").read_text(encoding="utf-8")
    )
    recipe["name"] = "imbalance-tasks-short"
    recipe["tasks"] = {
        kind: {"type": kind, "data": str(options.data / folder)} for kind, folder in TASKS.items()
    }
    recipe["training"]["batch_size"] = 8  # at ρ = 50 a small task has 16 records
    recipe["evaluation"]["tasks"] = [
        str(declare(kind, options.data / folder, options.out / "tasks")) for kind, folder in TASKS.items()
    ]
    file = options.out / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    words = {"rho": options.rho, "largest": options.largest, "seeds": options.seeds}
    words["out"] = options.out / f"rho-{options.rho.replace(',', '-')}.json"
    told = [part for name, value in words.items() for part in (f"--{name}", str(value))]
    sys.exit(
        subprocess.run(
            [sys.executable, "-m", "selfpos", "imbalance", "compare", "tasks", str(file), *told]
        ).returncode
    )


def declare(kind: str, source: Path, out: Path) -> Path:
    """A task file on records drawn from the test, and on the training data as they are where the task fits a
    head.
    """
    from selfpos.data.sources import load_source
    from selfpos.tasks import get_task

    out.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, limit in (
        [("test", RECORDS), ("train", None)] if kind == "classification" else [("test", RECORDS)]
    ):
        files[split] = f"{kind}-{split}.jsonl"
        load_source(str(source), get_task(kind), split=split, limit=limit).dataset.to_json(out / files[split])
    file = out / f"{kind}.yaml"
    file.write_text(
        yaml.safe_dump({"name": f"{source.name}-{RECORDS}", "type": kind, "files": files}), encoding="utf-8"
    )
    return file


if __name__ == "__main__":
    main()
