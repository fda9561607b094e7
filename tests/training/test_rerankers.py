"""Cross-encoders: specialists from pairs that are right or wrong, or graded, merged and loaded as such."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from selfpos import operations
from selfpos.errors import SelfposError
from selfpos.recipe import TaskSource, TrainingSettings
from selfpos.storage.manifest import read_manifest
from selfpos.tasks.measure import PairMeasure
from selfpos.tasks.types.candidates import CandidatePairs
from selfpos.training.validation import score
from tests.helpers.adapters import edit_json, state
from tests.helpers.command import ROOT, TWO_PROCESSES, CommandLine
from tests.helpers.families import plain_bert, splade
from tests.helpers.files import write_lines
from tests.helpers.models import make_specialist
from tests.helpers.rerankers import default_prompt_of, random_texts, reranker, write_candidates
from tests.helpers.threads import one_thread
from tests.helpers.trainings import assert_resumes_to_the_same_bytes

__all__ = ["one_thread"]

WARM = "import selfpos.positioning.position, selfpos.training.trainer"
TASK = ["finetune", "--task", "reranking"]
QUICK = ["--steps", 4, "--batch-size", 8, "--learning-rate", "1e-3"]


@pytest.fixture(scope="module", autouse=True)
def warm(selfpos: CommandLine) -> None:
    """Import what trains at set-up: it takes seconds of CPU, which the first test would be charged for."""
    from selfpos.training.trainer import PairTrainer  # noqa: F401

    selfpos.python(WARM)


def lists(file: Path, count: int = 24) -> Path:
    """Questions whose right candidates begin with an a, and wrong ones with a b."""
    draw = random.Random(0)
    rows = [
        {
            "query": question,
            "positive": [f"a {text}" for text in random_texts(draw, 1 + n % 2)],
            "negative": [f"b {text}" for text in random_texts(draw, 3)],
        }
        for n, question in enumerate(random_texts(draw, count))
    ]
    write_lines(file, rows)
    return file


def losses_by_hand(base: Path, pairs: Dataset) -> float:
    """Mean binary cross-entropy of the model's logits, in float64."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(base), device="cpu")
    texts = list(zip(pairs["query"], pairs["candidate"], strict=True))
    logits = model.predict(texts, activation_fn=torch.nn.Identity()).astype(np.float64)
    right = np.array(pairs["label"])
    return float(np.mean(np.log1p(np.exp(logits)) - right * logits))


@pytest.mark.slow
def test_specialists_are_trained_merged_and_loaded(tmp_path: Path, selfpos: CommandLine) -> None:
    from sentence_transformers import CrossEncoder

    base = reranker(tmp_path)
    binary = lists(tmp_path / "lists.jsonl")
    graded = write_candidates(tmp_path / "graded.jsonl", [0.9, 0.1, 0.6, 0.0])
    for name, data in (("one", binary), ("two", graded)):
        done = selfpos(*TASK, "--data", data, "--base", base, "--out", tmp_path / name, *QUICK)
        assert done.returncode == 0, done.stderr
        manifest = read_manifest(tmp_path / name)
        assert manifest["losses"] == {"reranking": "BinaryCrossEntropyLoss"} and manifest["tokens"] > 32 * 4
        assert manifest["samples"] == 32 and manifest["finetune"]["probe"] == (6 if name == "one" else 5)
        files = {file.name for file in base.iterdir()} - {"README.md"}
        assert {file.name for file in (tmp_path / name).iterdir()} == files | {"selfpos.json"}
        changed = {f for f in files if (tmp_path / name / f).read_bytes() != (base / f).read_bytes()}
        assert changed == {"model.safetensors"}
    done = selfpos(
        *("merge", "--base", base, "--vectors", tmp_path / "one", tmp_path / "two"),
        *("--method", "average", "--out", tmp_path / "merged"),
    )
    assert done.returncode == 0, done.stderr
    one, two, merged = (state(tmp_path / name) for name in ("one", "two", "merged"))
    for key, value in merged.items():
        np.testing.assert_allclose(value, (one[key] + two[key]) / 2, atol=1e-6, err_msg=key)
    assert any((one[key] != two[key]).any() for key in one if "classifier" in key)
    scores = CrossEncoder(str(tmp_path / "merged"), device="cpu").predict([("d e", "a f"), ("d e", "b f")])
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_a_reranker_learns_to_rank_and_keeps_its_best_state(tmp_path: Path, selfpos: CommandLine) -> None:
    from sentence_transformers import CrossEncoder

    base, data = reranker(tmp_path), lists(tmp_path / "lists.jsonl", 60)
    out = tmp_path / "out"
    options = ["--steps", 60, "--batch-size", 16, "--learning-rate", "3e-3", "--max-length", 12]
    measured = ["--validate", "0.2", "--validate-every", 20, "--model-type", "cross-encoder"]
    done = selfpos(*TASK, "--data", data, "--base", base, "--out", out, *options, *measured)
    assert done.returncode == 0, done.stderr
    validation: Any = read_manifest(out)["validation"]
    assert [entry["step"] for entry in validation["history"]] == [20, 40, 60]
    best = max(entry["mean"] for entry in validation["history"])
    assert best > 0.95 and validation["best_step"] in (20, 40, 60)
    model, start = (CrossEncoder(str(folder), device="cpu") for folder in (out, base))
    assert model.max_seq_length == start.max_seq_length == 40
    questions, endings = random_texts(random.Random(5), 20), random_texts(random.Random(6), 40)
    pairs = [(question, f"{'ab'[n // 20]} {endings[n]}") for n, question in enumerate(2 * questions)]
    measure = PairMeasure(sorted(pairs), [float(text.startswith("a")) for _, text in sorted(pairs)], 0.5)
    assert score(measure, model) > 0.9 > score(measure, start)


@pytest.mark.parametrize(
    ("grades", "prompt"),
    [([1, 0, 0, 1], ""), ([0.2, 0.7, 1.0, 0.0], "h i j: "), (["yes", "no", "no", "yes"], "")],
)
def test_the_loss_is_binary_cross_entropy(grades: list[Any], prompt: str, tmp_path: Path) -> None:
    base = reranker(tmp_path)
    if prompt:  # which `predict` sets before each pair
        edit_json(base / "config_sentence_transformers.json", **default_prompt_of(prompt))
    data = write_candidates(tmp_path / "data.jsonl", grades, "label")
    source = TaskSource(type="reranking", data=str(data))
    settings = TrainingSettings(steps=1, batch_size=80, learning_rate=1e-5)
    said: list[str] = []
    result = operations.finetune(base, source, tmp_path / "out", settings, probe=0, say=said.append)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    numbers = {"yes": 1.0, "no": 0.0}
    pairs = Dataset.from_list(
        [
            {
                "query": row["question"],
                "candidate": row["passage"],
                "label": float(numbers.get(row["label"], row["label"])),
            }
            for row in rows
        ]
    )
    assert result.losses[0][1] == pytest.approx(losses_by_hand(base, pairs), abs=1e-5)


def test_an_interrupted_training_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = reranker(tmp_path, hidden_dropout_prob=0.1)
    source = TaskSource(type="reranking", data=str(lists(tmp_path / "lists.jsonl")))
    assert_resumes_to_the_same_bytes(base, source, tmp_path, monkeypatch, probe=4)


@pytest.mark.nightly
def test_two_processes_train_one_reranker(tmp_path: Path) -> None:
    base, data = reranker(tmp_path), lists(tmp_path / "lists.jsonl")
    launch = [*TWO_PROCESSES, "-m", "selfpos"]
    words_of = [*TASK, "--data", data, "--base", base, "--out", tmp_path / "out", *QUICK, "--validate", 0.2]
    command = [*launch, *map(str, words_of), "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["processes"], manifest["steps"], manifest["samples"]) == (2, 4, 64)


@pytest.mark.slow
def test_adapters_and_plain_bases(tmp_path: Path, selfpos: CommandLine) -> None:
    from sentence_transformers import CrossEncoder

    base, data = reranker(tmp_path), lists(tmp_path / "lists.jsonl")
    pairs = [("d e f", "a g h"), ("e", "b g")]
    for name, start, more in (("adapter", base, ["--lora", 4]), ("full", tmp_path / "plain", [])):
        out = tmp_path / name
        done = selfpos(*TASK, "--data", data, "--base", start, "--out", out, *QUICK, *more)
        assert done.returncode == 0, done.stderr
        merged = tmp_path / f"merged-{name}"
        done = selfpos("merge", "--base", start, "--vectors", out, "--method", "average", "--out", merged)
        assert done.returncode == 0, done.stderr
        assert (out / "adapter_config.json").is_file() == (name == "adapter")
        before, one, same = (
            CrossEncoder(str(folder), device="cpu").predict(pairs) for folder in (start, out, merged)
        )
        np.testing.assert_allclose(one, same, atol=1e-5)
        assert not np.allclose(before, one, atol=1e-5)


def test_a_dry_run_says_what_would_be_and_writes_nothing(tmp_path: Path, selfpos: CommandLine) -> None:
    base, data = reranker(tmp_path), write_candidates(tmp_path / "graded.jsonl", [0.9, 0.1, 0.6, 0.0])
    out = tmp_path / "out"
    done = selfpos(*TASK, "--data", data, "--base", base, "--out", out, "--dry-run")
    assert done.returncode == 0 and "would train on 15 records, and hold out 5" in done.stdout, done.stderr
    assert "the base is a CrossEncoder" in done.stdout and not out.exists()


def test_what_cannot_be_is_refused_before_it_is_trained(tmp_path: Path, selfpos: CommandLine) -> None:
    base, data = reranker(tmp_path), lists(tmp_path / "lists.jsonl")
    classes = reranker(tmp_path / "classes", num_labels=3)
    sparse = splade(tmp_path / "sparse")
    raw = write_candidates(tmp_path / "raw.jsonl", [5.5, -3.0, 0.5, 2.0])
    steps = write_candidates(tmp_path / "steps.jsonl", [0, 1, 2, 3], "relevance")
    raw_lists = tmp_path / "raw-lists.jsonl"
    write_lines(raw_lists, [*listed([1, 0, 0], [5.5, -3.0, 0.5])] * 20)
    embedding = tmp_path / "embedding"
    plain_bert(embedding)
    (embedding / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}])
    )
    cases: list[tuple[Path, Path, list[Any], str]] = [
        (
            base,
            data,
            ["--model-type", "sentence-transformer"],
            "is a CrossEncoder, not the sentence-transformer",
        ),
        (embedding, data, ["--model-type", "cross-encoder"], "without the head of a cross-encoder"),
        (
            sparse,
            data,
            [],
            "a sparse encoder learns which text answers a question, from data for --task retr",
        ),
        (classes, data, [], "gives 3 numbers for a pair of texts"),
        (base, raw_lists, [], "holds the grade 5.5; a cross-encoder learns grades from 0"),
        (base, raw, [], "holds the grade 5.5; a cross-encoder learns grades from 0"),
        (base, steps, [], "holds the grade 2; a cross-encoder learns grades from 0"),
        (base, data, ["--prompt", "ask: "], "trained without prompts"),
        (base, data, ["--mine", 1], "mines no negatives"),
        (base, data, ["--matryoshka", 8], "matryoshka is for losses of embeddings"),
        (base, data, ["--temperature", 0.1], "temperature is for losses of embeddings"),
    ]
    for start, source, more, reason in cases:
        for dry in (["--dry-run"], []):
            done = selfpos(*TASK, "--data", source, "--base", start, "--out", tmp_path / "x", *more, *dry)
            assert done.returncode == 2 and reason in done.stderr, done.stderr
    other = ["finetune", "--task", "sts", "--data", data, "--base", base, "--out", tmp_path / "x"]
    assert "learns which candidates answer a question" in selfpos(*other).stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("x")]


def test_plain_texts_are_refused_with_what_can_be_done(tmp_path: Path, selfpos: CommandLine) -> None:
    base = reranker(tmp_path)
    one = make_specialist(base, tmp_path / "one", seed=1)
    for dry in (["--dry-run"], []):
        merge = ["merge", "--base", base, "--vectors", one, "--method", "self-positioning"]
        done = selfpos(*merge, "--texts", "one=corpus", "--out", tmp_path / "merged", *dry)
        assert done.returncode == 2, done.stderr
        assert "a CrossEncoder has none: give questions with their answers, by --probe" in done.stderr
    assert not (tmp_path / "merged").exists()


def test_records_become_pairs() -> None:
    kind = CandidatePairs()
    given = Dataset.from_dict({"query": ["q"], "positive": [["p"]], "negative": [["n", "m"]]})
    made = [tuple(record.values()) for record in kind.prepare(given, seed=0)]
    assert made == [("q", "p", 1.0), ("q", "n", 0.0), ("q", "m", 0.0)]
    graded = Dataset.from_dict(
        {
            "query": ["q", "q", "r", "r", "q"],
            "document": ["one", "two", "three", " ", "four"],
            "relevance": [0.9, 0.2, 0.4, 0.3, None],
        }
    )
    canonical = kind.canonical(graded)
    assert canonical.to_list() == [
        {"query": "q", "positive": ["one"], "negative": ["two"], "score": [0.9, 0.2]},
        {"query": "r", "positive": [], "negative": ["three"], "score": [0.4]},
    ]
    assert kind.canonical(canonical).to_list() == canonical.to_list()
    made = [tuple(record.values()) for record in kind.prepare(canonical, seed=0)]
    assert made == [("q", "one", 0.9), ("q", "two", 0.2), ("r", "three", 0.4)]
    with pytest.raises(SelfposError, match="none of 1 candidates has a question"):
        kind.canonical(Dataset.from_dict({"query": ["q"], "passage": [" "], "score": [0.5]}))


def listed(*grades: Any, **texts: Any) -> Dataset:
    """Questions with a positive and two negatives, and these lists of grades."""
    record = {"query": "q", "positive": ["p"], "negative": ["n", "m"]} | texts
    return Dataset.from_list([record | {"score": list(one)} for one in grades])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (listed([0.9, 0.2, 0.0]), [("p", 0.9), ("n", 0.2), ("m", 0.0)]),
        (listed([0.9, 0.2, 0.1], negative=[" ", "m"]), [("p", 0.9), ("m", 0.1)]),
        (listed([0.9, 0.2, 0.1], negative=["n", None]), [("p", 0.9), ("n", 0.2)]),
        (listed([0.9, None, float("nan")]), [("p", 0.9)]),
        (listed([0.9, 0.2, 0.1], positive="p"), [("p", 0.9), ("n", 0.2), ("m", 0.1)]),
        (listed([0.2, 0.1], positive=[]), [("n", 0.2), ("m", 0.1)]),
        (
            listed([0.9, 0.3], positive=[{"title": "T", "text": "p"}], negative="n"),
            [("T p", 0.9), ("n", 0.3)],
        ),
        (listed(["0.9", "1", "0"]), [("p", 0.9), ("n", 1.0), ("m", 0.0)]),
    ],
)
def test_a_list_of_grades_goes_with_its_candidates(given: Dataset, expected: list[Any]) -> None:
    kind = CandidatePairs()
    named = given.rename_columns({"query": "ask", "score": "grades"})
    for data, columns in ((given, None), (named, {"query": "ask", "score": "grades"})):
        canonical = kind.canonical(data, columns)
        assert set(kind.uses(data.column_names, columns)) == set(data.column_names)
        assert kind.canonical(canonical).to_list() == canonical.to_list()
        made = kind.prepare(canonical, seed=0)
        assert [(record["candidate"], record["label"]) for record in made] == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (listed([0.9, 0.2, 5.5]), "'score' holds the grade 5.5; a cross-encoder learns grades from 0"),
        (listed([0.9, -3.0, 0.1]), "'score' holds the grade -3.0"),
        (listed(["good", "0", "1"]), "'score' holds the grade 'good'"),
        (listed([0.9, 0.2]), "record 1 has 2 grades in column 'score' for 1 positives and 2 negatives"),
        (listed([1, 0, 0], []), "record 2 has 0 grades"),
        (listed([0.9, 0.2], positive=" ", negative=[" "]), "none of 1 questions has a candidate with a text"),
    ],
)
def test_lists_of_grades_that_cannot_be_are_refused(given: Dataset, reason: str) -> None:
    with pytest.raises(SelfposError, match=reason):
        CandidatePairs().canonical(given)


def test_one_number_beside_lists_is_no_grade_of_each() -> None:
    margins = listed([1, 0, 0]).remove_columns("score").add_column("score", [3.5])
    with pytest.raises(
        SelfposError, match=r"'score' holds no lists; .* leave the column out, --column score="
    ):
        CandidatePairs().canonical(margins)
    made = CandidatePairs().prepare(CandidatePairs().canonical(margins, {"score": ""}), seed=0)
    assert made["label"][:] == [1.0, 0.0, 0.0]


def test_a_validation_that_orders_nothing_is_refused(tmp_path: Path, selfpos: CommandLine) -> None:
    base, data = reranker(tmp_path), write_candidates(tmp_path / "low.jsonl", [0.4, 0.1, 0.3, 0.0])
    done = selfpos(
        *(*TASK, "--data", data, "--base", base, "--out", tmp_path / "out", *QUICK),
        *("--validate", 0.3, "--probe", 0),
    )
    assert done.returncode == 2 and "no question of the validation records has both" in done.stderr


def test_the_class_decides_where_nothing_is_said(tmp_path: Path, selfpos: CommandLine) -> None:
    base, data = reranker(tmp_path), lists(tmp_path / "lists.jsonl")
    edit_json(base / "config_sentence_transformers.json", model_type=None)
    done = selfpos(*TASK, "--data", data, "--base", base, "--out", tmp_path / "out", "--dry-run")
    assert done.returncode == 0 and "the base is a CrossEncoder" in done.stdout, done.stderr
