"""Tasks of an evaluation on a real Ray cluster of this machine: the results of an evaluation at home, and a
failing task that fails alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfpos.evaluation import TasksFailedError, evaluate, read_scores, select_tasks
from selfpos.pipeline.scores_on_ray import evaluate_on_ray
from tests.helpers.own_tasks import sentence

pytest.importorskip("ray", reason="Ray is not installed (pip install 'selfpos[ray]')")


@pytest.fixture
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        yield str(cluster.address)
        cluster.shutdown()


@pytest.mark.slow
def test_tasks_on_workers_score_as_at_home_and_one_that_fails_fails_alone(
    address: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    for year in (15, 16):
        rows = [
            {"sentence1": sentence(rng), "sentence2": sentence(rng), "score": rng.uniform(0, 5)}
            for _ in range(30)
        ]
        (tmp_path / "data" / f"sts{year}").mkdir(parents=True)
        (tmp_path / "data" / f"sts{year}" / "test.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
    (tmp_path / "data" / "sts15" / "test.jsonl").write_text('{"sentence1": "a", "sentence2"')
    selection = {"names": ["STS15", "STS16"], "data_dir": Path("data")}
    monkeypatch.chdir(tmp_path)
    told: list[list[tuple[str, str]]] = []
    with pytest.raises(
        TasksFailedError, match=r"1 of 2 tasks failed on tiny: STS15 \(.*test.jsonl"
    ) as caught:
        evaluate_on_ray(
            tiny_base,
            select_tasks(**selection),
            Path("away"),
            selection=selection,
            address=address,
            name="tiny",
            cache=Path("away/cache"),
            announce=told.append,
        )
    assert caught.value.exit_code == 1 and "prompts" in dict(told[0])
    (tmp_path / "data" / "sts15" / "test.jsonl").write_text(
        (tmp_path / "data" / "sts16" / "test.jsonl").read_text()
    )
    tasks = select_tasks(**selection)
    scores = evaluate_on_ray(
        tiny_base, tasks, Path("away"), selection=selection, address=address, name="tiny"
    )
    assert list(scores) == selection["names"] and read_scores(Path("away")) == scores
    home = evaluate(tiny_base, select_tasks(**selection), Path("home"), name="tiny")
    assert {name: score.main_score for name, score in scores.items()} == {
        name: score.main_score for name, score in home.items()
    }
    log = (tmp_path / "away" / "ray" / "run.log").read_text(encoding="utf-8")
    assert log.count("STS15: started") == 2 and log.count("STS16: started") == 1
