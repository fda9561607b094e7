from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from selfpos.pipeline.trainings import Training, plan_trainings
from selfpos.recipe import Recipe
from selfpos.storage.run_folder import RunFolder
from selfpos.training.samplers import random_part

SIZES = {"a": 600, "b": 100, "c": 310}
MERGE = {"m": {"method": "average"}, "boom": {"method": "multi-slerp", "vectors": "bagging"}}
EVERYTHING = {
    "name": "r",
    "tasks": {task: {"type": "sts", "data": "x.jsonl"} for task in SIZES},
    "joint": {"plain": {}, "surgery": {"surgery": "pcgrad"}},
    "iterative": {"order": ["c", "a", "b"]},
    "bagging": {"shares": [0.25, 0.5, 1.0]},
    "merges": MERGE,
}


def plan(**change: object) -> dict[str, list[Training]]:
    recipe = Recipe.model_validate(EVERYTHING | change)
    return plan_trainings(recipe, RunFolder(Path("run")), SIZES)


def draws(training: Training) -> int:
    """Batches."""
    batches = len(training.tasks) if training.mixture and training.mixture.surgery else 1
    return (training.steps or 0) * batches


def totals(pipelines: dict[str, list[Training]]) -> dict[str, tuple[int, int]]:
    """Pipeline → steps and batches of all its trainings."""
    return {
        name: (sum(t.steps or 0 for t in found), sum(map(draws, found))) for name, found in pipelines.items()
    }


def test_each_pipeline_is_as_long_as_the_specialists_unless_told_otherwise() -> None:
    assert totals(plan(training={"steps": 40})) == {
        "separate": (120, 120), "plain": (120, 120), "surgery": (40, 120), "iterative": (120, 120),
        "bagging": (30 + 60 + 120, 210),
    }  # fmt: skip
    knowing = plan(training={"steps": 40}, joint={"plain": {}, "knowing": {"on_probe": True}})
    assert totals(knowing)["knowing"] == totals(knowing)["plain"]
    assert [t.name for found in knowing.values() for t in found if t.on_probe] == ["knowing"]
    own = plan(
        training={"steps": 40},
        joint={"steps": 7},
        iterative={"steps": 5},
        bagging={"shares": [0.5, 1.0], "steps": 9},
    )
    assert totals(own) == {"separate": (120, 120), "joint": (7, 7), "iterative": (15, 15), "bagging": (9, 9)}
    assert all(
        training.steps is None for found in plan(training={"epochs": 2}).values() for training in found
    )


@pytest.mark.parametrize("training", [{"steps": 40}, {"epochs": 2.0, "batch_size": 10}])
def test_a_budget_holds_draws_or_steps_equal(training: dict) -> None:
    whole = 120 if "steps" in training else 2 * (60 + 10 + 31)
    for equal, place in (("steps", 0), ("draws", 1)):
        found = totals(plan(training=training, budget={"equal": equal}))
        for name, total in found.items():
            slack = (
                1 if name == "surgery" and equal == "draws" else 0
            )  # its steps draw three batches each: 67 · 3 = 201 of 202
            assert abs(total[place] - whole) <= slack, (equal, name)
    assert found["surgery"][0] == pytest.approx(whole / 3, abs=0.5)


def test_the_iterative_pipeline_goes_on_from_checkpoint_to_checkpoint_and_begins_with_a_specialist() -> None:
    pipelines = plan(training={"steps": 4})
    first, second, third = pipelines["iterative"]
    assert first is pipelines["separate"][2] and first.tasks == ("c",)
    assert (second.name, second.tasks, second.start) == ("iterative-2-a", ("a",), first)
    assert (third.name, third.tasks, third.start) == ("iterative-3-b", ("b",), second)
    apart = plan(training={"steps": 4}, iterative={"steps": 5})["iterative"]
    assert [training.name for training in apart] == ["iterative-1-a", "iterative-2-b", "iterative-3-c"]
    assert apart[0].start is None


def test_every_model_has_a_folder_a_job_and_a_name_of_its_own() -> None:
    trainings = {training.job: training for found in plan().values() for training in found}
    assert len(trainings) == 3 + 2 + 2 + 3
    for attribute in ("name", "out"):
        assert len({getattr(training, attribute) for training in trainings.values()}) == len(trainings)


def test_random_parts_are_drawn_without_replacement_and_differ() -> None:
    records = Dataset.from_dict({"number": list(range(100))})
    first, again, other = (random_part(records, 0.3, seed)["number"][:] for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == len(set(first)) == 30 and first == sorted(first)
    assert random_part(records, 1.0, 1)["number"][:] == list(range(100))
    assert len(random_part(records, 0.001, 1)) == 1
