"""Many points, one list of texts: embeddings without gradients are those with them, from tokens made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from selfpos.errors import SelfposError
from tests.helpers.adapters import edit_json
from tests.helpers.models import make_specialist, make_tiny_model
from tests.helpers.stand_ins import make_live, words


@pytest.mark.parametrize("masked", [True, False])
def test_embeddings_without_gradients_are_those_of_every_text_alone(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    live = make_live(tiny_base, tiny_specialists)
    made, calls = live._features, []

    def features(texts: list[str]) -> dict:
        calls.append(len(texts))
        found = made(texts)
        # a model that tells no tokens from padding is still embedded by the length of its texts
        return found if masked or len(calls) > 1 else {"input_ids": found["input_ids"]}

    monkeypatch.setattr(live, "_features", features)
    texts = [*words(40, seed=1), "a", "b c d e f g h i j"]
    for coefficients in ([0.0, 0.0, 0.0], [0.5, -0.2, 1.0]):
        live.set_coefficients(torch.tensor([coefficients] * len(live.keys), dtype=torch.float64))
        with torch.no_grad():
            embeddings = live.embed(texts)
        alone = torch.cat([live.forward([text]).detach() for text in texts])
        assert torch.allclose(embeddings, alone, atol=1e-5)
    # for their lengths, in batches, and alone at two points
    assert sum(calls) == 4 * len(texts)
    with torch.no_grad():
        assert torch.allclose(live.embed(texts[:3]), alone[:3], atol=1e-5)
    assert live.embedded == 2 * len(texts) + 3


def test_embeddings_are_cut_where_the_model_cuts_them(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    edit_json(base / "config_sentence_transformers.json", truncate_dim=5)
    live, texts = make_live(base, tiny_specialists[:1]), words(6, seed=1)
    expected = SentenceTransformer(str(base), device="cpu").encode(texts)
    assert expected.shape == (6, 5)
    with torch.no_grad():
        assert np.allclose(live.embed(texts), expected, atol=1e-5)


def test_a_router_with_a_way_for_questions_is_refused(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    make_tiny_model(tmp_path / "made")
    ways = [[Transformer(str(tmp_path / "made-raw")), Pooling(32)] for _ in range(2)]
    for name, router in (
        ("sides", Router.for_query_document(query_modules=ways[0], document_modules=ways[1])),
        ("one", Router({"text": ways[0]}, default_route="text")),
    ):
        SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(tmp_path / name))
        one = make_specialist(tmp_path / name, tmp_path / f"{name}-1", seed=1)
        if name == "one":
            make_live(tmp_path / name, [one])
            continue
        with pytest.raises(SelfposError, match="sends questions through other modules than documents"):
            make_live(tmp_path / name, [one])
