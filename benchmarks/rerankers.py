"""Two rerankers merged: MiniLM-based cross-encoders of WikiQA and of docstrings, beside their rivals.

    python benchmarks/rerankers.py --data FOLDER --note TEXT  # half an hour of one core

The base is all-MiniLM-L6-v2 with a new head of one output. The run is a recipe, which a stopped script goes
on with; results go to benchmarks/results/rerankers.json and .md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SEED = 0
QUESTIONS = 100  # of the docstrings' test split


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the data set wikiqa")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/rerankers"), help="folder of the run")
    parser.add_argument("--note", required=True, help="on what it was run")
    options = parser.parse_args()
    from keep_run import keep

    from selfpos.console import quiet_process
    from selfpos.pipeline.run import run_recipe
    from selfpos.recipe import Recipe, validate

    quiet_process()
    inputs = options.out.with_name(options.out.name + "-inputs")
    if not inputs.exists():
        make_inputs(inputs, options.data / "wikiqa")
    recipe = validate(Recipe, recipe_over(inputs, options.data / "wikiqa"), "the recipe")
    keep(run_recipe(recipe, options.out), options.note)


def make_inputs(folder: Path, wikiqa: Path) -> None:
    """The base, and both test sets as own tasks."""
    import torch
    from sentence_transformers import CrossEncoder

    from selfpos.data.corpus import load_corpus
    from selfpos.storage.locate import locate_model

    torch.manual_seed(SEED)  # of the head
    base = CrossEncoder(str(locate_model("all-MiniLM-L6-v2")), num_labels=1, device="cpu")
    folder.mkdir(parents=True)
    rows = load_corpus().training("reranking", None, split="test").to_list()[:QUESTIONS]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, file in (
        ("WikiQAReranking", (wikiqa / "test.jsonl").resolve()),
        ("DocsReranking", "docs.jsonl"),
    ):
        text = f"name: {name}\ntype: reranking\nfiles: {{test: {file}}}\n"
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    base.save_pretrained(str(folder / "base"))


def recipe_over(inputs: Path, wikiqa: Path) -> dict[str, Any]:
    """Two specialists, the joint model with their steps, and the merges."""
    return {
        "name": "rerankers",
        "base": str(inputs / "base"),
        "seed": SEED,
        "tasks": {
            "wikiqa": {"type": "reranking", "data": str(wikiqa / "train.jsonl.gz")},
            "docs": {"type": "reranking", "data": "corpus"},
        },
        "training": {"steps": 60, "batch_size": 32, "learning_rate": 1e-4, "max_length": 64},
        "budget": {"equal": "steps"},
        "probe": {"per_task": 64},
        "merges": {
            "average": {"method": "average"},
            "ties": {"method": "ties"},
            "self-positioning": {"method": "self-positioning", "positioning": {"max_length": 64}},
        },
        "evaluation": {"tasks": [str(inputs / "WikiQAReranking.yaml"), str(inputs / "DocsReranking.yaml")]},
    }


if __name__ == "__main__":
    main()
