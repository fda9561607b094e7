"""Images per second of training many small networks, one way against another in one run, and what the paper's
grids cost at that speed.

    python benchmarks/imbalance.py --threads 1 [--device cuda] [--out benchmarks/results/imbalance.json]
    python benchmarks/imbalance.py --threads 2 --networks 6 --out benchmarks/results/imbalance_two_cores.json
    # a machine, all of its cores

The ways take turns, round by round, so that other work on the machine falls on all of them; the median of the
rounds counts. On one thread of a CPU the seconds are those that the process computed, not those it waited for
a core; they are more than on an idle machine where the load average exceeds the cores.

plain: torch as one writes it, a network after the other. single: this project's `fit`, a network
after the other, which is what a worker of `run_grid` does on a CPU. wide: `fit` on all at once (grouped
convolutions), which is what it does on a GPU. vmap: torch.func over stacked parameters. workers: `single` in
as many processes as there are threads, one thread each, as `run_grid` does with `--workers`; the other ways
have all threads for one network. Large networks are only measured as `run_grid` trains them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import nn

from selfpos.imbalance.study.grid import plan
from selfpos.imbalance.study.networks import Network, build
from selfpos.imbalance.study.recipe import TrainingSettings, load_imbalance_recipe
from selfpos.imbalance.study.trainer import fit

SHAPES = {"lenet": (1, 28, 28), "all-cnn": (3, 32, 32), "resnet-10": (3, 224, 224)}
SETTINGS = TrainingSettings()
RECIPES = Path(__file__).parents[1] / "recipes" / "imbalance"
GRIDS = ["mnist", "mnist-small", "cifar10", "cifar10-small", "imagenet"]


def plain(networks: list[Network], images: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    for index, network in enumerate(networks):
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[:, index]), targets[:, index]).backward()
            optimiser.step()


def single(networks: list[Network], images: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    for index, network in enumerate(networks):
        batches = itertools.repeat((images[:, index : index + 1], targets[:, index : index + 1]))
        fit([network], batches, np.ones((1, 10), np.int64), SETTINGS, rate=0.01, iterations=steps)


def wide(networks: list[Network], images: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    counts = np.ones((len(networks), 10), np.int64)
    batches = itertools.repeat((images, targets))
    fit(networks, batches, counts, SETTINGS, rate=0.01, iterations=steps)


def workers(
    pool: ProcessPoolExecutor,
    networks: list[Network],
    images: torch.Tensor,
    targets: torch.Tensor,
    steps: int,
) -> None:
    running = []
    for index, network in enumerate(networks):
        part = (images[:, index : index + 1].numpy(), targets[:, index : index + 1].numpy())
        running.append(pool.submit(_train_one, network, *part, steps))
    for trained in running:
        trained.result()


def _train_one(network: Network, images: np.ndarray, targets: np.ndarray, steps: int) -> Network:
    single([network], torch.from_numpy(images), torch.from_numpy(targets), steps)
    return network


def vmap(networks: list[Network], images: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    stacked, _ = torch.func.stack_module_state(networks)
    parameters = {name: tensor.detach().requires_grad_() for name, tensor in stacked.items()}
    optimiser = torch.optim.SGD(parameters.values(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(torch.func.functional_call(networks[0], weights, (x,)), y)

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 1, 1), randomness="different")
    for _ in range(steps):
        for name, gradient in gradients(
            {name: tensor.detach() for name, tensor in parameters.items()}, images, targets
        ).items():
            parameters[name].grad = gradient
        optimiser.step()


Way = Callable[[list[Network], torch.Tensor, torch.Tensor, int], None]
WAYS: dict[str, Way] = {"plain": plain, "single": single, "wide": wide, "vmap": vmap}


def measure(
    network: str, ways: dict[str, Way], count: int, batch: int, steps: int, rounds: int, device: torch.device
) -> dict[str, float]:
    """Images per second of each way of training `count` networks; the first round only warms up."""
    images = torch.rand(batch, count, *SHAPES[network], device=device)
    targets = torch.randint(10, (batch, count), device=device)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    clock = _clock(device)
    for turn in range(rounds + 1):
        for name, way in ways.items():
            networks = [build(network, 10, seed).to(device) for seed in range(count)]
            _wait(device)
            start = clock()
            way(networks, images, targets, steps)
            _wait(device)
            if turn:
                seconds[name].append(clock() - start)
    return {name: count * batch * steps / statistics.median(measured) for name, measured in seconds.items()}


def cost(name: str, speed: dict[str, float]) -> dict[str, object]:
    """The training of all units of a recipe at `speed`, images per second by network, without scoring."""
    recipe = load_imbalance_recipe(RECIPES / f"{name}.yaml")
    networks = sum(len(unit.seeds) for unit in plan(recipe))
    images = networks * recipe.training.iterations * recipe.training.batch_size
    return {
        "networks trained": networks,
        "iterations": recipe.training.iterations,
        "hours": round(images / speed[recipe.network] / 3600, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=5, help="LeNets at once")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    gpu = device.type == "cuda"
    pool = ProcessPoolExecutor(chosen.threads, get_context("spawn"), torch.set_num_threads, (1,))
    ways = WAYS | ({"workers": partial(workers, pool)} if chosen.threads > 1 and not gpu else {})
    small = measure("lenet", ways, chosen.networks, chosen.batch, chosen.steps, chosen.rounds, device)
    as_trained: dict[str, Way] = {"wide": wide} if gpu else {"single": single}
    (way,) = as_trained
    large = {
        "all-cnn": measure("all-cnn", as_trained, 1, 256 if gpu else 32, 2, 2, device),
        "resnet-10": measure("resnet-10", as_trained, 1, 256 if gpu else 16, 2, 2, device),
    }
    place = f"{chosen.threads} cores" if chosen.threads > 1 else "one core"
    speed = {"lenet": small.get("workers", small[way])}
    speed |= {name: measured[way] for name, measured in large.items()}
    result = {
        "network": "lenet",
        "networks": chosen.networks,
        "batch": chosen.batch,
        "device": _device(device),
        "threads": chosen.threads,
        "seconds of": "computing" if _clock(device) is time.process_time else "wall clock",
        "torch": torch.__version__,
        "load average": round(os.getloadavg()[1], 1),
        "images_per_second": {name: round(value, 1) for name, value in small.items()},
        "ratio_to_plain": {name: round(value / small["plain"], 2) for name, value in small.items()},
        "images_per_second_as_trained": {name: round(value, 1) for name, value in speed.items()},
        f"cost on {'one GPU' if gpu else place}": {name: cost(name, speed) for name in GRIDS},
    }
    print(json.dumps(result, indent=2))
    pool.shutdown()
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _clock(device: torch.device) -> Callable[[], float]:
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU"


if __name__ == "__main__":
    main()
