"""The place of all trials: tiny random models, records and test data, in a scratch folder."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))


@dataclass
class Place:
    """A folder with a base, three specialists, records for them, a probe set and test data."""

    folder: Path
    hub: Any = None
    share: float = 1.0  # of the moments at which work is killed
    numbers: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        from datasets import Dataset, Value

        from selfpos.data.probe import write_probe
        from selfpos.tasks import get_task
        from tests.helpers.models import make_specialist, make_tiny_model

        self.base = make_tiny_model(self.folder / "models" / "base")
        self.vectors = [
            make_specialist(self.base, self.folder / "models" / name, seed=seed)
            for seed, name in enumerate(["alpha", "beta", "gamma"], start=1)
        ]
        words = [f"{a}{b} {b}{a}" for a in "abcdefgh" for b in "ijklmnop"]
        pairs = [
            {"sentence1": word, "sentence2": words[number // 2], "score": number % 6}
            for number, word in enumerate(words)
        ]
        self.pairs = self.lines("sts.jsonl", pairs)
        self.test_data = self.folder / "mteb"
        (self.test_data / "stsbenchmark").mkdir(parents=True)
        shutil.copy(self.lines("test.jsonl", pairs[:20]), self.test_data / "stsbenchmark" / "test.jsonl")
        self.probe = self.folder / "probe"
        kind = get_task("sts")
        held_out = {
            "alpha": Dataset.from_list(pairs[:24]).cast_column("score", Value("float64")),
            "beta": Dataset.from_list(pairs[24:48]).cast_column("score", Value("float64")),
        }
        write_probe(self.probe, held_out, dict.fromkeys(held_out, kind))

    def lines(self, name: str, records: list[dict[str, Any]]) -> Path:
        """Write the records as JSON Lines."""
        file = self.folder / name
        file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return file

    def fresh(self) -> Path:
        """A new empty folder."""
        folder = self.folder / f"try-{next(self.numbers)}"
        folder.mkdir()
        return folder

    def copy(self, model: Path) -> Path:
        """A copy of a model in a folder of its own."""
        return Path(shutil.copytree(model, self.fresh() / "model"))

    # ------------------------------------------------------------ command lines

    def merge(
        self, out: Path, *, base: Path | None = None, vectors: Any = None, method: str = "ties"
    ) -> list:
        sources = self.vectors[:2] if vectors is None else vectors
        words = ["merge", "--base", base or self.base, "--method", method, "--out", out, "--threads", 1]
        return [*words, *(word for source in sources for word in ("--vectors", source))]

    def search(self, out: Path, *, base: Path | None = None) -> list:
        return [*self.merge(out, base=base, method="self-positioning"), "--probe", self.probe, "--seed", 1]

    def finetune(self, out: Path, *, base: Path | None = None, data: Path | None = None) -> list:
        words = ["finetune", "--base", base or self.base, "--task", "sts", "--data", data or self.pairs]
        return [*words, "--probe", 0, "--steps", 6, "--batch-size", 8, "--max-length", 16, "--out", out]

    def score(self, out: Path, *, model: Path | None = None) -> list:
        words = ["eval-mteb", model or self.vectors[0], "--tasks", "STSBenchmark"]
        return [*words, "--data-dir", self.test_data, "--out", out, "--name", "me/scored"]

    def recipe(self, **changes: Any) -> Path:
        """A recipe of two tasks, two merges and one test."""
        import yaml

        data = {"type": "sts", "data": str(self.pairs)}
        recipe: dict[str, Any] = {
            "name": "small",
            "base": str(self.base),
            "tasks": {"one": data, "two": data | {"limit": 48}},
            "training": {"steps": 4, "batch_size": 8, "max_length": 16, "checkpoint_every": 2},
            "probe": {"per_task": 12},
            "merges": {"average": {"method": "average"}, "ties": {"method": "ties"}},
            "evaluation": {"tasks": ["STSBenchmark"], "data_dir": str(self.test_data)},
        }
        file = self.fresh() / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe | changes, sort_keys=False), encoding="utf-8")
        return file


def warm() -> None:
    """Import what the verbs use, so that forks need not."""
    import datasets
    import mteb
    import peft
    import sentence_transformers
    import sentence_transformers.sentence_transformer.losses
    import torch
    import transformers

    import selfpos.evaluation.run
    import selfpos.operations
    import selfpos.pipeline.run
    import selfpos.publishing.push
    import selfpos.searched_merge
    import selfpos.training.trainer

    torch.set_num_threads(1)
    assert datasets and mteb and peft and sentence_transformers and transformers and selfpos
