"""The recipes for models that people use, each carried out on a tiny random model of that architecture."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from selfpos import merge
from selfpos.errors import SelfposError
from selfpos.pipeline.run import plan_run, run_recipe
from selfpos.recipe import Recipe
from selfpos.recipe.shipped import shipped_recipes
from selfpos.scores.files import read_scores
from tests.helpers.families import FAMILIES, make_family
from tests.helpers.files import write_lines

RECIPES = {
    "bge-m3": "XLM-R",
    "e5-multilingual": "XLM-R",
    "gte-modernbert": "ModernBERT",
    "instructor": "T5 encoder",
    "paper-chinese": "BERT",
    "paper-english": "BERT",
    "qwen3-embedding": "Qwen3",
}
PLAIN = ("paper-chinese", "paper-english")
"""Those whose base is published without a pooling; they say how to make one that embeds."""
SHAPES = {
    "instructor": {"questions": "lists", "similar": "inference", "classification": "banking77"},
    "paper-chinese": {"sts": "inference", "retrieval": "lists"},
    "paper-english": {"sts": "triplets", "retrieval": "lists"},
}
"""Task → made-up data in the shape of the Hub's, where the recipe names no local copy of all."""
PROMPTS = {
    "qwen3-embedding": {
        "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query"
        "\nQuery:"
    }
}
"""Those that the model itself comes with."""


def write_data(folder: Path) -> None:
    """Data of made-up words in the shapes of the recipes' data."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(120)]
    every_pair = [{"sentence1": one, "sentence2": two} for one, two in pairwise(texts)]
    pairs = every_pair[:60]
    sets = {
        "stsbenchmark": [pair | {"score": float(n % 6)} for n, pair in enumerate(pairs)],
        "mrpc": [pair | {"label": n % 2} for n, pair in enumerate(pairs)],
        "banking77": [{"text": text, "label": n % 4} for n, text in enumerate(texts[:60])],
        "questions": [{"query": one, "answer": two} for one, two in zip(texts[:60], texts[60:], strict=True)],
        "triplets": [
            {"anchor": one, "positive": two, "negative": three}
            for one, two, three in zip(texts[:60], texts[1:61], texts[60:], strict=True)
        ],
        "lists": [
            {"query": one, "positive": [two], "negative": [three, one[::-1]]}
            for one, two, three in zip(texts[:60], texts[1:61], texts[60:], strict=True)
        ],
        "inference": [
            pair | {"label": ("entailment", "neutral", "contradiction")[n % 3]}
            for n, pair in enumerate(every_pair)
        ],
    }
    for name, records in sets.items():
        (folder / name).mkdir(parents=True)
        write_lines(folder / name / "train.jsonl", records)
    write_lines(folder / "own.jsonl", [pair | {"score": n % 4} for n, pair in enumerate(pairs[:12])])
    (folder / "own.yaml").write_text("name: Own\ntype: sts\nfiles: {test: own.jsonl}\n")


def adapted(name: str, folder: Path, prompts: dict[str, str]) -> Recipe:
    """The recipe `name` on a tiny base with `prompts` and made-up data, both in `folder`."""
    data = yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8"))
    base = make_family(folder / "base", *FAMILIES[RECIPES[name]])
    write_data(folder / "data")
    config = base / "config_sentence_transformers.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prompts": prompts}))
    if name in PLAIN:
        raw = folder / "base-raw"
        base = merge(raw, [raw], "average", folder / data["base"], pooling="mean")
    data["base"] = str(base)
    for task, shape in SHAPES.get(name, {"retrieval": "questions"}).items():
        data["tasks"][task]["local"] = shape
    data["training"] |= {"steps": 2, "batch_size": 8, "max_length": 32}
    data["probe"]["per_task"] = 24
    for made in data["merges"].values():
        if "positioning" in made:
            made["positioning"]["max_length"] = 32
            if "preset" in made["positioning"]:
                made["positioning"] |= {"steps": 4, "batch_size": 8}
    data["evaluation"] = {"tasks": [str(folder / "data" / "own.yaml")]}
    return Recipe.model_validate(data)


@pytest.mark.nightly
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_of_a_model_is_carried_out(name: str, tmp_path: Path) -> None:
    recipe = adapted(name, tmp_path, PROMPTS.get(name, {}))
    folder = run_recipe(recipe, tmp_path / "run", data_root=tmp_path / "data")
    for model in ("base", *recipe.trained, *recipe.merges):
        assert "Own" in read_scores(folder.scores(model)), model
    assert folder.report.is_file()


def test_prompts_that_no_merge_would_take_are_refused_before_the_training(tmp_path: Path) -> None:
    recipe = adapted("e5-multilingual", tmp_path, {"query": "search: "})
    with pytest.raises(
        SelfposError,
        match="the prompt 'query' of task retrieval is 'query: ', the base's is 'search: ', and a merge",
    ):
        plan_run(recipe, tmp_path / "run", data_root=tmp_path / "data")
    config = tmp_path / "base" / "config_sentence_transformers.json"
    config.write_text(config.read_text().replace("search: ", "query: "))
    assert "merge/ties" in plan_run(recipe, tmp_path / "run", data_root=tmp_path / "data").jobs


def test_two_tasks_of_a_type_with_prompts_of_their_own_are_refused_before_the_training(
    tmp_path: Path,
) -> None:
    recipe = adapted("paper-english", tmp_path, {})
    tasks = {
        name: source.model_copy(update={"prompts": {"query": f"{name}: "}})
        for name, source in recipe.tasks.items()
    }
    given = recipe.model_copy(update={"tasks": tasks})
    found = "tasks sts and retrieval have different prompts, 'sts: ' and 'retrieval: ', which both go under"
    with pytest.raises(SelfposError, match=f"{found} 'Retrieval-query', and a merge keeps one"):
        plan_run(given, tmp_path / "run", data_root=tmp_path / "data")
    alike = {name: source.model_copy(update={"prompts": "find: "}) for name, source in recipe.tasks.items()}
    given = recipe.model_copy(update={"tasks": alike})
    assert "merge/ties" in plan_run(given, tmp_path / "run", data_root=tmp_path / "data").jobs


def test_every_recipe_of_a_model_is_a_recipe() -> None:
    for name in RECIPES:
        recipe = Recipe.model_validate(yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8")))
        assert recipe.name == name


def test_a_local_copy_is_the_set_that_the_hub_has() -> None:
    sets = {
        "stsbenchmark": "hub:sentence-transformers/stsb",
        "banking77": "hub:mteb/banking77",
        "mrpc": "hub:nyu-mll/glue:mrpc",
    }
    for name in RECIPES.keys() - SHAPES.keys():
        tasks = yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8"))["tasks"]
        assert {task["local"]: task["data"] for task in tasks.values() if "local" in task} == sets, name
