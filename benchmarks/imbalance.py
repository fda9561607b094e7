"""Images per second of training many small networks: one wide network against a plain loop over single ones, in one run.

    python benchmarks/imbalance.py --networks 5 --batch 64 --threads 1 [--device cuda] [--out benchmarks/results/imbalance.json]

The ways take turns, round by round, so that other work on the machine falls on all of them; the median of the rounds counts.
plain: torch as one writes it, a network after the other. single: this project's `fit`, a network after the other. wide: `fit` on all at once
(grouped convolutions). vmap: torch.func over stacked parameters.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from selfpos.imbalance.networks import Network, build
from selfpos.imbalance.recipe import TrainingSettings
from selfpos.imbalance.trainer import fit

SHAPES = {"lenet": (1, 28, 28), "all-cnn": (3, 32, 32)}
SETTINGS = TrainingSettings()


def plain(networks: list[Network], images: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    for place, network in enumerate(networks):
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[:, place]), targets[:, place]).backward()
            optimiser.step()


def single(networks: list[Network], images: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    for place, network in enumerate(networks):
        batches = itertools.repeat((images[:, place : place + 1], targets[:, place : place + 1]))
        fit([network], batches, np.ones((1, 10), np.int64), SETTINGS, rate=0.01, iterations=steps)


def wide(networks: list[Network], images: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    fit(networks, itertools.repeat((images, targets)), np.ones((len(networks), 10), np.int64), SETTINGS, rate=0.01, iterations=steps)


def vmap(networks: list[Network], images: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    stacked, _ = torch.func.stack_module_state(networks)
    parameters = {name: tensor.detach().requires_grad_() for name, tensor in stacked.items()}
    optimiser = torch.optim.SGD(parameters.values(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(torch.func.functional_call(networks[0], weights, (x,)), y)

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 1, 1), randomness="different")
    for _ in range(steps):
        for name, gradient in gradients({name: tensor.detach() for name, tensor in parameters.items()}, images, targets).items():
            parameters[name].grad = gradient
        optimiser.step()


WAYS: dict[str, Callable[[list[Network], torch.Tensor, torch.Tensor, int], None]] = {
    "plain": plain,
    "single": single,
    "wide": wide,
    "vmap": vmap,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=sorted(SHAPES), default="lenet")
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    images = torch.rand(chosen.batch, chosen.networks, *SHAPES[chosen.network], device=device)
    targets = torch.randint(10, (chosen.batch, chosen.networks), device=device)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(chosen.rounds + 1):
        for name, way in WAYS.items():
            networks = [build(chosen.network, 10, seed).to(device) for seed in range(chosen.networks)]
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            way(networks, images, targets, chosen.steps)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    count = chosen.networks * chosen.batch * chosen.steps
    speed = {name: count / statistics.median(found) for name, found in seconds.items()}
    result = {
        "network": chosen.network, "networks": chosen.networks, "batch": chosen.batch, "device": _device(device), "threads": chosen.threads,
        "torch": torch.__version__, "images_per_second": {name: round(value, 1) for name, value in speed.items()},
        "ratio_to_plain": {name: round(value / speed["plain"], 2) for name, value in speed.items()},
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.processor() or platform.machine()} CPU"


if __name__ == "__main__":
    main()
