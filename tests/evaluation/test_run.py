from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.evaluation import TasksFailedError, evaluate, read_scores, task_identity
from selfpos.evaluation.embed import tokenise
from selfpos.evaluation.encoder import identity, load_encoder, model_name
from selfpos.scores.examples import examples_file, read_examples
from selfpos.scores.files import last_scores
from selfpos.storage.hashing import content_hash
from tests.helpers.command import CommandLine
from tests.helpers.files import write_lines

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

MakeTask = Callable[..., "AbsTask"]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a model is loaded: everything must come from results that are there."""
    monkeypatch.setattr(
        "selfpos.evaluation.wrapped.load_encoder", lambda *_: pytest.fail("a model was loaded")
    )


def test_scores_are_those_of_the_embeddings(tiny_base: Path, tmp_path: Path, sts_task: MakeTask) -> None:
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer

    task = sts_task()
    score = evaluate(tiny_base, [task], tmp_path, name="tiny")["selfpos-TestSTS"]
    task.load_data()
    data = task.dataset["test"]
    model = SentenceTransformer(str(tiny_base), device="cpu")
    one, two = (model.encode(data[column][:]).astype(np.float64) for column in ("sentence1", "sentence2"))
    cosine = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert score.main_score == pytest.approx(spearmanr(cosine, data["score"][:]).statistic, abs=1e-6)
    assert (score.type, score.metric) == ("STS", "cosine_spearman")
    in_memory = evaluate(model, [task], tmp_path / "in memory", name="tiny")["selfpos-TestSTS"]
    assert in_memory.main_score == score.main_score
    with pytest.raises(SelfposError, match="needs a name"):
        evaluate(model, [task], tmp_path / "in memory")


def test_different_models_get_different_scores_under_one_name(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, sts_task: MakeTask
) -> None:
    """mteb gives every local model one identity, and with it the first one's scores (its default result
    cache).
    """
    models = [tiny_base, *tiny_specialists]
    scores = [evaluate(model, [sts_task()], tmp_path, name="model")["selfpos-TestSTS"] for model in models]
    assert len({score.main_score for score in scores}) == len(models)
    assert len({score.file for score in scores}) == len(models)
    again = [
        evaluate(model, [sts_task()], tmp_path / "fresh", name="model")["selfpos-TestSTS"] for model in models
    ]
    assert [score.main_score for score in again] == [score.main_score for score in scores]


def test_results_are_in_mtebs_layout_and_mteb_loads_them(
    tiny_base: Path, tmp_path: Path, sts_task: MakeTask
) -> None:
    import mteb

    score = evaluate(tiny_base, [sts_task()], tmp_path, name="tiny")["selfpos-TestSTS"]
    revision = content_hash(tiny_base)[:40]
    folder = tmp_path / "results" / "local__tiny" / revision
    assert {file.name for file in folder.iterdir()} == {
        "selfpos-TestSTS.json",
        "model_meta.json",
        "run_settings.jsonl",
    }
    (loaded,) = mteb.ResultCache(tmp_path).load_results().model_results
    assert (loaded.model_name, loaded.model_revision) == ("local/tiny", revision)
    assert loaded.task_results[0].get_score() == pytest.approx(score.main_score, abs=1e-6)
    meta = json.loads((folder / "model_meta.json").read_text())
    assert (meta["max_tokens"], meta["embed_dim"], meta["similarity_fn_name"]) == (32, 16, "cosine")
    assert meta["n_parameters"] > meta["n_embedding_parameters"] > 0 and meta["memory_usage_mb"] > 0


def test_a_model_of_the_hub_is_filed_under_its_name_and_commit(
    tiny_base: Path, tmp_path: Path, sts_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb

    from selfpos.comparison import find_models

    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "models--me--model" / "snapshots" / commit
    shutil.copytree(tiny_base, snapshot)
    for name in ("me/model", f"me/model@{commit}"):
        evaluate(snapshot, [sts_task()], tmp_path / name.replace("/", "_"), name=name)
        (loaded,) = mteb.ResultCache(tmp_path / name.replace("/", "_")).load_results().model_results
        assert (loaded.model_name, loaded.model_revision) == ("me/model", commit)
    monkeypatch.setattr("selfpos.comparison.sources.locate_model", lambda name: snapshot)
    (found,) = find_models(["me/model"], tmp_path / "me_model")
    assert list(found.runs[""]) == ["selfpos-TestSTS"]


def test_finished_tasks_are_not_run_again(
    tiny_base: Path, tmp_path: Path, sts_task: MakeTask, no_model: None
) -> None:
    with pytest.raises(pytest.fail.Exception):  # not caught as a failing task
        evaluate(tiny_base, [sts_task()], tmp_path, name="tiny")


def test_resume_keeps_results_of_the_same_weights_and_data(
    tiny_base: Path, tmp_path: Path, sts_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(tiny_base, [sts_task()], tmp_path / "out", name="tiny")
    loads: list[Path] = []
    monkeypatch.setattr(
        "selfpos.evaluation.wrapped.load_encoder",
        lambda folder, *more: loads.append(folder) or load_encoder(folder, *more),
    )
    assert evaluate(tiny_base, [sts_task()], tmp_path / "out", name="tiny") == first
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    (copy / "README.md").write_text("another card does not change what is scored")
    assert evaluate(copy, [sts_task()], tmp_path / "out", name="tiny") == first
    assert loads == []
    evaluate(tiny_base, [sts_task(), sts_task("selfpos-Second", seed=1)], tmp_path / "out", name="tiny")
    assert loads == [tiny_base]


def test_other_data_is_scored_anew(tiny_base: Path, tmp_path: Path, sts_task: MakeTask) -> None:
    (first,) = evaluate(tiny_base, [sts_task()], tmp_path, name="tiny").values()
    (second,) = evaluate(tiny_base, [sts_task(revision="two", seed=1)], tmp_path, name="tiny").values()
    assert first.main_score != second.main_score
    assert json.loads(second.file.read_text())["dataset_revision"] == "two"


def test_a_damaged_result_file_is_made_anew(tiny_base: Path, tmp_path: Path, sts_task: MakeTask) -> None:
    (first,) = evaluate(tiny_base, [sts_task()], tmp_path, name="tiny").values()
    first.file.write_text(first.file.read_text()[:100])
    assert evaluate(tiny_base, [sts_task()], tmp_path, name="tiny") == {first.task: first}


def test_a_failing_task_does_not_take_the_others_down(
    tiny_base: Path,
    tmp_path: Path,
    sts_task: MakeTask,
    failing_task: AbsTask,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(TasksFailedError) as caught:
        evaluate(tiny_base, [failing_task, sts_task()], tmp_path, name="tiny")
    assert str(caught.value) == (
        "1 of 2 tasks failed on tiny: selfpos-Failing (ValueError: the data is not there); the scores of "
        f"the other 1 are in {tmp_path}"
    )
    assert caught.value.exit_code == 1
    # without a log file, warnings and errors go to the screen, which is no place for a traceback
    assert [record.exc_info for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == [
        None
    ]
    assert list(caught.value.scores) == list(read_scores(tmp_path)) == ["selfpos-TestSTS"]


def test_interruption_is_not_a_failing_task(
    tiny_base: Path, tmp_path: Path, sts_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    task = sts_task()
    monkeypatch.setattr(type(task), "load_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny_base, [task], tmp_path, name="tiny")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ValueError("out of memory")])
def test_a_task_that_is_stopped_goes_on_after_the_subsets_that_are_done(
    stop: BaseException, tiny_base: Path, tmp_path: Path, sts_task: MakeTask
) -> None:
    from mteb.abstasks import AbsTaskSTS

    from selfpos.evaluation.tasks import with_data

    one, two = (sts_task(seed=seed) for seed in (0, 1))
    for part in (one, two):
        part.load_data()
    data = {"one": one.dataset, "two": two.dataset}
    languages = {subset: ["eng-Latn"] for subset in data}
    metadata = one.metadata.model_copy(update={"eval_langs": languages})

    def stopping_at(stopped: str, fault: BaseException) -> AbsTask:
        def evaluated(self: AbsTask, *given: Any, hf_subset: str, **more: Any) -> Any:
            if hf_subset == stopped:
                raise fault
            return AbsTaskSTS._evaluate_subset(self, *given, hf_subset=hf_subset, **more)

        return with_data(AbsTaskSTS, metadata, lambda: data, transforms=False, _evaluate_subset=evaluated)

    with pytest.raises((KeyboardInterrupt, TasksFailedError)):
        evaluate(tiny_base, [stopping_at("two", stop)], tmp_path / "out", name="tiny")
    again = stopping_at("one", ValueError("the first subset is run again"))
    (score,) = evaluate(tiny_base, [again], tmp_path / "out", name="tiny").values()
    (whole,) = evaluate(tiny_base, [stopping_at("", stop)], tmp_path / "whole", name="tiny").values()
    assert score.main_score == whole.main_score
    parts, expected = (
        {part.subset: part.arrays["scores"] for part in read_examples(examples_file(file), "one")}
        for file in (score.file, whole.file)
    )
    assert parts.keys() == expected.keys() == {"one", "two"}
    assert all((parts[subset] == expected[subset]).all() for subset in parts)


def test_a_task_draws_the_same_samples_for_every_model(
    tiny_base: Path, tmp_path: Path, made_up_corpus: object
) -> None:
    from selfpos.evaluation.corpus_tasks import corpus_tasks

    (task,) = (task for task in corpus_tasks(made_up_corpus) if task.metadata.type == "Clustering")  # type: ignore[arg-type]
    scores = [
        evaluate(tiny_base, [task], tmp_path / str(turn), name="tiny")[task.metadata.name].main_score
        for turn in range(2)
    ]
    assert scores[0] == scores[1]


def test_the_scores_read_are_of_the_model_scored_last(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, sts_task: MakeTask
) -> None:
    evaluate(tiny_base, [sts_task()], tmp_path, name="tiny")
    last = evaluate(tiny_specialists[0], [sts_task()], tmp_path, name="tiny")
    assert read_scores(tmp_path) == last
    (tmp_path / "last.json").write_text("{")
    with pytest.raises(SelfposError, match=r"last.json is damaged"):
        read_scores(tmp_path)
    with pytest.raises(SelfposError, match="there are no scores in"):
        read_scores(tmp_path / "nothing")


def test_prompts_come_from_the_model_and_each_text_is_embedded_once(
    tiny_base: Path, made_up_corpus: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset
    from mteb.types import PromptType
    from sentence_transformers import SentenceTransformer
    from torch.utils.data import DataLoader

    from selfpos.evaluation.corpus_tasks import corpus_tasks

    encoder = load_encoder(tiny_base, identity(tiny_base, "tiny"))
    plain = SentenceTransformer(str(tiny_base), device="cpu")
    embedded: list[str] = []
    monkeypatch.setattr(
        "selfpos.evaluation.encoder.tokenise",
        lambda model, texts, *more: (embedded.extend(texts), tokenise(model, texts, *more))[1],
    )
    metadata = corpus_tasks(made_up_corpus)[0].metadata  # type: ignore[arg-type]
    texts = ["abc def", "ghi", "abc def"]
    loader = DataLoader(Dataset.from_dict({"text": texts}), batch_size=2)
    for kind, prompt in ((PromptType.query, "query: "), (PromptType.document, ""), (None, "")):
        found = encoder.encode(
            loader,
            task_metadata=metadata,
            hf_split="test",
            hf_subset="default",
            prompt_type=kind,
            show_progress_bar=False,
        )
        assert np.allclose(np.asarray(found), plain.encode(texts, prompt=prompt), atol=1e-6)
    assert (
        embedded == ["abc def", "ghi"] * 2
    )  # once for each prompt: the document's is empty, as there is none for either side
    encoder.encode(
        loader, task_metadata=metadata, hf_split="test", hf_subset="default", prompt_type=PromptType.query
    )
    assert len(embedded) == 4


def test_names() -> None:
    assert model_name("sentence-transformers/all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    assert model_name("all-MiniLM-L6-v2") == "local/all-MiniLM-L6-v2"
    assert model_name("/some/where/my model") == "local/my-model"
    assert model_name("./here") == "local/here"


def test_what_is_no_model_and_no_tasks(tmp_path: Path, tiny_base: Path, sts_task: MakeTask) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SelfposError, match="is no sentence-transformers model"):
        evaluate(tmp_path / "empty", [sts_task()], tmp_path / "out", name="x")
    with pytest.raises(SelfposError, match="there are no tasks"):
        evaluate(tiny_base, [], tmp_path / "out", name="x")
    assert not (tmp_path / "out").exists()


def test_identity_of_a_task(sts_task: MakeTask) -> None:
    assert task_identity(sts_task()) == {
        "task": "selfpos-TestSTS",
        "revision": "one",
        "splits": ["test"],
        "subsets": ["default"],
    }


def test_a_file_is_no_place_for_results(tiny_base: Path, tmp_path: Path, sts_task: MakeTask) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for out, message in (("file", "is a file; expected a folder"), ("file/below", "file is a file, so that")):
        with pytest.raises(SelfposError, match=message):
            evaluate(tiny_base, [sts_task()], tmp_path / out, name="tiny")


def declared_sts(folder: Path) -> str:
    """Declare an STS task of six pairs in `folder`."""
    rows = [{"sentence1": f"a {c}", "sentence2": f"{c}{c} b", "score": n % 4} for n, c in enumerate("uvwxyz")]
    write_lines(folder / "Mine.jsonl", rows)
    (folder / "Mine.yaml").write_text("name: Mine\ntype: sts\nfiles: {test: Mine.jsonl}\n")
    return str(folder / "Mine.yaml")


def test_several_models_are_scored_and_compared(
    tmp_path: Path, selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    task, models = declared_sts(tmp_path), [str(tiny_base), str(tiny_specialists[0])]
    done = selfpos("eval-mteb", *models, "--tasks", task, "--out", str(tmp_path / "all"))
    assert done.returncode == 0
    scores = [score.main_score for score in last_scores(tmp_path / "all")]
    row = next(line for line in done.stdout.splitlines() if "│ Mine " in line)
    assert f"{100 * scores[-1]:.2f} │" in row and row.count("│") == 6
    assert selfpos("eval-mteb", *models, "--tasks", task, "--name", "x").returncode == 2
    for model, name in zip(models, ("base", "tuned"), strict=True):  # a folder for each model
        selfpos("eval-mteb", model, "--tasks", task, "--out", str(tmp_path / "each" / name))
    tables = [selfpos("compare", str(tmp_path / folder)).stdout for folder in ("all", "each")]
    assert tables[0] and sorted(tables[0].splitlines()) == sorted(tables[1].splitlines())


def test_a_model_that_fails_leaves_the_scores_of_the_others_in_the_table(
    tmp_path: Path, selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    task = ("--tasks", declared_sts(tmp_path), "--out", tmp_path / "out")
    broken, empty = tmp_path / "broken", tmp_path / "empty"
    shutil.copytree(tiny_base, broken)
    (broken / "model.safetensors").write_bytes(b"torn")
    empty.mkdir()
    refused = selfpos("eval-mteb", tiny_base, empty, *task)
    assert refused.returncode == 2 and str(empty) in refused.stderr
    assert not (tmp_path / "out" / "results").exists()  # refused before the first was scored
    done = selfpos("eval-mteb", tiny_base, broken, tiny_specialists[0], *task)
    assert done.returncode == 2 and "does not load" in done.stderr, done.stderr
    of_base, of_tuned = (
        json.loads(next((tmp_path / "out").glob(f"results/local__{name}/*/Mine.json")).read_text())
        for name in ("base", tiny_specialists[0].name)
    )
    shown = [f"{100 * found['scores']['test'][0]['main_score']:.2f}" for found in (of_base, of_tuned)]
    row = next(line for line in done.stdout.splitlines() if "│ Mine " in line)
    assert [cell.strip() for cell in row.split("│")[4:-1]] == [shown[0], "–", shown[1]]


def test_what_decides_the_scores_of_one_of_several_models_is_told_below_its_name(
    tmp_path: Path, selfpos: CommandLine, tiny_base: Path
) -> None:
    other, config = tmp_path / "other", tmp_path / "other" / "config_sentence_transformers.json"
    shutil.copytree(tiny_base, other)
    found = json.loads(config.read_text())
    config.write_text(json.dumps(found | {"prompts": {"query": "asked: ", "document": ""}}))
    task = ("--tasks", declared_sts(tmp_path), "--out", tmp_path / "out")
    lines = selfpos("eval-mteb", tiny_base, other, *task).stderr.splitlines()
    told = lines[lines.index(f"{other}:") :]
    assert lines.count(f"{tiny_base}:") == 1 and f"{tiny_base}:" not in told
    assert "asked: " in told[1] and not any("query: '" in line for line in told[2:])


def test_a_score_that_is_not_a_number_is_told_and_counts_as_missing(
    tmp_path: Path, selfpos: CommandLine, tiny_base: Path
) -> None:
    for name, letters in (("Same", "uuuuuu"), ("Mixed", "uvwxyz")):  # of equal texts, or different ones
        rows = [
            {"sentence1": f"a {c}", "sentence2": f"{c}{c} b", "score": n % 4} for n, c in enumerate(letters)
        ]
        write_lines(tmp_path / f"{name}.jsonl", rows)
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\ntype: sts\nfiles: {{test: {name}.jsonl}}\n")
    files, out = [str(tmp_path / f"{name}.yaml") for name in ("Same", "Mixed")], str(tmp_path / "scores")
    for _ in range(2):  # computed, then kept
        done = selfpos("eval-mteb", str(tiny_base), "--tasks", *files, "--out", out)
        assert done.returncode == 1 and f"Same of {tiny_base}: mteb computed no score (NaN)" in done.stderr
    assert list(read_scores(tmp_path / "scores")) == ["Mixed"]
    compared = selfpos("compare", out, "--out", str(tmp_path / "table.json"))
    assert compared.returncode == 0 and "Mixed" in compared.stdout and "Same" not in compared.stdout
    assert "NaN" not in (tmp_path / "table.json").read_text()
    alone = selfpos("eval-mteb", str(tiny_base), "--tasks", files[0], "--out", str(tmp_path / "alone"))
    assert alone.returncode == 1
    compared = selfpos("compare", str(tmp_path / "alone"))
    assert compared.returncode == 2 and "with a number for a score" in compared.stderr
