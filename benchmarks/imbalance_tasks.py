"""Imbalance between tasks within hours on one core: `selfpos imbalance compare tasks` on tasks with short texts, scored on the first 500 records of each test.

    python benchmarks/imbalance_tasks.py --data ../shared/data/text --rho 50

Same mixtures, merges, budget and probe as recipes/imbalance-tasks.yaml; STSBenchmark, Emotion and MRPC are the tasks, so that a model is scored in
seconds. Started again it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml

TASKS = {"sts": "stsbenchmark", "classification": "emotion", "pair-classification": "mrpc"}
RECORDS = 500


def main() -> None:
    from selfpos.data.sources import load_source
    from selfpos.tasks import get_task

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three data sets")
    parser.add_argument("--rho", default="1,10,50")
    parser.add_argument("--largest", type=int, default=1600, help="training records of a large task")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/imbalance-tasks"))
    options = parser.parse_args()

    recipe = yaml.safe_load((Path(__file__).parent.parent / "recipes" / "imbalance-tasks.yaml").read_text(encoding="utf-8"))
    recipe["name"] = "imbalance-tasks-short"
    recipe["tasks"] = {kind: {"type": kind, "data": str(options.data / folder)} for kind, folder in TASKS.items()}
    recipe["training"]["batch_size"] = 16  # at ρ = 50 a small task has 32 records
    recipe["evaluation"]["tasks"] = [str(declare(kind, options.data / folder, options.out / "tasks")) for kind, folder in TASKS.items()]
    for kind, folder in TASKS.items():  # said before hours are spent
        load_source(str(options.data / folder), get_task(kind), split="train")
    file = options.out / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    words = {"rho": options.rho, "largest": options.largest, "seeds": options.seeds}
    words["out"] = options.out / f"rho-{options.rho.replace(',', '-')}.json"
    told = [part for name, value in words.items() for part in (f"--{name}", str(value))]
    sys.exit(subprocess.run([sys.executable, "-m", "selfpos", "imbalance", "compare", "tasks", str(file), *told]).returncode)


def declare(kind: str, folder: Path, out: Path) -> Path:
    """A task file on the first records of the test, and the training data as it is where the task fits a head."""
    out.mkdir(parents=True, exist_ok=True)
    splits = ("test", "train") if kind == "classification" else ("test",)
    files = {}
    for split in splits:
        rows = read_first(folder, split, RECORDS if split == "test" else None)
        files[split] = f"{kind}-{split}.jsonl"
        (out / files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = out / f"{kind}.yaml"
    file.write_text(yaml.safe_dump({"name": f"{folder.name}-{RECORDS}", "type": kind, "files": files}), encoding="utf-8")
    return file


def read_first(folder: Path, split: str, count: int | None) -> list[dict[str, object]]:
    from selfpos.data.files import read_records

    (file,) = (folder / f"{split}{ending}" for ending in (".jsonl", ".jsonl.gz") if (folder / f"{split}{ending}").exists())
    return list(read_records(file))[:count]


if __name__ == "__main__":
    main()
