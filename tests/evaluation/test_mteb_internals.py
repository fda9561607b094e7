"""Says which private interface of mteb has changed; all of them are used in `mteb_internals` only."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from selfpos.evaluation import mteb_internals


@pytest.mark.parametrize(
    ("owner", "method", "parameters"),
    [
        (
            "AbsTask",
            "_evaluate_subset",
            {"model", "data_split", "hf_split", "hf_subset", "prediction_folder"},
        ),
        ("AbsTask", "_save_task_predictions", {"predictions", "prediction_folder"}),
        ("AbsTaskRetrieval", "task_specific_scores", {"scores", "qrels", "results"}),
    ],
)
def test_the_methods_that_are_observed(owner: str, method: str, parameters: set[str]) -> None:
    from mteb import abstasks

    function = getattr(getattr(abstasks, owner), method, None)
    assert function, f"mteb no longer has {owner}.{method}: results by example cannot be recorded"
    missing = parameters - set(inspect.signature(function).parameters)
    assert not missing, f"{owner}.{method} of mteb no longer takes {', '.join(sorted(missing))}"


def test_splits_of_a_task_can_be_set() -> None:
    import mteb

    task = mteb.get_task("STS16")
    mteb_internals.set_splits(task, ["train"], ["default"])
    assert list(task.eval_splits) == ["train"], "mteb no longer reads a task's splits from _eval_splits"


def test_the_hubs_names_and_results(tmp_path: Path) -> None:
    import json

    import mteb

    metadata = mteb.get_task("STSBenchmark").metadata
    assert mteb_internals.hub_category(metadata) == "sentence-similarity", (
        "mteb no longer gives the Hub's kind of task by _hf_task_type"
    )
    entry: dict[str, Any] = {"main_score": 0.8, "hf_subset": "default", "languages": ["eng-Latn"]}
    result = {
        "dataset_revision": metadata.dataset["revision"],
        "task_name": "STSBenchmark",
        "mteb_version": mteb.__version__,
        "evaluation_time": 1.0,
        "scores": {"test": [entry]},
    }
    (tmp_path / "STSBenchmark.json").write_text(json.dumps(result))
    assert "mteb/stsbenchmark-sts" in mteb_internals.hub_result(tmp_path / "STSBenchmark.json"), (
        "mteb no longer writes the Hub's form of results by _to_hf_benchmark_result"
    )
