"""A wide network must train like its parts."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfpos.imbalance.study.methods import get_method
from selfpos.imbalance.study.networks import Network, build, copy_back, use_cosine_head, widen
from selfpos.imbalance.study.recipe import ScheduleSettings, TrainingSettings
from selfpos.imbalance.study.trainer import fit

COUNTS = np.array([[50, 5, 5, 50, 50], [5, 50, 50, 50, 5], [50, 50, 5, 5, 50]])
SETTINGS = TrainingSettings(batch_size=8, bias_rate=2, schedule=ScheduleSettings(policy="inv", gamma=0.1))


def batches(
    networks: list[int], shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    while True:
        images = torch.rand(8, 3, *shape, generator=generator, dtype=dtype)
        targets = torch.randint(5, (8, 3), generator=generator)
        yield images[:, networks], targets[:, networks]


def networks_of(name: str, cosine: bool) -> list[Network]:
    result = [build(name, 5, seed) for seed in range(3)]
    for network in result:
        network.double()  # in float32 a pixel's rounding can turn a maximum over to its neighbour
        for layer in network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0  # masks are drawn for all networks together
        if cosine:
            use_cosine_head(network, 0)
            network.double()
    return result


@pytest.mark.parametrize(
    ("name", "shape", "method"),
    [
        ("lenet", (1, 28, 28), "baseline"),
        ("lenet", (1, 28, 28), "ldam-drw"),
        ("lenet", (1, 28, 28), "remix"),
        ("lenet", (1, 28, 28), "adamw"),
        ("all-cnn", (3, 14, 14), "weighted"),
        ("resnet-10", (3, 20, 20), "baseline"),
    ],
)
def test_wide_training_equals_single_training(name: str, shape: tuple[int, ...], method: str) -> None:
    chosen = get_method(method)
    together = networks_of(name, chosen.cosine_head)
    alone = copy.deepcopy(together)
    start = copy.deepcopy(together)
    rate = 1e-4 if chosen.optimizer == "adamw" else 0.01

    def train(part: list[int], networks: list[Network]) -> None:
        method = {"loss": chosen.loss, "mix": chosen.mix, "optimizer": chosen.optimizer}
        data = batches(part, shape)
        fit(networks, data, COUNTS[part], SETTINGS, rate=rate, iterations=2, mix_seeds=part, **method)

    train([0, 1, 2], together)
    for index in range(3):
        train([index], alone[index : index + 1])
        for (key, wide), single, before in zip(
            together[index].state_dict().items(),
            alone[index].state_dict().values(),
            start[index].state_dict().values(),
            strict=True,
        ):
            if wide.ndim:
                # Loss weights and margins are float32.
                torch.testing.assert_close(
                    wide, single, rtol=1e-6, atol=1e-7, msg=lambda text, key=key: f"{key}: {text}"
                )
                assert key.endswith("running_mean") or not torch.equal(single, before), f"{key} did not move"


def test_wide_training_in_float32() -> None:
    together = [build("lenet", 5, seed) for seed in range(3)]
    start, alone = copy.deepcopy(together), copy.deepcopy(together)
    fit(together, batches([0, 1, 2], (1, 28, 28), torch.float32), COUNTS, SETTINGS, rate=0.01, iterations=3)
    for index in range(3):
        fit(
            alone[index : index + 1],
            batches([index], (1, 28, 28), torch.float32),
            COUNTS[[index]],
            SETTINGS,
            rate=0.01,
            iterations=3,
        )
        ours, theirs, before = (
            nn.utils.parameters_to_vector(networks[index].parameters())
            for networks in (together, alone, start)
        )
        assert (ours - theirs).norm() < 1e-2 * (theirs - before).norm()


def test_single_training_is_plain_torch() -> None:
    network, reference = build("lenet", 5, 0).double(), build("lenet", 5, 0).double()
    fit([network], batches([0], (1, 28, 28)), COUNTS[:1], SETTINGS, rate=0.01, iterations=5)
    groups = [
        {"params": [p for n, p in reference.named_parameters() if n.endswith("bias") is biases], "lr": 0.0}
        for biases in (False, True)
    ]
    optimiser = torch.optim.SGD(groups, momentum=0.9, weight_decay=5e-4)
    source = batches([0], (1, 28, 28))
    for step in range(5):
        for group, factor in zip(optimiser.param_groups, (1, 2), strict=True):
            group["lr"] = 0.01 * factor * (1 + 0.1 * step) ** -0.75
        images, targets = next(source)
        optimiser.zero_grad()
        nn.functional.cross_entropy(reference(images[:, 0]), targets[:, 0]).backward()
        optimiser.step()
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_adamw_decays_as_its_settings_say() -> None:
    network, reference = build("lenet", 5, 0).double(), build("lenet", 5, 0).double()
    settings = TrainingSettings(batch_size=8, adamw_decay=0.3, weight_decay=9.0)
    fit(
        [network], batches([0], (1, 28, 28)), COUNTS[:1], settings, rate=1e-3, iterations=2, optimizer="adamw"
    )
    optimiser = torch.optim.AdamW(reference.parameters(), lr=1e-3, weight_decay=0.3)
    source = batches([0], (1, 28, 28))
    for _ in range(2):
        images, targets = next(source)
        optimiser.zero_grad()
        nn.functional.cross_entropy(reference(images[:, 0]), targets[:, 0]).backward()
        optimiser.step()
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_widening_round_trip_and_unknown_layers() -> None:
    networks = [build("lenet", 5, seed) for seed in range(3)]
    wide = widen(networks)
    images = torch.rand(2, 3, 1, 28, 28)
    out = wide(images.reshape(2, 3, 28, 28)).view(2, 3, 5)
    for index, network in enumerate(networks):
        torch.testing.assert_close(out[:, index], network(images[:, index]), rtol=1e-4, atol=1e-5)
    copies = [build("lenet", 5, 9) for _ in networks]
    copy_back(wide, copies)
    for network, restored in zip(networks, copies, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(network.parameters(), restored.parameters(), strict=True)
        )
    with pytest.raises(TypeError, match="LayerNorm"):
        widen([nn.Sequential(nn.LayerNorm(4)), nn.Sequential(nn.LayerNorm(4))])
