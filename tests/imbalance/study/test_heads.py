"""A second stage trains its heads and nothing else, many networks at once as one alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from selfpos.imbalance.study.data import ArrayImages
from selfpos.imbalance.study.heads import Stage
from selfpos.imbalance.study.methods import get_method
from selfpos.imbalance.study.networks import Network, build
from selfpos.imbalance.study.recipe import TrainingSettings
from selfpos.imbalance.study.trainer import Sample

SHAPES = {"lenet": (1, 28, 28), "all-cnn": (3, 14, 14)}
COUNTS = np.array([8, 8, 2, 2])


def two_networks(name: str) -> tuple[list[Network], list[Sample], ArrayImages]:
    """Networks, a sample each, and images; dropout layers stay, but drop nothing: their masks are drawn for
    all networks together.
    """
    labels = np.repeat(np.arange(4), COUNTS)
    pixels = torch.rand(len(labels), *SHAPES[name], generator=torch.Generator().manual_seed(0))
    samples = [
        Sample(s, np.arange(len(labels)), labels, COUNTS, np.array([2, 3]), np.empty(0, np.int64))
        for s in range(2)
    ]
    networks = [build(name, 4, seed) for seed in range(2)]
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    return networks, samples, ArrayImages(pixels, labels)


def refit(
    method: str, networks: list[Network], samples: list[Sample], images: ArrayImages, second_rate: float = 0.1
) -> list[nn.Sequential]:
    second_stage = get_method(method).refit
    assert second_stage is not None
    return second_stage(
        Stage(
            networks,
            samples,
            images,
            TrainingSettings(iterations=4, batch_size=8, second_rate=second_rate),
            0.05,
        )
    )


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("method", ["two-phase-ros", "crt", "lws"])
def test_only_the_head_moves_and_as_it_would_alone(name: str, method: str) -> None:
    networks, samples, images = two_networks(name)
    before = copy.deepcopy(networks)
    together = refit(method, networks, samples, images)
    for network, untouched in zip(networks, before, strict=True):
        moved = [
            key
            for key, tensor in network.state_dict().items()
            if not torch.equal(tensor, untouched.state_dict()[key])
        ]
        assert moved == []
        assert all(parameter.requires_grad for parameter in network.parameters())
    for index, head in enumerate(together):
        (alone,) = refit(method, networks[index : index + 1], samples[index : index + 1], images)
        start = before[index].head.state_dict()
        for (key, ours), theirs in zip(head.state_dict().items(), alone.state_dict().values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
            if method == "lws":
                changed = not torch.equal(ours, start.get(key, torch.ones_like(ours)))
                assert changed == (key not in start), f"only the scales are trained, but {key} says {changed}"


def test_two_phase_goes_on_and_crt_starts_anew() -> None:
    networks, samples, images = two_networks("lenet")
    start = networks[0].classifier.weight
    tuned, anew = (
        refit(method, networks, samples, images)[0][0].weight for method in ("two-phase-ros", "crt")
    )
    assert 0 < (tuned - start).norm() < 0.1 * start.norm()
    assert (anew - start).norm() > start.norm()
    faster = refit("two-phase-ros", networks, samples, images, second_rate=0.2)[0][0].weight
    assert 1.4 * (tuned - start).norm() < (faster - start).norm() < 2.2 * (tuned - start).norm()


@pytest.mark.parametrize("name", list(SHAPES))
def test_ncm_takes_the_nearest_mean(name: str) -> None:
    networks, samples, images = two_networks(name)
    heads = refit("ncm", networks, samples, images)
    for network, head in zip(networks, heads, strict=True):
        with torch.no_grad():
            features = network.eval().trunk(images.pixels)
            points = nn.functional.normalize(features.mean(dim=(2, 3)), dim=1)
            means = torch.stack([points[images.labels == label].mean(dim=0) for label in range(4)])
            distances = torch.cdist(points, means).square()
            logits = head(features).flatten(1)
        torch.testing.assert_close(logits - logits[:, :1], distances[:, :1] - distances, rtol=1e-3, atol=1e-5)
