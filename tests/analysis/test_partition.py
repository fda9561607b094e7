"""The partition of data sets into tasks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from selfpos.analysis.partition import cluster_recipe, cluster_tasks, embed_sources, partition, text_pairs
from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, TaskSource, load_recipe
from selfpos.tasks import get_task
from tests.helpers.command import CommandLine, said


def test_groups_that_are_far_apart_are_found() -> None:
    draw = np.random.default_rng(0)
    centres = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9]])
    names = [f"{'abc'[group]}{n}" for group in range(3) for n in range(4 - group)]
    vectors = np.stack([centres["abc".index(name[0])] + 0.1 * draw.standard_normal(3) for name in names])
    found = partition(vectors, names, 3)
    assert [{name[0] for name in group} for group in found.clusters] == [{"a"}, {"b"}, {"c"}]
    assert found.silhouette is not None and found.silhouette > 0.9
    assert partition(vectors[:2], names[:2], 2).silhouette is None
    with pytest.raises(SelfposError, match="2 data sets cannot form 3 clusters"):
        partition(vectors[:2], names[:2], 3)


def test_labelled_texts_give_pairs_of_one_label() -> None:
    records = Dataset.from_dict(
        {
            "text": [f"{label} {n}" for label in "xyz" for n in range(10)],
            "label": [label for label in "xyz" for _ in range(10)],
        }
    )
    first, second = text_pairs(get_task("classification"), records, 6, 0)
    assert len(first) == len(second) == 6
    assert all(one[0] == other[0] and one != other for one, other in zip(first, second, strict=True))


def test_each_side_has_its_own_half(tiny_base: Path) -> None:
    kind = get_task("retrieval")
    records = Dataset.from_dict(
        {"anchor": [f"word {c}" for c in "abcdef"], "positive": [f"thing {c} x" for c in "abcdef"]}
    )
    swapped = records.rename_columns({"anchor": "positive", "positive": "anchor"})
    one, other = embed_sources(tiny_base, {"one": (kind, records), "other": (kind, swapped)}, count=6)
    half = len(one) // 2
    np.testing.assert_allclose(one[:half], other[half:], atol=1e-6)
    assert not np.allclose(one[:half], one[half:], atol=1e-3)


def test_a_cluster_becomes_one_task_for_each_type_in_it(tmp_path: Path) -> None:
    sources = {
        "a": TaskSource(type="retrieval", data="hub:a", limit=10),
        "b": TaskSource(type="retrieval", data=["hub:b", "hub:c"], limit=5),
        "c": TaskSource(type="sts", data="hub:d", local="d"),
        "e": TaskSource(type="sts", data="hub:e", split="dev"),
        "f": TaskSource(type="sts", data="hub:f"),
    }
    tasks = cluster_tasks([["a", "b"], ["c", "e", "f"]], sources)
    assert tasks["cluster-1"] == TaskSource(type="retrieval", data=["hub:a", "hub:b", "hub:c"], limit=15)
    assert tasks["cluster-2-sts"] == TaskSource(type="sts", data=["hub:d", "hub:f"])
    assert tasks["cluster-2-sts.2"] == TaskSource(type="sts", data=["hub:e"], split="dev")
    assert cluster_tasks([["c"]], sources, Path("root"))["cluster-1"].data == ["root/d"]
    recipe = Recipe.model_validate(
        {
            "name": "many",
            "base": "some/model",
            "tasks": sources,
            "merges": {"ties": {"method": "ties"}},
            "seed": 3,
        }
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(cluster_recipe(recipe, tasks, 2), encoding="utf-8")
    made = load_recipe(file)
    assert (made.name, made.base, made.seed, made.tasks, made.merges) == (
        "many-2-clusters",
        "some/model",
        3,
        tasks,
        recipe.merges,
    )


def test_the_verb_writes_recipes(selfpos: CommandLine, tmp_path: Path, tiny_base: Path) -> None:
    words = []
    for name, letters in {"ab": "ab", "ba": "ba", "yz": "yz", "zy": "zy"}.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text(
            "".join(
                json.dumps({"anchor": f"{letters * 3} {n}", "positive": f"{letters * 4} {n}"}) + "\n"
                for n in range(8)
            )
        )
        words.append(f"retrieval={file}")
    out = tmp_path / "out"
    done = selfpos("cluster", *words, "--base", tiny_base, "-k", "2", "--samples", "8", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "2 clusters: 2, 2 data sets" in done.stdout
    made = load_recipe(out / "2-clusters.yaml")
    assert [sorted(Path(place).stem for place in task.data) for task in made.tasks.values()] == [
        ["ab", "ba"],
        ["yz", "zy"],
    ]
    assert "name data" not in done.stderr
    assert "2 data sets cannot form 4" in said(selfpos("cluster", *words[:2], "--base", tiny_base, "-k", "4"))
