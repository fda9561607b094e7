"""Self Positioning over SPLADE and ColBERT: by the order in which questions find the texts of the probe."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from selfpos import operations
from selfpos.data.probe import ProbeTask
from selfpos.errors import SelfposError
from selfpos.positioning.folds import Folds
from selfpos.positioning.live import LiveModel
from selfpos.positioning.objective import QUESTIONS, SearchProbe
from selfpos.positioning.position import check, probe_for
from selfpos.positioning.problem import Problem
from selfpos.recipe import PositioningSettings, TaskSource, TrainingSettings
from selfpos.storage.model_folder import open_model
from selfpos.tasks import get_task
from selfpos.tasks.measure import AnswerMeasure, SearchMeasure, Texts
from selfpos.tasks.similarity import compared, embedded, embedded_with_graph, sides
from selfpos.tasks.texts import TEXTS
from selfpos.tasks.types.classes import for_class
from selfpos.vectors import open_vectors
from tests.helpers.command import CommandLine
from tests.helpers.models import make_specialist
from tests.helpers.search_models import KINDS, each_kind, load_encoder, write_pairs
from tests.helpers.searches import OTHER_SEARCHES, assert_is_position

RECORDS = {"anchor": ["p", "q", "p"], "positive": ["1", "2", "3"], "negative": ["4", "1", "4"]}


def probe_of(kind: str, records: dict[str, list[str]]) -> SearchProbe:
    return SearchProbe("task", for_class(get_task("retrieval"), kind), Dataset.from_dict(records), 0.05)


@each_kind
def test_a_pair_is_scored_by_the_models_own_similarity(kind: str, tmp_path: Path) -> None:
    base = KINDS[kind](tmp_path)
    model = load_encoder(base, kind)
    asked: Any = [
        ("ask a b", "c d e"), ("ask a b", "f"), ("ask g", "f g"),
        ("ask h i", "c d e"), ("ask h i", "f"), ("ask g", "c d e"),
    ]  # fmt: skip
    expected = [
        float(model.similarity(model.encode_query([q], prompt=""), model.encode_document([text], prompt="")))
        for q, text in asked
    ]
    live = LiveModel(open_model(base), [], kind=kind)
    with torch.no_grad():
        np.testing.assert_allclose(live.embed(asked)[:, 0].numpy(), expected, rtol=1e-5)
    assert live.embedded == 3 + 3


def test_every_question_is_compared_with_every_text() -> None:
    batch = probe_of("SparseEncoder", RECORDS).everything()
    assert batch.columns == [[(asked, text) for asked in "pq" for text in "1234"]]
    assert batch.labels is not None and batch.labels.tolist() == [1, 0, 1, 0, 0, 1, 0, 0]


def test_more_questions_than_are_read_are_drawn() -> None:
    count = QUESTIONS + 40
    records = {"anchor": [f"q{i}" for i in range(count)], "positive": [f"a{i}" for i in range(count)]}
    probe = probe_of("SparseEncoder", records)
    batch = probe.sample(1000, seed=0)
    assert batch.count == QUESTIONS**2
    assert {asked for asked, _ in batch.columns[0]} != set(records["anchor"][:QUESTIONS])
    (found,) = Folds({"task": probe}, 0.05, seed=0).tasks.values()
    assert found.measure.count == found.measure.usable == QUESTIONS


def test_the_measure_is_that_of_the_validation() -> None:
    draw = torch.Generator().manual_seed(0)
    similarities = torch.rand(30, 30, generator=draw)
    questions, texts = [f"q{i}" for i in range(30)], [f"t{i}" for i in range(30)]
    probe = probe_of("SparseEncoder", {"anchor": questions, "positive": texts})
    ours = probe.measure(probe.everything())
    theirs = SearchMeasure(Texts([questions, texts], None))
    assert isinstance(ours, AnswerMeasure)
    assert ours.score(similarities.reshape(-1, 1)) == pytest.approx(theirs.score(similarities))


def test_right_texts_are_not_ranked_below_each_other() -> None:
    probe = probe_of("SparseEncoder", RECORDS)
    scores = torch.tensor([[0.5, 0.7, 0.4, 0.1, 0.3, 0.2, 0.1, 0.0]]).T
    items = probe.measure(probe.everything()).items(scores)["gains"]
    assert items.tolist() == pytest.approx([1 / np.log2(3), 1 / np.log2(3)])


@pytest.fixture(scope="module", params=list(KINDS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A kind, and the folder with its `base` and two specialists of it."""
    kind = request.param
    place = tmp_path_factory.mktemp(kind)
    base = KINDS[kind](place)
    settings = TrainingSettings(steps=45, batch_size=16, learning_rate=3e-3, temperature=0.1)
    for seed, name in enumerate(["one", "two"]):
        source = TaskSource(type="retrieval", data=str(write_pairs(place / f"{name}.jsonl", 90, seed)))
        operations.finetune(base, source, place / name, settings, probe=30, say=lambda _: None)
    return kind, place


def by_hand(folder: Path, kind: str, task: ProbeTask) -> tuple[float, float]:
    """The mean of −log softmax of a question's answer among all texts, in units of half a deviation, and
    nDCG@10, with the base's prompt before the questions.
    """
    model = load_encoder(folder, kind)
    assert model.prompts["query"] == "ask "
    columns = [task.records[name][:] for name in ("anchor", "positive")]
    scores = model.similarity(*(encode(c) for encode, c in zip(
        (model.encode_query, model.encode_document), columns, strict=True)))  # fmt: skip
    scores = scores.double().numpy()
    deviation = np.sqrt(np.mean((scores - scores.mean(1, keepdims=True)) ** 2))
    scaled, right = scores / (0.5 * deviation), np.arange(len(scores))
    loss = np.mean(np.log(np.exp(scaled - scaled[right, right][:, None]).sum(1)))
    ranks = (scores > scores[right, right][:, None]).sum(1) + 1
    return float(loss), float(np.mean(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0)))


@pytest.mark.slow
def test_two_specialists_are_positioned(
    trained: tuple[str, Path], tmp_path: Path, selfpos: CommandLine
) -> None:
    kind, place = trained
    base, sources, out = place / "base", [place / "one", place / "two"], tmp_path / "out"
    merge = ["merge", "--base", base, "--vectors", *sources, "--method", "self-positioning"]
    merge += ["--param", "separate=false"]
    forecast = re.search(
        r"search +(\d+) texts, embedded at (\d+) to (\d+)", selfpos(*merge, "--out", out, "--dry-run").stdout
    )
    assert forecast and not out.exists()
    done = selfpos(*merge, "--out", out)
    assert done.returncode == 0, done.stderr
    found = assert_is_position(out, base, sources)
    texts, fewest, most = map(int, forecast.groups())
    assert texts * fewest <= found["texts"] <= texts * most
    assert any(abs(c) > 0.05 for c in found["coefficients"])
    probe = operations.probe_of(sources)
    rivals = {rival["name"]: rival["scores"] for rival in found["rivals"]}
    for name, task in probe.items():
        assert found["losses"][name] == pytest.approx(by_hand(out, kind, task)[0], rel=1e-3)
        for rival, folder in (("base", base), ("one", sources[0]), ("two", sources[1])):
            assert rivals[rival][name] == pytest.approx(by_hand(folder, kind, task)[1], abs=1e-6)
    means = {name: sum(scores.values()) for name, scores in rivals.items()}
    assert sum(by_hand(out, kind, task)[1] for task in probe.values()) > means["base"]


@each_kind
def test_the_loss_of_a_search_is_the_librarys(kind: str, tmp_path: Path) -> None:
    from sentence_transformers import util
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss

    base = KINDS[kind](tmp_path)
    model = load_encoder(base, kind)
    records = {
        "anchor": ["a b", "c", "d e f", "g"],
        "positive": ["h", "i j k", "l", "m n"],
        "negative": ["o p", "q", "r s", "t"],
    }
    probe = probe_of(kind, records)
    batch = probe.everything()
    with torch.no_grad():
        found = probe.loss_of(batch, [LiveModel(open_model(base), [], kind=kind).embed(batch.columns[0])])
        if kind == "SparseEncoder":
            loss: Any = SparseMultipleNegativesRankingLoss(model, scale=1, similarity_fct=util.dot_score)
        else:
            loss = MultiVectorMultipleNegativesRankingLoss(model, scale=1)
        made = [
            embedded_with_graph(model, texts, side)
            for side, texts in zip(("query", "document", "document"), records.values(), strict=True)
        ]
        if kind == "SparseEncoder":
            expected = loss.compute_loss_from_embeddings([torch.stack(column) for column in made], None)
        else:
            features = [
                model.preprocess(texts, prompt="", task=side)
                for side, texts in zip(("query", "document", "document"), records.values(), strict=True)
            ]
            expected = loss(features, torch.arange(4))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("kind", "most"), [(kind, None) for kind in KINDS] + [("SparseEncoder", 5)])
def test_the_gradient_is_that_of_the_loss(kind: str, most: int | None, tmp_path: Path) -> None:
    base = KINDS[kind](tmp_path)
    sources = [make_specialist(base, tmp_path / name, seed=seed) for seed, name in enumerate(["one", "two"])]
    live = LiveModel(open_model(base), open_vectors(open_model(base), sources), kind=kind)
    live.model.max_active_dims = most  # ColBERT has no such field, and does not read it
    count = 20  # more texts than are embedded at once
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefghijklmnop", k=draw.randint(1, 9))) for _ in range(2 * count)]
    probe = probe_of(kind, {"anchor": texts[:count], "positive": texts[count:]})
    settings = PositioningSettings(search="sgd", granularity="layer", penalty=0)
    problem = Problem(live, {"task": probe}, settings)
    batches = [probe.everything()]
    point = problem.start + 0.1
    losses, gradient = problem.gradient(point, batches)
    assert losses["task"] == pytest.approx(problem.losses(point, batches)["task"], rel=1e-5)
    # In one graph over all texts, without the detour.
    live.set_coefficients(problem.table(point))
    pairs_of_batch: Any = batches[0].columns[0]
    questions, answers = sides(pairs_of_batch)
    made = [
        embedded_with_graph(live.model, side_texts, side)
        for side, side_texts in (("query", questions), ("document", answers))
    ]
    for column, plain in zip(made, embedded(live.model, questions, answers), strict=True):
        for part, whole in zip(column, plain, strict=True):
            np.testing.assert_allclose(part.detach().numpy(), whole.numpy(), atol=1e-5)
    variable = point.clone().requires_grad_(True)
    with live.collect() as by_tensor:
        probe.loss_of(batches[0], [compared(live.model, pairs_of_batch, *made)]).backward()
    total = (problem.table(variable) * by_tensor).sum() + problem.penalty(variable)
    (expected,) = torch.autograd.grad(total, variable)
    assert float(expected.abs().max()) > 1e-3
    np.testing.assert_allclose(gradient.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("search", OTHER_SEARCHES)
def test_other_searches_position_them(
    search: str, trained: tuple[str, Path], tmp_path: Path, selfpos: CommandLine
) -> None:
    kind, place = trained
    base, sources, out = place / "base", [place / "one", place / "two"], tmp_path / "out"
    merge = ["merge", "--base", base, "--vectors", *sources, "--out", out]
    done = selfpos(*merge, "--method", *OTHER_SEARCHES[search])
    assert done.returncode == 0, done.stderr
    assert_is_position(out, base, sources)
    probe = operations.probe_of(sources)
    scores = [sum(by_hand(folder, kind, task)[1] for task in probe.values()) for folder in (base, out)]
    assert scores[1] > scores[0]


@each_kind
def test_what_no_search_can_do_is_refused(kind: str, tmp_path: Path) -> None:
    base = KINDS[kind](tmp_path)
    task = ProbeTask("task", get_task("retrieval"), Dataset.from_dict(RECORDS))
    probe = probe_for(base, {"task": task})
    assert list(probe["task"].dataset["anchor"]) == ["ask p", "ask q", "ask p"]
    check(probe, PositioningSettings(), seed=0)
    check(probe, PositioningSettings(search="sgd", steps=2, validation=0), seed=0)
    with pytest.raises(SelfposError, match=f"a {kind} has none: give questions with their answers, by --pr"):
        probe_for(base, {"task": ProbeTask("task", TEXTS, Dataset.from_dict({"text": ["a", "b"]}))})
