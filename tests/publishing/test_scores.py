"""Scores on the card: from MTEB's own files, beside rivals, and as the metadata that the Hub reads."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from selfpos.errors import SelfposError
from selfpos.publishing.card import build_card
from selfpos.publishing.collection import plan_collection
from selfpos.publishing.plan import plan_push
from selfpos.publishing.scores import Scores, find_scores, read_model_scores
from selfpos.scores.examples import Examples, examples_file, resamples, score_of, write_examples
from selfpos.storage.hashing import content_hash
from tests.helpers.hub.scored_run import HUB_REVISION, write_last, write_manifest, write_result


def interval(scores: Scores, model: str) -> tuple[float, float] | None:
    result = scores.result(model, "STSBenchmark")
    assert result is not None
    return result.interval(result.scores[0])


def test_card_in_a_run_has_its_scores_beside_its_rivals(run: Path) -> None:
    text = build_card(run / "merged" / "sp", repo="alice/quick-sp").text
    table = text.partition("## Scores")[2].partition("\n## ")[0]
    assert "MTEB 2.26.24 main scores in percent" in table
    assert "| task | **quick-sp** | base | retrieval |" in table
    assert "| STSBenchmark (STS, cosine_spearman) | 81.23 | 82.00 | 70.00 |" in table
    assert "| OwnDocsRetrieval (Retrieval, ndcg_at_10) | 60.00 | 30.00 | 50.00 |" in table
    cell = "60.00<br><sub>35.2\u2060–\u206084.8</sub>"
    assert f"| OwnLabels (Classification, accuracy) | {cell} | {cell} | {cell} |" in table
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
    assert (sts.task_type, sts.dataset_type, sts.metric_type) == (
        "sentence-similarity",
        "mteb/stsbenchmark-sts",
        "cosine_spearman",
    )
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
    here, there = read_model_scores(run / "scores"), read_model_scores(fetched / "eval")
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
    (sts,) = [
        result for result in ModelCard(plan.card).data.eval_results if "STSBenchmark" in result.dataset_name
    ]
    assert (sts.dataset_name, sts.dataset_type, sts.dataset_revision) == (
        "MTEB STSBenchmark, data kept locally",
        "unknown",
        "a content hash",
    )
    assert "Scored on local data instead of MTEB's data on the Hub: STSBenchmark." in plan.card


def test_raw_mteb_folder_without_last_json(tmp_path: Path) -> None:
    write_result(tmp_path, "owner/model", "STSBenchmark", 0.8)
    write_result(tmp_path, "owner/model", "NotATask", 0.5)
    scores = read_model_scores(tmp_path)
    assert scores is not None
    result = scores.result("model", "STSBenchmark")
    assert result is not None and result.mean == 0.8
    assert scores.tasks["STSBenchmark"].type == "STS"
    assert scores.tasks["NotATask"].type is None


def test_mean_is_left_out_where_a_model_misses_a_task(run: Path) -> None:
    last = run / "scores" / "base" / "last.json"
    record = json.loads(last.read_text())
    (last.parent / record["tasks"].pop("OwnDocsRetrieval")["file"]).unlink()
    last.write_text(json.dumps(record))
    text = build_card(run / "merged" / "sp").text
    assert "| **mean of 3** | 67.08 |  | 60.00 |" in text


def test_scores_of_others_alone_are_no_scores_of_the_model(run: Path) -> None:
    shutil.rmtree(run / "scores" / "sp")
    plan = plan_push(run / "merged" / "sp", "alice/quick-sp")
    assert "## Scores" not in plan.card
    assert any(
        "the card has no scores: those found are of base, retrieval, none of them of sp" in note
        for note in plan.notes
    )


def scored_anew(run: Path, name: str, content: str, value: float) -> Path:
    """The scores of `name` as `selfpos eval-mteb` files them: below the hash of the weights."""
    shutil.rmtree(run / "scores" / name)
    return write_result(run / "scores" / name, f"quick/{name}", "STSBenchmark", value, content=content[:40])


def test_scores_are_matched_to_models_by_content(run: Path, tmp_path: Path) -> None:
    """Whatever the models were called when they were scored; and scores of weights that are there no more are
    not shown.
    """
    model = run / "merged" / "sp"
    elsewhere = tmp_path / "results"
    for name, content, value in (
        ("first", content_hash(model), 0.9),
        ("second", "a" * 64, 0.8),
        ("third", "b" * 64, 0.7),
    ):
        write_result(elsewhere, f"local/{name}", "STSBenchmark", value, content=content[:40])
    plan = plan_push(model, "alice/sp", results=elsewhere)
    assert "| task | **sp** | third | second |" in plan.card  # own, base, parent
    assert plan.notes == tuple(note for note in plan.notes if "other weights" not in note)

    scored_anew(run, "sp", "c" * 64, 0.99)
    scored_anew(run, "retrieval", "d" * 64, 0.98)
    plan = plan_push(model, "alice/sp")
    assert "## Scores" not in plan.card
    assert not any("sp/" in file.path for file in plan.files if file.path.startswith("eval/"))
    for name in ("sp", "retrieval"):
        assert (
            f"the scores of {name} are left out: they belong to other weights; score it again" in plan.notes
        )
    scored_anew(run, "sp", content_hash(model), 0.99)
    assert "| STSBenchmark (STS, cosine_spearman) | 99.00 | 82.00 |" in plan_push(model, "alice/sp").card


def test_models_scored_in_one_folder_are_all_found(tmp_path: Path) -> None:
    """`selfpos eval-mteb` notes the last of them only."""
    for name, content in (("one", "1" * 40), ("two", "2" * 40), ("two", "3" * 40)):
        write_result(tmp_path, f"local/{name}", "STSBenchmark", 0.5, content=content)
    write_result(tmp_path, "local/last", "STSBenchmark", 0.8)
    write_last(tmp_path, "local/last", {"STSBenchmark": ("STS", "cosine_spearman", 0.8)})
    found = read_model_scores(tmp_path)
    assert found is not None
    assert set(found.models) == {"last", "one", "two@22222222", "two@33333333"}
    assert (found.models["one"][0].model, found.models["one"][0].revision) == ("local/one", "1" * 40)


def test_a_model_scored_in_several_calls_keeps_all_scores(tmp_path: Path) -> None:
    from selfpos.scores.files import TaskScore, known_tasks
    from selfpos.scores.files import write_last as noted

    content = "1" * 40
    for task, value in (("OwnOne", 0.1), ("OwnTwo", 0.2), ("OwnThree", 0.3)):
        file = write_result(tmp_path, "local/one", task, value, content=content)
        noted(tmp_path, "local/one", content, {task: TaskScore(task, "STS", "cosine_spearman", value, file)})
    write_result(tmp_path, "local/one", "OwnOne", 0.9, content="0" * 40)  # of weights that it had before
    found = read_model_scores(tmp_path)
    assert found is not None and list(found.models) == ["one"]
    assert {result.task: result.mean for result in found.models["one"]} == {
        "OwnOne": 0.1, "OwnTwo": 0.2, "OwnThree": 0.3,
    }  # fmt: skip
    assert {task.type for task in found.tasks.values()} == {"STS"}  # of earlier calls, too
    assert set(known_tasks(tmp_path)) == {"OwnOne", "OwnTwo", "OwnThree"}


def test_tasks_of_ones_own_stay_apart_in_the_model_index(run: Path) -> None:
    for number, task in enumerate(("OwnOne", "OwnTwo")):
        write_result(run / "scores" / "sp", "quick/sp", task, 0.1 + number, revision=f"local-{number}")
    card = build_card(run / "merged" / "sp", repo="alice/sp").text
    (index,) = yaml.safe_load(card.split("---")[1])["model-index"]
    found = {entry["dataset"]["name"]: len(entry["metrics"]) for entry in index["results"]}
    assert found.keys() >= {"OwnOne", "OwnTwo", "OwnLabels"} and set(found.values()) == {1}


def test_a_score_that_is_not_a_number_is_missing(run: Path) -> None:
    write_result(run / "scores" / "sp", "quick/sp", "STSBenchmark", float("nan"))
    plan = plan_push(run / "merged" / "sp", "alice/sp")
    assert "nan" not in plan.card.lower().replace("finance", "")
    assert "| STSBenchmark (STS, cosine_spearman) |  | 82.00 | 70.00 |" in plan.card


def test_a_score_on_another_test_set_is_said_and_kept_from_leaderboards(run: Path) -> None:
    write_result(run / "scores" / "sp", "quick/sp", "STSBenchmark", 0.9, revision="local-altered-0123")
    plan = plan_push(run / "merged" / "sp", "alice/sp")
    assert "STSBenchmark (another test set: its counts are not MTEB's)" in plan.card
    assert not [file.path for file in plan.files if file.path.startswith(".eval_results")]


def test_results_that_are_not_there_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in (("gone", "gone is no folder"), ("empty", "empty holds no results of MTEB")):
        with pytest.raises(SelfposError, match=f"--results .*{message}; give the folder that"):
            plan_push(run / "merged" / "sp", "alice/sp", results=tmp_path / name)


def test_joint_rivals_of_any_name_are_beside_it_and_have_cards_of_their_own(
    run: Path, tiny_base: Path
) -> None:
    recipe = json.loads((run / "recipe.yaml").read_text())
    recipe |= {"joint": {"round-robin": {"mixture": "round-robin"}, "surgery": {"surgery": "pcgrad"}}}
    recipe["tasks"]["sts"] = {"type": "sts", "data": "corpus"}
    (run / "recipe.yaml").write_text(json.dumps(recipe))
    for name in ("surgery", "round-robin", "joint"):
        write_result(run / "scores" / name, f"quick/{name}", "STSBenchmark", 0.75)
    head = next(
        line for line in build_card(run / "merged" / "sp").text.splitlines() if line.startswith("| task |")
    )
    assert head == "| task | **sp** | base | retrieval | round-robin | surgery |"
    model = Path(shutil.copytree(tiny_base, run / "joints" / "surgery"))
    tasks = {"retrieval": {"type": "retrieval", "records": 5}, "sts": {"type": "sts", "records": 5}}
    settings = {"sts_loss": "cosent", "cached": 8, "matryoshka": [8]}
    write_manifest(
        model,
        kind="joint",
        name="surgery",
        tasks=tasks,
        settings=settings,
        mixture_settings={"surgery": "pcgrad"},
    )
    (run / "jobs").mkdir()
    (run / "jobs" / "joint.surgery.json").write_text('{"seconds": 33.0}')
    text = build_card(model).text
    assert "- training: 33 s" in text
    assert "| task | **surgery** |" in text
    assert all(
        key in text
        for key in ("yu2020gradient", "gao2021scaling", "kusupati2022matryoshka", "huang2024cosent")
    )


def test_a_task_that_got_worse_is_told_with_the_interval_of_the_difference(run: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.beta(4, 2, size=300)
    for name, values in (("base", base), ("sp", base - 0.05 + rng.normal(0, 0.02, 300))):
        (file,) = (run / "scores" / name).rglob("OwnDocsRetrieval.json")
        write_result(run / "scores" / name, f"quick/{name}", "OwnDocsRetrieval", float(values.mean()))
        write_examples(
            examples_file(file),
            [Examples("test", "default", "mean", 300, "key", {"values": values})],
            HUB_REVISION,
        )
    text = build_card(run / "merged" / "sp").text
    found = re.search(
        r"- On OwnDocsRetrieval it .* below its base: .* \(difference (.*), 95 % interval (.*) to (.*)\)\.",
        text,
    )
    assert found is not None
    value, low, high = map(float, found.groups())
    assert -5.4 < low < value < high < -4.6
    assert "- On STSBenchmark it scores below its base: 81.23 against 82.00." in text  # no examples were kept
    assert "within the noise" not in text


def test_nothing_scored_and_damaged_files(tmp_path: Path) -> None:
    assert read_model_scores(tmp_path) is None
    file = write_result(tmp_path, "m", "STSBenchmark", 0.8)
    file.write_text(file.read_text()[:-5])
    with pytest.raises(SelfposError, match=r"STSBenchmark\.json is not a result file of MTEB"):
        read_model_scores(tmp_path)


def test_the_interval_is_that_of_resampled_examples_where_they_were_kept(tmp_path: Path) -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).beta(4, 2, size=400)
    file = write_result(tmp_path, "one", "STSBenchmark", float(values.mean()))
    part = Examples("test", "default", "mean", len(values), "key", {"values": values})
    write_examples(examples_file(file), [part], HUB_REVISION)
    write_result(tmp_path, "two", "STSBenchmark", 0.5)
    found = read_model_scores(tmp_path)
    assert found is not None
    expected = bootstrap((values,), np.mean, method="percentile", rng=4).confidence_interval
    assert interval(found, "one") == pytest.approx((expected.low, expected.high), abs=0.003)
    assert interval(found, "two") is None


def test_an_interval_is_around_its_score_where_drawing_documents_twice_raises_it(tmp_path: Path) -> None:
    """The V-measure of few documents in many clusters, some of which every resample holds twice."""
    rng = np.random.default_rng(0)
    labels, clusters = rng.integers(12, size=(3, 60)), rng.integers(12, size=(3, 60))
    arrays = {"labels": labels, "clusters": clusters, "index": np.tile(np.arange(60), (3, 1))}
    part = Examples("test", "default", "v-measure", 60, "key", arrays)
    file = write_result(tmp_path, "one", "STSBenchmark", score_of(part))
    write_examples(examples_file(file), [part], HUB_REVISION)
    found = read_model_scores(tmp_path)
    assert found is not None
    value, limits = found.models["one"][0].mean, interval(found, "one")
    assert limits is not None
    # Plain percentiles would not even hold it.
    assert resamples([part], 500, seed=1).min() > value
    assert limits[0] < value < limits[1]


def test_examples_of_other_data_give_no_interval(tmp_path: Path) -> None:
    file = write_result(tmp_path, "one", "STSBenchmark", 0.5)
    part = Examples("test", "default", "mean", 4, "key", {"values": np.array([0.0, 1.0, 0.0, 1.0])})
    write_examples(examples_file(file), [part], "of last year")
    found = read_model_scores(tmp_path)
    assert found is not None
    assert interval(found, "one") is None


def test_a_parent_is_found_in_its_run_wherever_that_was_moved_to(run: Path, tiny_base: Path) -> None:
    specialist = Path(shutil.copytree(tiny_base, run / "specialists" / "retrieval"))
    manifest = json.loads((run / "merged" / "sp" / "selfpos.json").read_text(encoding="utf-8"))
    source = {"name": "retrieval", "hash": content_hash(specialist), "path": "elsewhere/retrieval"}
    manifest["merge"]["sources"] = [source]
    (run / "merged" / "sp" / "selfpos.json").write_text(json.dumps(manifest), encoding="utf-8")
    planned = plan_collection(run / "merged" / "sp", "alice/sp")
    assert list(planned.vectors) == ["retrieval"]
    assert planned.notes == ()

    manifest["merge"]["sources"] = [source | {"hash": "c" * 64}]
    (run / "merged" / "sp" / "selfpos.json").write_text(json.dumps(manifest), encoding="utf-8")
    planned = plan_collection(run / "merged" / "sp", "alice/sp")
    assert not planned.vectors
    assert "the folder of its parent retrieval is missing" in planned.notes[0]
