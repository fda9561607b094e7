"""Small stand-ins for the rooms next door, so that these tests fail for reasons of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import nn

from selfpos.data.probe import ProbeTask
from selfpos.positioning.live import LiveModel
from selfpos.storage.model_folder import open_model
from selfpos.tasks import get_task
from selfpos.vectors import open_vectors


def make_live(base: Path, sources: Sequence[Path], **options: object) -> LiveModel:
    """A live model over real folders."""
    folder = open_model(base)
    return LiveModel(folder, open_vectors(folder, sources), **options)


class PairTask:
    """InfoNCE over in-batch negatives, in the interface of a task type."""

    name = "pairs"
    model_class = "SentenceTransformer"
    target = None
    text_columns = ("anchor", "positive")

    def under(self, settings: object) -> PairTask:
        return self

    def loss(self, model: nn.Module, temperature: float) -> nn.Module:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        return MultipleNegativesRankingLoss(model, scale=1 / temperature)

    def draw(self, dataset: Dataset, batch_size: int, generator: torch.Generator) -> dict[str, list]:
        return dict(dataset[torch.randperm(len(dataset), generator=generator)[:batch_size].tolist()])


class GradedTask(PairTask):
    """CoSENT over graded pairs."""

    name = "graded"
    target = "score"
    text_columns = ("sentence1", "sentence2")

    def loss(self, model: nn.Module, temperature: float) -> nn.Module:
        from sentence_transformers.sentence_transformer.losses import CoSENTLoss

        return CoSENTLoss(model, scale=1 / temperature)


@dataclass
class Probe:
    """One task of a probe set."""

    name: str
    type: PairTask
    dataset: Dataset

    @property
    def records(self) -> Dataset:
        return self.dataset


def words(count: int, seed: int) -> list[str]:
    """`count` random texts of two to six letters each spelled apart, which the tiny model's vocabulary
    knows."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(count):
        length = int(torch.randint(2, 7, (1,), generator=generator))
        texts.append(" ".join(chr(97 + int(n)) for n in torch.randint(0, 26, (length,), generator=generator)))
    return texts


def pairs(count: int = 24, seed: int = 0) -> Probe:
    return Probe(
        "pairs",
        PairTask(),
        Dataset.from_dict({"anchor": words(count, seed), "positive": words(count, seed + 1)}),
    )


def graded(count: int = 24, seed: int = 7) -> Probe:
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return Probe(
        "graded",
        GradedTask(),
        Dataset.from_dict(
            {"sentence1": words(count, seed), "sentence2": words(count, seed + 1), "score": scores}
        ),
    )


def records() -> dict[str, ProbeTask]:
    """A probe set of two tasks of the real types, as operations take it."""
    kinds = {"pairs": (get_task("retrieval"), pairs()), "graded": (get_task("sts"), graded())}
    return {name: ProbeTask(name, kind, probe.dataset) for name, (kind, probe) in kinds.items()}


class NearTo(PairTask):
    """Squared distance of each text's embedding to a given one: its minimum over coefficients is known."""

    target = "label"
    text_columns = ("text",)

    def __init__(self, targets: torch.Tensor) -> None:
        self.targets = targets

    def loss(self, model: nn.Module, temperature: float) -> nn.Module:
        targets = self.targets

        class Distance(nn.Module):
            def forward(self, features: list[dict[str, torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
                return (model(features[0])["sentence_embedding"] - targets[labels]).square().sum(-1).mean()

        return Distance()


def interrupt_second_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a search meet Ctrl-C in its second step."""
    from selfpos.positioning.problem import Problem

    original, calls = Problem.gradient, []

    def stopping(self: Problem, *args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(Problem, "gradient", stopping)
