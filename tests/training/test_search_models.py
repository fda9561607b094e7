"""SPLADE and ColBERT: specialists that learn which text answers a question, merged and loaded as such."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfpos import operations
from selfpos.errors import SelfposError
from selfpos.recipe import TaskSource, TrainingSettings, ValidationSettings
from selfpos.storage.manifest import read_manifest
from selfpos.tasks.measure import SearchMeasure, Texts
from selfpos.training.validation import score
from tests.helpers.adapters import edit_json, state
from tests.helpers.command import CommandLine
from tests.helpers.families import colbert, plain_bert, splade
from tests.helpers.search_models import KINDS, each_kind, load_encoder, write_pairs
from tests.helpers.threads import one_thread
from tests.helpers.trainings import assert_resumes_to_the_same_bytes

__all__ = ["one_thread"]

WARM = "import selfpos.positioning.position, selfpos.training.trainer"
TASK = ["finetune", "--task", "retrieval"]
QUICK = ["--steps", 4, "--batch-size", 8, "--learning-rate", "1e-3", "--probe", 4]
MODEL_TYPES = {"SparseEncoder": "sparse-encoder", "MultiVectorEncoder": "multi-vector-encoder"}
LOSSES = {
    "SparseEncoder": "SpladeLoss(SparseMultipleNegativesRankingLoss)",
    "MultiVectorEncoder": "MultiVectorMultipleNegativesRankingLoss",
}


@pytest.fixture(scope="module", autouse=True)
def warm(selfpos: CommandLine) -> None:
    """Import what trains at set-up: it takes seconds of CPU, which the first test would be charged for."""
    from selfpos.training.trainer import TRAINERS  # noqa: F401

    selfpos.python(WARM)


@pytest.mark.slow
@each_kind
def test_specialists_are_trained_merged_and_loaded(kind: str, tmp_path: Path, selfpos: CommandLine) -> None:
    base, data = KINDS[kind](tmp_path), write_pairs(tmp_path / "pairs.jsonl")
    for name, seed in (("one", 1), ("two", 2)):
        done = selfpos(
            *TASK, "--data", data, "--base", base, "--out", tmp_path / name, *QUICK, "--seed", seed
        )
        assert done.returncode == 0, done.stderr
        manifest: Any = read_manifest(tmp_path / name)
        assert manifest["losses"] == {"retrieval": LOSSES[kind]} and manifest["tokens"] > 32 * 8
        assert manifest["samples"] == 32 and manifest["finetune"]["probe"] == 4
        assert manifest["settings"]["temperature"] == 1
        assert manifest["tasks"]["retrieval"]["prompts"] == {"anchor": "ask "}  # the base's
        files = {str(file.relative_to(base)) for file in base.rglob("*") if file.is_file()} - {"README.md"}
        written = {file for file in (tmp_path / name).rglob("*") if file.is_file()}
        assert {str(file.relative_to(tmp_path / name)) for file in written} == files | {"selfpos.json"}
        changed = {f for f in files if (tmp_path / name / f).read_bytes() != (base / f).read_bytes()}
        assert changed == {file for file in files if file.endswith(".safetensors")}
    one, two, start = (state(tmp_path / name) for name in ("one", "two", "base"))
    for method in ("average", "ties"):
        merge = ["merge", "--base", base, "--vectors", tmp_path / "one", tmp_path / "two", "--method", method]
        done = selfpos(*merge, "--out", tmp_path / method)
        assert done.returncode == 0, done.stderr
        vectors = load_encoder(tmp_path / method, kind).encode_document(["a b", "m n o"])
        assert all(torch.isfinite(vector.to_dense()).all() for vector in vectors)
    for key, value in state(tmp_path / "average").items():
        np.testing.assert_allclose(value, (one[key] + two[key]) / 2, atol=1e-6, err_msg=key)
    still = {key for key in start if (start[key] == one[key]).all()}
    assert still <= {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        *(k for k in start if "pooler" in k),
    }


@each_kind
def test_it_learns_to_find_and_keeps_its_best_state(kind: str, tmp_path: Path) -> None:
    base, out = KINDS[kind](tmp_path), tmp_path / "out"
    source = TaskSource(type="retrieval", data=str(write_pairs(tmp_path / "pairs.jsonl", 80)))
    settings = TrainingSettings(
        steps=45,
        batch_size=16,
        learning_rate=1e-2,
        temperature=0.1,
        max_length=12,
        validation=ValidationSettings(share=0.2, every=15),
    )
    options: Any = {"model_type": MODEL_TYPES[kind], "probe": 0, "say": lambda _: None}
    result = operations.finetune(base, source, out, settings, **options)
    assert result.losses[-1][1] < 0.7 * result.losses[0][1]
    history: Any = read_manifest(out)["validation"]
    assert [entry["step"] for entry in history["history"]] == [15, 30, 45]
    model, start = load_encoder(out, kind), load_encoder(base, kind)
    assert model.max_seq_length == start.max_seq_length == 40
    rows = [
        json.loads(line) for line in write_pairs(tmp_path / "new.jsonl", 30, seed=7).read_text().splitlines()
    ]
    columns = [["ask " + row["query"] for row in rows], [row["answer"] for row in rows]]
    measure = SearchMeasure(Texts(columns, None))
    assert max(entry["mean"] for entry in history["history"]) > 0.5
    assert score(measure, model) > 0.3 > 0.2 > score(measure, start)


def test_the_measure_is_ndcg_of_the_models_own_similarity() -> None:
    measure = SearchMeasure(Texts([["p", "q", "r"], ["1", "2", "1"], ["3", "3", "4"]], None))
    assert measure.texts == ["1", "2", "3", "4"]
    similarities = torch.tensor([[9.0, 1, 1, 1], [5, 3, 4, 1], [0, 1, 2, 3]])
    assert measure.items(similarities)["gains"].tolist() == pytest.approx([1, 1 / 2, 1 / np.log2(5)])
    assert measure.score(similarities) == pytest.approx((1 + 1 / 2 + 1 / np.log2(5)) / 3)


@each_kind
@pytest.mark.parametrize(("asked", "temperature"), [({}, None), ({"query": "q "}, 0.5), ("x ", None)])
def test_the_loss_is_the_librarys_on_the_prompts_of_each_side(
    kind: str, asked: Any, temperature: float | None, tmp_path: Path
) -> None:
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    base, data = KINDS[kind](tmp_path, **still), write_pairs(tmp_path / "pairs.jsonl", 12)
    edit_json(base / "config_sentence_transformers.json", prompts={"query": "ask ", "document": "y z "})
    source = TaskSource(type="retrieval", data=str(data), prompts=asked)
    given = {} if temperature is None else {"temperature": temperature}
    settings = TrainingSettings(steps=1, batch_size=12, learning_rate=1e-5, **given)
    result = operations.finetune(base, source, tmp_path / "out", settings, probe=0, say=lambda _: None)
    before = {"query": "ask ", "document": "y z "}
    before |= dict.fromkeys(before, asked) if isinstance(asked, str) else asked
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    model = load_encoder(base, kind)
    questions = model.encode_query([row["query"] for row in rows], prompt=before["query"])
    answers = model.encode_document([row["answer"] for row in rows], prompt=before["document"])
    logits = model.similarity(questions, answers).double() / (temperature or 1)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(len(rows))).item()
    assert result.losses[0][1] == pytest.approx(expected, abs=1e-4)  # penalties rise from 0 at the first step
    kept = load_encoder(tmp_path / "out", kind).prompts
    assert {side: kept[side] for side in before} == before


@each_kind
def test_an_interrupted_training_goes_on_to_the_same_bytes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = KINDS[kind](tmp_path)
    source = TaskSource(type="retrieval", data=str(write_pairs(tmp_path / "pairs.jsonl")))
    assert_resumes_to_the_same_bytes(base, source, tmp_path, monkeypatch, probe=4)


@each_kind
def test_an_adapter_is_trained_and_merged(kind: str, tmp_path: Path, selfpos: CommandLine) -> None:
    base, data = KINDS[kind](tmp_path), write_pairs(tmp_path / "pairs.jsonl")
    out, merged = tmp_path / "out", tmp_path / "merged"
    done = selfpos(*TASK, "--data", data, "--base", base, "--out", out, *QUICK, "--lora", 4)
    assert done.returncode == 0, done.stderr
    assert (out / "adapter_config.json").is_file()
    done = selfpos("merge", "--base", base, "--vectors", out, "--method", "average", "--out", merged)
    assert done.returncode == 0, done.stderr
    before, one, same = (
        load_encoder(folder, kind).encode_query(["a b c"])[0].to_dense() for folder in (base, out, merged)
    )
    np.testing.assert_allclose(one, same, atol=1e-5)
    assert not np.allclose(before, one, atol=1e-5)


def test_what_cannot_be_is_refused_before_it_is_trained(tmp_path: Path, selfpos: CommandLine) -> None:
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    data = write_pairs(tmp_path / "pairs.jsonl")
    sparse, multi, plain = (
        make(tmp_path / name) for name, make in (("s", splade), ("m", colbert), ("p", plain_bert))
    )
    modules = [Transformer(str(plain)), Pooling(16), SparseAutoEncoder(16, 32, 4)]
    SparseEncoder(modules=modules, device="cpu").save_pretrained(str(tmp_path / "csr"))
    pylate = shutil.copytree(multi, tmp_path / "pylate")
    first_two = json.loads((multi / "modules.json").read_text())[:2]
    (pylate / "modules.json").write_text(json.dumps(first_two))
    edit_json(pylate / "config_sentence_transformers.json", model_type="ColBERT")
    cases: list[tuple[Path, list[Any], str]] = [
        (pylate, [], "is a MultiVectorEncoder of Transformer, Dense; it is in an older layout"),
        (sparse, ["--task", "reranking"], "from data for --task retrieval; task type reranking is for other"),
        (multi, ["--task", "sts"], "a multi-vector encoder learns which text answers a question"),
        (
            sparse,
            ["--model-type", "multi-vector-encoder"],
            "is a SparseEncoder, not the multi-vector-encoder",
        ),
        (multi, ["--model-type", "sentence-transformer"], "is a MultiVectorEncoder, not the sentence-tr"),
        (plain, ["--model-type", "multi-vector-encoder"], "without the projection of a multi-vector encoder"),
        (plain, ["--model-type", "sparse-encoder"], "without a SPLADE head"),
        (tmp_path / "csr", [], "SparseAutoEncoder; of sparse encoders only SPLADE"),
        (sparse, ["--mine", 1], "a SparseEncoder mines no negatives"),
        (
            multi,
            ["--matryoshka", 8],
            "matryoshka is for losses of embeddings; a multi-vector encoder learns by",
        ),
        (
            sparse,
            ["--cached", 4],
            "cached is for losses of embeddings; a sparse encoder learns by the SPLADE",
        ),
        (multi, ["--max-length", 99], "is above the limit"),
    ]
    for number, (base, more, reason) in enumerate(cases):
        dry = ["--dry-run"] if number % 2 else []
        done = selfpos(*TASK, "--data", data, "--base", base, "--out", tmp_path / "x", *more, *dry)
        assert done.returncode == 2 and reason in done.stderr, (more, done.stderr)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("x")]


def test_a_dry_run_says_what_would_be_and_runs_are_refused(tmp_path: Path, selfpos: CommandLine) -> None:
    base, data = splade(tmp_path), write_pairs(tmp_path / "pairs.jsonl")
    done = selfpos(*TASK, "--data", data, "--base", base, "--out", tmp_path / "x", "--dry-run")
    assert done.returncode == 0 and "the base is a SparseEncoder, and so will" in done.stdout, done.stderr
    recipe = {
        "name": "r",
        "base": str(base),
        "tasks": {"t": {"type": "retrieval", "data": str(data)}},
        "merges": {"a": {"method": "average"}},
        "evaluation": {"tasks": ["STSBenchmark"]},
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    done = selfpos("run", tmp_path / "r.yaml", "--out", tmp_path / "x", "--dry-run")
    assert done.returncode == 2 and "is a SparseEncoder: such models are trained by" in done.stderr, (
        done.stderr
    )
    assert not (tmp_path / "x").exists()


def test_a_question_is_no_longer_than_its_side(tmp_path: Path) -> None:
    from selfpos.training.trainer import make_collator

    model = load_encoder(colbert(tmp_path), "MultiVectorEncoder")
    model[0].query_length = 5
    record = {"anchor": "a b c d e f g h", "positive": "a b c d e f g h i j k l m n o p"}
    for asked, lengths in ((None, (5, 18)), (10, (5, 10)), (4, (4, 4))):
        batch = make_collator("MultiVectorEncoder", model, {}, 40, asked)([record])
        assert tuple(batch[f"{side}_input_ids"].shape[1] for side in record) == lengths
        assert (batch["anchor_task"], batch["positive_task"]) == ("query", "document")


def test_data_that_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    base = colbert(tmp_path)
    source = TaskSource(type="retrieval", data=str(write_pairs(tmp_path / "pairs.jsonl", 6)))
    settings = TrainingSettings(steps=1, batch_size=32)
    with pytest.raises(SelfposError, match="no full batch of 32"):
        operations.finetune(base, source, tmp_path / "out", settings, probe=0, say=lambda _: None)
