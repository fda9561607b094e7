"""Rerankers, sparse and multi-vector models score what mteb alone gives them, or are refused; none is loaded
as a model that embeds texts.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.evaluation import evaluate, select_tasks
from selfpos.evaluation.tasks import new_task, retrieval_data
from selfpos.storage.model_class import check_embeds, class_of
from tests.helpers.adapters import edit_json
from tests.helpers.command import CommandLine
from tests.helpers.families import KINDS, plain_bert
from tests.helpers.files import write_lines
from tests.helpers.models import make_specialist
from tests.helpers.own_tasks import declare


def words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices("abcdefghijklmnop", k=count))


def reranking(folder: Path) -> str:
    draw = random.Random(0)
    rows = [
        {
            "query": words(draw, 3),
            "positive": [words(draw, 5) for _ in range(1 + n % 2)],
            "negative": [words(draw, 5) for _ in range(4)],
        }
        for n in range(16)
    ]
    write_lines(folder / "rerank.jsonl", rows)
    return declare(folder, name="Mine", type="reranking", files={"test": "rerank.jsonl"})


def sts(folder: Path) -> str:
    draw = random.Random(2)
    rows = [{"sentence1": words(draw, 4), "sentence2": words(draw, 4), "score": n % 5} for n in range(30)]
    write_lines(folder / "sts.jsonl", rows)
    (folder / "sts").mkdir(exist_ok=True)
    return declare(folder / "sts", name="Pairs", type="sts", files={"test": "../sts.jsonl"})


def retrieval(*, candidates: bool) -> Any:
    draw = random.Random(1)
    documents = {f"d{n}": {"text": words(draw, 6)} for n in range(20)}
    queries = {f"q{n}": words(draw, 3) for n in range(8)}
    relevant = {f"q{n}": {f"d{n}": 1} for n in range(8)}
    pools = {f"q{n}": [f"d{n + k}" for k in range(6)] for n in range(8)} if candidates else None
    data = {"default": {"test": retrieval_data(documents, queries, relevant, pools=pools)}}
    return new_task("retrieval", "Own", "Random.", lambda: data, revision="one", source="selfpos/test")


def by_mteb_alone(folder: Path, kind: str, task: Any) -> float:
    import mteb
    import sentence_transformers

    model = getattr(sentence_transformers, kind)(str(folder), device="cpu")
    made = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    return float(made.task_results[0].get_score())


def base_of(kind: str, place: Path) -> Path:
    import mteb.models

    if kind == "MultiVectorEncoder" and not hasattr(mteb.models, "MultiVectorWrapper"):
        pytest.skip("this mteb has no wrapper for such models")
    return KINDS[kind](place)


@pytest.mark.parametrize("kind", list(KINDS))
def test_scores_are_those_of_mteb_alone_and_compare_reads_them(
    kind: str, tmp_path: Path, selfpos: CommandLine
) -> None:
    base, task, out = base_of(kind, tmp_path), reranking(tmp_path), tmp_path / "out"
    tuned = make_specialist(base, tmp_path / "tuned", seed=1, size=0.2)
    done = selfpos("eval-mteb", base, tuned, "--tasks", task, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"{kind}, by mteb's" in done.stderr
    for folder in (base, tuned):
        (alone,) = select_tasks([task])
        (file,) = out.glob(f"results/local__{folder.name}/*/Mine.json")
        found = json.loads(file.read_text())["scores"]["test"][0]["main_score"]
        assert found == pytest.approx(by_mteb_alone(folder, kind, alone), abs=1e-5)
        meta = json.loads((file.parent / "model_meta.json").read_text())
        assert meta["loader"].endswith("Wrapper") and meta["model_type"] != ["dense"]
    again = selfpos("eval-mteb", base, tuned, "--tasks", task, "--out", out)
    assert again.returncode == 0 and "by mteb's" not in again.stderr  # kept: nothing is loaded
    compared = selfpos("compare", base, tuned, "--scores", out)
    assert compared.returncode == 0 and "Mine" in compared.stdout, compared.stderr


def test_a_plain_cross_encoder_is_one(tmp_path: Path, selfpos: CommandLine) -> None:
    plain = plain_bert(tmp_path / "plain", "BertForSequenceClassification", num_labels=1)
    task = reranking(tmp_path)
    done = selfpos("eval-mteb", plain, "--tasks", task, "--out", tmp_path / "out")
    assert done.returncode == 0 and "CrossEncoder, by mteb's" in done.stderr, done.stderr
    (alone,) = select_tasks([task])
    found = evaluate(plain, select_tasks([task]), tmp_path / "out", name=str(plain))
    assert found["Mine"].main_score == pytest.approx(by_mteb_alone(plain, "CrossEncoder", alone), abs=1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_retrieval(kind: str, tmp_path: Path) -> None:
    base = base_of(kind, tmp_path)
    refused = {
        ("CrossEncoder", False): "orders the candidates of each question",
        ("SparseEncoder", True): "mteb does not order candidates of a retrieval task by sparse embeddings",
    }
    for candidates in (True, False):
        if reason := refused.get((kind, candidates)):
            with pytest.raises(SelfposError, match=reason):
                evaluate(base, [retrieval(candidates=candidates)], tmp_path / "none")
            continue
        found = evaluate(base, [retrieval(candidates=candidates)], tmp_path / f"out-{candidates}")
        alone = by_mteb_alone(base, kind, retrieval(candidates=candidates))
        assert found["Own"].main_score == pytest.approx(alone, abs=1e-5)


def test_other_tasks_are_refused_before_any_is_run(tmp_path: Path, selfpos: CommandLine) -> None:
    task, out = reranking(tmp_path), tmp_path / "out"
    for kind, where in (("CrossEncoder", "reranking"), ("MultiVectorEncoder", "retrieval and reranking")):
        base = KINDS[kind](tmp_path / kind)
        done = selfpos("eval-mteb", base, "--tasks", task, sts(tmp_path), "--out", out)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"is a {kind}, which mteb scores on {where} tasks only, not on Pairs (STS)" in done.stderr
    assert not out.exists()


def test_sparse_models_are_scored_on_every_type(tmp_path: Path) -> None:
    base, task = KINDS["SparseEncoder"](tmp_path), sts(tmp_path)
    found = evaluate(base, select_tasks([task]), tmp_path / "out")["Pairs"].main_score
    assert found == pytest.approx(by_mteb_alone(base, "SparseEncoder", *select_tasks([task])), abs=1e-5)


def test_rerankers_that_cannot_rerank_are_refused(tmp_path: Path, selfpos: CommandLine) -> None:
    task = reranking(tmp_path)
    classes = plain_bert(tmp_path / "classes", "BertForSequenceClassification", num_labels=3)
    damaged = KINDS["CrossEncoder"](tmp_path)
    tensors = load_file(damaged / "model.safetensors")
    tensors["classifier.bias"][:] = float("nan")
    save_file(tensors, damaged / "model.safetensors", {"format": "pt"})
    unknown = shutil.copytree(KINDS["SparseEncoder"](tmp_path / "sparse"), tmp_path / "unknown")
    edit_json(unknown / "config_sentence_transformers.json", model_type="Oracle")
    for folder, reason in (
        (classes, "gives 3 numbers for a pair of texts"),
        (damaged, "gives scores that are not finite"),
        (unknown, "is a Oracle, which mteb has no wrapper for"),
    ):
        done = selfpos("eval-mteb", folder, "--tasks", task, "--out", tmp_path / "out")
        assert done.returncode == 2 and reason in done.stderr, done.stderr


def test_results_of_another_class_are_computed_again(tmp_path: Path, selfpos: CommandLine) -> None:
    base, task, out = KINDS["CrossEncoder"](tmp_path), reranking(tmp_path), tmp_path / "out"
    score = ["eval-mteb", base, "--tasks", task, "--out", out]
    assert selfpos(*score).returncode == 0
    (file,) = out.glob("results/*/*/Mine.json")
    right = file.read_text()
    file.write_text(right.replace('"main_score": 0.', '"main_score": 0.9'))
    edit_json(file.parent / "model_meta.json", loader="SentenceTransformerEncoderWrapper")
    done = selfpos(*score)
    assert done.returncode == 0 and "computed again" in done.stderr
    scores = [json.loads(text)["scores"] for text in (right, file.read_text())]
    assert scores[0] == scores[1]


def test_the_class_of_a_folder(tmp_path: Path) -> None:
    for kind, make in KINDS.items():
        base = make(tmp_path / kind)
        assert class_of(base) == kind
        (base / "config_sentence_transformers.json").unlink()
        assert class_of(base) == kind  # by its modules
        with pytest.raises(SelfposError, match=f"is a {kind}: such models"):
            check_embeds(base)
    late = tmp_path / "MultiVectorEncoder" / "base"
    (late / "config_sentence_transformers.json").write_text('{"model_type": "ColBERT"}')
    assert class_of(late) == "MultiVectorEncoder"
    stanford = plain_bert(tmp_path / "stanford")
    assert class_of(stanford) == "SentenceTransformer"
    edit_json(stanford / "config.json", architectures=["HF_ColBERT"])
    assert class_of(stanford) == "MultiVectorEncoder"
