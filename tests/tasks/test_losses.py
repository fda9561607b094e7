from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpos.tasks import TASKS, get_task
from selfpos.tasks.losses import supervised_info_nce

TAU = 0.05


class Identity(torch.nn.Module):
    """Stands for a model: the features are the embeddings."""

    def forward(self, features: dict) -> dict:
        return {"sentence_embedding": features["x"]}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def supervised(z: np.ndarray, labels: list[int]) -> float:
    """Khosla et al., equation 2, written out term by term in float64; mean over anchors that have a
    positive."""
    z = unit(z)
    terms = []
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        if positives:
            below = sum(math.exp(z[i] @ z[a] / TAU) for a in range(len(z)) if a != i)
            terms.append(
                -sum(math.log(math.exp(z[i] @ z[p] / TAU) / below) for p in positives) / len(positives)
            )
    return sum(terms) / len(terms)


def info_nce(columns: list[np.ndarray]) -> float:
    q, *documents = [unit(column) for column in columns]
    every = np.concatenate(documents)
    return float(
        np.mean(
            [
                -math.log(math.exp(q[i] @ documents[0][i] / TAU) / np.exp(every @ q[i] / TAU).sum())
                for i in range(len(q))
            ]
        )
    )


def cosent(a: np.ndarray, b: np.ndarray, scores: list[float]) -> float:
    s = (unit(a) * unit(b)).sum(axis=1)
    pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if scores[i] > scores[j]]
    return math.log(1 + sum(math.exp((s[j] - s[i]) / TAU) for i, j in pairs))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 12), st.integers(2, 4))
def test_supervised_info_nce_is_the_papers_formula(seed: int, count: int, classes: int) -> None:
    draw = np.random.default_rng(seed)
    z = draw.normal(size=(count, 5))
    labels = [0, 0, *draw.integers(0, classes, count - 2).tolist()]
    found = supervised_info_nce(torch.tensor(z), torch.tensor(labels), TAU)
    assert found.item() == pytest.approx(supervised(z, labels), rel=1e-9)
    single = supervised_info_nce(torch.tensor(z, dtype=torch.float32), torch.tensor(labels), TAU)
    assert single.item() == pytest.approx(supervised(z, labels), rel=1e-3, abs=1e-4)


def test_supervised_info_nce_has_the_right_gradient() -> None:
    z = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    assert torch.autograd.gradcheck(lambda x: supervised_info_nce(x, labels, 0.3), (z,))


def test_supervised_info_nce_without_any_positive_is_zero_and_does_not_move_the_model() -> None:
    z = torch.randn(3, 4, requires_grad=True)
    loss = supervised_info_nce(z, torch.tensor([0, 1, 2]), TAU)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None and z.grad.abs().max() == 0


def test_supervised_info_nce_is_computed_in_float32_under_autocast() -> None:
    z = torch.randn(8, 16, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = supervised_info_nce(z, labels, TAU)
    assert mixed.item() == supervised_info_nce(z, labels, TAU).item()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_default_loss_of_each_type_against_float64(name: str) -> None:
    draw = np.random.default_rng(1)
    kind = get_task(name)
    columns = [draw.normal(size=(6, 8)) for _ in kind.text_columns]
    targets = {"label": [0, 1, 0, 1, 1, 0], "score": [0.1, 0.9, 0.5, 0.5, 0.2, 1.0]}.get(kind.target or "")
    expected = {
        "sts": lambda: cosent(columns[0], columns[1], targets),
        "pair-classification": lambda: cosent(columns[0], columns[1], targets),
        "retrieval": lambda: info_nce(columns),
        "reranking": lambda: info_nce(columns),
        "instruction-retrieval": lambda: info_nce(columns),
        "bitext": lambda: (info_nce(columns) + info_nce(columns[::-1])) / 2,
        "summarization": lambda: (info_nce(columns) + info_nce(columns[::-1])) / 2,
        "classification": lambda: supervised(columns[0], targets),
        "clustering": lambda: supervised(columns[0], targets),
    }[name]()
    loss = kind.loss(Identity(), TAU)  # type: ignore[arg-type]
    labels = None if targets is None else torch.tensor(targets)
    found = loss([{"x": torch.tensor(column)} for column in columns], labels)
    assert found.item() == pytest.approx(expected, rel=1e-6)
