"""Many points, one list of texts: embeddings without gradients are those with them, from tokens made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
