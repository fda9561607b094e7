"""Models that compare embeddings otherwise than by the cosine: searches and trainings measure as they do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from selfpos.data.probe import ProbeTask
from selfpos.positioning.draws import split_probe
from selfpos.positioning.position import position
from selfpos.positioning.smooth import RERANKED, Ranking
from selfpos.recipe import PositioningSettings, ValidationSettings
from selfpos.retention.judging import PlainTask
from selfpos.storage.manifest import read_manifest
from selfpos.tasks import get_task
from selfpos.training import train
from tests.helpers.adapters import edit_json
from tests.helpers.models import make_specialist, make_tiny_model
from tests.helpers.stand_ins import pairs, words
from tests.helpers.trainings import with_


def make_base(folder: Path, similarity: str) -> Path:
    """A model whose embeddings differ in length, compared by `similarity`."""
    base = make_tiny_model(folder)
    entries = json.loads((base / "modules.json").read_text())
    (base / "modules.json").write_text(json.dumps(entries[:3]))
    edit_json(base / "config_sentence_transformers.json", similarity_fn_name=similarity)
    return base


def own_ndcg(model: SentenceTransformer, questions: list[str], answers: list[str]) -> float:
    """nDCG@10 of each question's answer among all, by what the model itself calls similar."""
    texts = list(dict.fromkeys(answers))
    similarities = model.similarity(model.encode(questions), model.encode(texts)).numpy()
    right = similarities[np.arange(len(questions)), [texts.index(answer) for answer in answers]]
    ranks = 1 + (similarities > right[:, None]).sum(1)
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean())


@pytest.mark.slow
@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_a_verdict_is_on_the_similarity_of_the_model(similarity: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", similarity)
    tuned = [make_specialist(base, tmp_path / name, seed=seed) for seed, name in enumerate(["a", "b"])]
    task = pairs()
    texts = [task.dataset[column][:] for column in ("anchor", "positive")]
    settings = PositioningSettings(rounds=1, separate=False)
    found = position(base, tuned, {"pairs": task}, settings, seed=0, device="cpu")
    scores = {rival.name: rival.scores["pairs"] for rival in found.rivals}
    for name, folder in {"base": base, "a": tuned[0], "b": tuned[1]}.items():
        model = SentenceTransformer(str(folder), device="cpu")
        assert scores[name] == pytest.approx(own_ndcg(model, *texts), abs=1e-6), name


def test_a_training_is_validated_by_the_similarity_of_the_model(tmp_path: Path) -> None:
    base, kind = make_base(tmp_path / "base", "dot"), get_task("retrieval")
    data, held_out = (
        Dataset.from_dict({"query": words(40, seed), "positive": words(40, seed + 1)}) for seed in (1, 3)
    )
    settings = with_(steps=1, validation=ValidationSettings(split="dev", every=1).model_dump())
    validation = {"r": held_out}
    train(base, {"r": (kind, data)}, tmp_path / "out", settings, seed=0, name="x", validation=validation)
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    score = read_manifest(tmp_path / "out")["validation"]["history"][-1]["scores"]["r"]
    assert score == pytest.approx(own_ndcg(model, held_out["query"][:], held_out["positive"][:]), abs=1e-6)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_search_minimises_and_selects_by_the_similarity_of_the_model(similarity: str) -> None:
    """A long text is near by the dot product alone."""
    anchors, positives = ["q", "r", "s", "t"], ["near", "long", "u", "v"]
    probe = ProbeTask(
        "r", get_task("retrieval"), Dataset.from_dict({"query": anchors, "positive": positives})
    )
    search, validation = split_probe({"r": probe}, 0.5, 0, 0.05, similarity)
    task, batch = search["r"], search["r"].everything()
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [[1.0], [2], [3], [9]]
    )
    smooth = task.smooth(batch, 0.05)
    assert len(smooth.texts) == 4
    temperature = 0.05 if similarity == "cosine" else RERANKED * 0.05
    expected = Ranking(batch.columns, temperature, similarity).value(rows)
    assert float(smooth.value(rows)) == pytest.approx(float(expected))
    measures = [task.measure_beside(validation["r"].everything(), batch), task.measure(batch)]
    assert [measure._similarity for measure in measures] == [similarity, similarity]


def test_agreement_on_plain_texts_is_by_the_similarity_of_the_model() -> None:
    """Other lengths of embeddings change what is near by the dot product, and no cosine."""
    generator = torch.Generator().manual_seed(0)
    base, lengths = torch.randn(40, 8, generator=generator), torch.rand(40, 1, generator=generator)
    scores = {}
    for similarity in ("cosine", "dot"):
        plain = PlainTask("general", "general", [str(row) for row in range(40)], similarity=similarity)
        measure = plain.by([base]).measure
        assert measure.score(base) == pytest.approx(1)
        scores[similarity] = measure.score(base * (0.1 + lengths))
    assert scores["cosine"] == pytest.approx(1)
    expected = []
    moved = (base * (0.1 + lengths)).numpy()
    for row in range(40):
        others = [other for other in range(40) if other != row]
        products = [(rows[row] @ rows[others].T) for rows in (base.numpy(), moved)]
        expected.append(np.corrcoef(products[0], products[1])[0, 1])
    assert scores["dot"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert scores["dot"] < 0.95
