"""Scores on the card: from MTEB's own files, beside rivals, and as the metadata that the Hub reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from huggingface_hub import ModelCard

from selfpos.errors import SelfposError
from selfpos.evaluation.examples import Part, examples_file, write_examples
from selfpos.publishing.card import build_card
from selfpos.publishing.collection import plan_collection
from selfpos.publishing.push import plan_push
from selfpos.publishing.scores import find_scores, read_scores
from selfpos.storage import content_hash
from tests.publishing.conftest import write_manifest

ACCURACY = [0.5, 0.6, 0.7]
HUB_REVISION = "b0fddb56ed78048fa8b90373c8a3cfc37b684831"  # of the data that MTEB has for STSBenchmark


def write_result(root: Path, model: str, task: str, value: float, revision: str = HUB_REVISION, **more: object) -> Path:
    """One of MTEB's result files, in MTEB's own layout below `root`."""
    entry = {"main_score": value, "hf_subset": "default", "languages": ["eng-Latn"], **more}
    record = {
        "dataset_revision": revision,
        "task_name": task,
        "mteb_version": "2.26.24",
        "evaluation_time": 1.0,
        "scores": {"test": [entry]},
    }
    file = root / "results" / model.replace("/", "__") / "rev" / f"{task}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))
    return file


def write_last(root: Path, model: str, tasks: dict[str, tuple[str, str, float]]) -> None:
    listed = {
        task: {"type": kind, "metric": metric, "main_score": value, "file": f"results/{model.replace('/', '__')}/rev/{task}.json"}
        for task, (kind, metric, value) in tasks.items()
    }
    (root / "last.json").write_text(json.dumps({"model": model, "revision": "rev", "tasks": listed}))


@pytest.fixture
def run(tiny_base: Path, tmp_path: Path) -> Path:
    """A run `quick` with a base, a specialist and the merged model `sp`, all scored on a task of MTEB's and on two of our own."""
    run = tmp_path / "quick"
    tasks = {"retrieval": {"type": "retrieval", "data": "corpus"}}
    recipe = {"name": "quick", "tasks": tasks, "merges": {"sp": {"method": "ties"}}}
    run.mkdir()
    (run / "recipe.yaml").write_text(json.dumps(recipe))
    model = Path(shutil.copytree(tiny_base, run / "merged" / "sp"))
    sources = [{"name": "retrieval", "hash": "a" * 64}]
    write_manifest(
        model, kind="merge", licence="mit", base={"name": "model", "hash": "b" * 64}, merge={"method": "ties", "sources": sources}
    )
    for name, sts, docs in (("base", 0.82, 0.3), ("retrieval", 0.7, 0.5), ("sp", 0.81234, 0.6)):
        root = run / "scores" / name
        write_result(root, f"quick/{name}", "STSBenchmark", sts)
        write_result(root, f"quick/{name}", "OwnDocsRetrieval", docs)
        write_result(root, f"quick/{name}", "OwnLabels", fmean(ACCURACY), scores_per_experiment=[{"accuracy": value} for value in ACCURACY])
        known = {"STSBenchmark": ("STS", "cosine_spearman", sts), "OwnDocsRetrieval": ("Retrieval", "ndcg_at_10", docs)}
        write_last(root, f"quick/{name}", known | {"OwnLabels": ("Classification", "accuracy", fmean(ACCURACY))})
    return run


def test_card_in_a_run_has_its_scores_beside_its_rivals(run: Path) -> None:
    text = build_card(run / "merged" / "sp", repo="alice/quick-sp").text
    table = text.partition("## Scores")[2].partition("\n## ")[0]
    assert "MTEB 2.26.24 main scores in percent" in table
    assert "| task | **quick-sp** | base | retrieval |" in table
    assert "| STSBenchmark (STS, cosine_spearman) | 81.23 | 82.00 | 70.00 |" in table
    assert "| OwnDocsRetrieval (Retrieval, ndcg_at_10) | 60.00 | 30.00 | 50.00 |" in table
    assert "| OwnLabels (Classification, accuracy) | 60.00 (35.2–84.8) | 60.00 (35.2–84.8) | 60.00 (35.2–84.8) |" in table
    assert "| **mean of 3** | 67.08 | 57.33 | 60.00 |" in table
    assert "- On STSBenchmark it scores below its base: 81.23 against 82.00." in text
    assert "name: quick" not in table
    assert "recipe.yaml" in text


def test_model_index_is_read_back_by_the_hubs_own_classes(run: Path) -> None:
    data = ModelCard(build_card(run / "merged" / "sp", repo="alice/quick-sp").text).data
    assert data.model_name == "quick-sp"
    found = {result.dataset_name: result for result in data.eval_results}
    assert set(found) == {"MTEB STSBenchmark", "OwnDocsRetrieval", "OwnLabels"}
    sts = found["MTEB STSBenchmark"]
    assert (sts.task_type, sts.dataset_type, sts.metric_type) == ("sentence-similarity", "mteb/stsbenchmark-sts", "cosine_spearman")
    assert (sts.metric_value, sts.dataset_split, sts.dataset_config) == (81.234, "test", "default")
    assert found["OwnDocsRetrieval"].dataset_type == "unknown"  # not on the Hub, so no id of it


def test_scores_go_along_and_are_found_again(run: Path, tmp_path: Path) -> None:
    plan = plan_push(run / "merged" / "sp", "alice/quick-sp")
    assert plan.problems == ()
    fetched = tmp_path / "fetched" / "sp"
    for file in plan.files:
        (fetched / file.path).parent.mkdir(parents=True, exist_ok=True)
        (fetched / file.path).write_bytes(file.read())
    assert find_scores(fetched) == fetched / "eval"
    here, there = read_scores(run / "scores"), read_scores(fetched / "eval")
    assert here is not None
    assert there is not None
    assert here.models == there.models
    assert here.tasks == there.tasks
    assert "## Scores" in build_card(fetched).text


def test_scores_go_along_in_the_form_that_leaderboards_of_the_hub_read(run: Path) -> None:
    import yaml
    from huggingface_hub import parse_eval_result_entries

    files = {file.path: file.read() for file in plan_push(run / "merged" / "sp", "alice/quick-sp").files}
    assert [path for path in files if path.startswith(".eval_results/")] == [
        ".eval_results/STSBenchmark.yaml"
    ]  # MTEB's, of this model only
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/STSBenchmark.yaml"]))
    assert [(entry.dataset_id, entry.task_id, entry.value) for entry in entries] == [
        ("mteb/stsbenchmark-sts", "STSBenchmark_default_test", 81.234),
        ("mteb/stsbenchmark-sts", "STSBenchmark", 81.234),
    ]


def test_scores_on_local_data_are_not_passed_off_as_those_of_the_hubs_data(run: Path) -> None:
    write_result(run / "scores" / "sp", "quick/sp", "STSBenchmark", 0.81234, revision="a content hash")
    plan = plan_push(run / "merged" / "sp", "alice/quick-sp")
    assert not any(file.path.startswith(".eval_results/") for file in plan.files)
    (sts,) = [result for result in ModelCard(plan.card).data.eval_results if "STSBenchmark" in result.dataset_name]
    assert (sts.dataset_name, sts.dataset_type, sts.dataset_revision) == ("MTEB STSBenchmark, data kept locally", "unknown", None)
    assert "data kept locally instead of MTEB's own on the Hub: STSBenchmark." in plan.card


def test_raw_mteb_folder_without_last_json(tmp_path: Path) -> None:
    write_result(tmp_path, "owner/model", "STSBenchmark", 0.8)
    write_result(tmp_path, "owner/model", "NotATask", 0.5)
    scores = read_scores(tmp_path)
    assert scores is not None
    assert scores.value("model", "STSBenchmark") == 0.8
    assert scores.tasks["STSBenchmark"].type == "STS"
    assert scores.tasks["NotATask"].type is None


def test_mean_is_left_out_where_a_model_misses_a_task(run: Path) -> None:
    last = run / "scores" / "base" / "last.json"
    record = json.loads(last.read_text())
    del record["tasks"]["OwnDocsRetrieval"]
    last.write_text(json.dumps(record))
    text = build_card(run / "merged" / "sp").text
    assert "| **mean of 3** | 67.08 |  | 60.00 |" in text


def test_scores_of_others_alone_are_no_scores_of_the_model(run: Path) -> None:
    shutil.rmtree(run / "scores" / "sp")
    plan = plan_push(run / "merged" / "sp", "alice/quick-sp")
    assert "## Scores" not in plan.card
    assert any("the card has no scores: those found are of base, retrieval, none of them of sp" in note for note in plan.notes)


def test_nothing_scored_and_damaged_files(tmp_path: Path) -> None:
    assert read_scores(tmp_path) is None
    file = write_result(tmp_path, "m", "STSBenchmark", 0.8)
    file.write_text(file.read_text()[:-5])
    with pytest.raises(SelfposError, match=r"STSBenchmark\.json is not JSON"):
        read_scores(tmp_path)


def test_the_interval_is_that_of_resampled_examples_where_they_were_kept(tmp_path: Path) -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).beta(4, 2, size=400)
    file = write_result(tmp_path, "one", "STSBenchmark", float(values.mean()))
    part = Part("test", "default", "mean", len(values), "key", {"values": values})
    write_examples(examples_file(file), [part], HUB_REVISION)
    write_result(tmp_path, "two", "STSBenchmark", 0.5)
    found = read_scores(tmp_path)
    assert found is not None
    (one,), (two,) = found.models["one"], found.models["two"]
    expected = bootstrap((values,), np.mean, method="percentile", rng=4).confidence_interval
    assert one.interval == pytest.approx((expected.low, expected.high), abs=0.003)
    assert two.interval is None


def test_examples_of_other_data_give_no_interval(tmp_path: Path) -> None:
    file = write_result(tmp_path, "one", "STSBenchmark", 0.5)
    part = Part("test", "default", "mean", 4, "key", {"values": np.array([0.0, 1.0, 0.0, 1.0])})
    write_examples(examples_file(file), [part], "of last year")
    found = read_scores(tmp_path)
    assert found is not None and found.models["one"][0].interval is None


def test_a_parent_is_found_in_its_run_wherever_that_was_moved_to(run: Path, tiny_base: Path) -> None:
    specialist = Path(shutil.copytree(tiny_base, run / "specialists" / "retrieval"))
    manifest = json.loads((run / "merged" / "sp" / "selfpos.json").read_text(encoding="utf-8"))
    source = {"name": "retrieval", "hash": content_hash(specialist), "source": "elsewhere/retrieval"}
    manifest["merge"]["sources"] = [source]
    (run / "merged" / "sp" / "selfpos.json").write_text(json.dumps(manifest), encoding="utf-8")
    planned = plan_collection(run / "merged" / "sp", "alice/sp")
    assert list(planned.vectors) == ["retrieval"]
    assert planned.notes == ()

    manifest["merge"]["sources"] = [source | {"hash": "c" * 64}]
    (run / "merged" / "sp" / "selfpos.json").write_text(json.dumps(manifest), encoding="utf-8")
    planned = plan_collection(run / "merged" / "sp", "alice/sp")
    assert not planned.vectors
    assert "retrieval, which it was made from, is not in its folder any more" in planned.notes[0]
