"""Training S networks at once as one wide network, and what they predict.

With S = 1 it is plain training of a single network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfpos.console import log
from selfpos.imbalance.study.images import Images
from selfpos.imbalance.study.loss import Loss, Mix, cross_entropy
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.recipe import TrainingSettings
from selfpos.imbalance.study.wide import copy_back, widen

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Batches = Iterator[tuple[Tensor, Tensor]]  # images (B, S, …) float32, targets (B, S)


@dataclass(frozen=True)
class Sample:
    """The imbalanced training set of one network (one seed)."""

    seed: int
    index: Ints  # its examples' positions among the training images
    labels: Ints  # theirs, in the same order
    counts: Ints  # unique examples of every class: the prior before any sampling
    minority: Ints  # labels of the small classes
    validation: Ints  # positions of its validation images

    @property
    def positions(self) -> Ints:
        """Each of its examples once, as positions into `index`."""
        return np.arange(len(self.index))


@dataclass(frozen=True)
class Watch:
    """Something to do every so many iterations of a training: `look` gets the iteration and the networks as
    they are then.
    """

    every: int
    look: Callable[[int], None]


def fit(
    networks: Sequence[nn.Module],
    batches: Batches,
    counts: Ints,
    settings: TrainingSettings,
    *,
    rate: float,
    iterations: int,
    loss: Loss = cross_entropy,
    mix: Mix | None = None,
    mix_seeds: Sequence[int] = (),
    optimizer: str = "sgd",
    tick: Callable[[], None] | None = None,
    watch: Watch | None = None,
) -> None:
    """Train `networks` (one architecture) in place on `batches`, each by its own loss on its own part, all
    parameters that require gradients.

    `counts` (S, K) are the class sizes that losses look at, `rate` the base learning rate. The networks' sum
    of losses is descended, so each gets the gradient it would get alone. `tick` is called after every
    iteration.
    """
    device = next(networks[0].parameters()).device
    wide = widen(networks).train()
    parameters = [(name, parameter) for name, parameter in wide.named_parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [p for name, p in parameters if name.endswith("bias") == biases],
            "factor": settings.bias_rate if biases else 1.0,
        }
        for biases in (False, True)
    ]
    groups = [group for group in groups if group["params"]]
    optimiser: torch.optim.Optimizer
    if optimizer == "adamw":
        optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=settings.adamw_decay, fused=True)
    else:
        optimiser = torch.optim.SGD(
            groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True
        )
    schedule = settings.schedule.over(iterations)
    sizes = torch.from_numpy(counts).to(device)
    rngs = [np.random.default_rng([seed, 4]) for seed in mix_seeds]
    for iteration in range(iterations):
        for group in optimiser.param_groups:
            group["lr"] = rate * schedule(iteration) * group["factor"]
        images, targets = next(batches)
        shares = others = None
        if mix is not None:
            images, others, shares = mix(images, targets, sizes, rngs)
        logits = _forward(wide, images)
        terms = loss(logits, targets, sizes, iteration / iterations)
        if others is not None and shares is not None:
            terms = shares * terms + (1 - shares) * loss(logits, others, sizes, iteration / iterations)
        optimiser.zero_grad(set_to_none=True)
        terms.mean(dim=0).sum().backward()
        optimiser.step()
        if tick is not None:
            tick()
        if watch is not None and ((iteration + 1) % watch.every == 0 or iteration + 1 == iterations):
            copy_back(wide, networks)
            watch.look(iteration + 1)
    copy_back(wide, networks)


def image_batches(
    images: Images,
    samples: Sequence[Sample],
    streams: Sequence[Iterator[Ints]],
    device: torch.device,
    seed: int,
) -> Batches:
    """Join each network's stream of positions into batches of images (B, S, C, H, W) and targets (B, S)."""
    rng = np.random.default_rng([seed, 5])
    while True:
        positions = [next(stream) for stream in streams]
        index = np.stack([sample.index[at] for sample, at in zip(samples, positions, strict=True)], axis=1)
        targets = np.stack([sample.labels[at] for sample, at in zip(samples, positions, strict=True)], axis=1)
        yield images.batch(index, rng).to(device), torch.from_numpy(targets).to(device)


def predict(
    networks: Sequence[Network],
    heads: Mapping[str, Sequence[nn.Module]],
    images: Images,
    index: Ints,
    *,
    chunk: int = 500,
) -> dict[str, Floats]:
    """Log-softmax in float64 of every set of `heads` on the networks' trunks, (S, n, K) each.

    `index` (n,) are images that all networks see, or (n, S) each network's own. A network whose training
    diverged (logits not finite) gets the uniform distribution, whose AUC is 50, and a line in the log.
    """
    device = next(networks[0].parameters()).device
    trunk = widen([network.trunk for network in networks]).eval()
    wide_heads = {name: widen(list(modules)).eval() for name, modules in heads.items()}
    parts: dict[str, list[Tensor]] = {name: [] for name in heads}
    with torch.inference_mode():
        for start in range(0, len(index), chunk):
            at = index[start : start + chunk]
            pixels = images.batch(at, None).to(device)
            if at.ndim == 1:
                pixels = pixels[:, None].expand(-1, len(networks), *pixels.shape[1:])
            features = trunk(join_networks(pixels))
            for name, head in wide_heads.items():
                logits = head(features).flatten(1).view(len(at), len(networks), -1)
                parts[name].append(logits.double().log_softmax(dim=2).cpu())
    return {name: _finite(torch.cat(chunks).transpose(0, 1).numpy(), name) for name, chunks in parts.items()}


def _finite(log_probs: Floats, name: str) -> Floats:
    broken = np.array([not np.isfinite(own).all() for own in log_probs])
    if broken.any():
        log.warning(
            "%s: the training of %d of %d networks diverged; they are scored as guessing",
            name,
            broken.sum(),
            len(broken),
        )
        log_probs = log_probs.copy()
        log_probs[broken] = -np.log(log_probs.shape[2])
    return log_probs


def _forward(wide: nn.Module, images: Tensor) -> Tensor:
    """Images (B, S, C, H, W) → logits (B, S, K)."""
    return wide(join_networks(images)).flatten(1).view(images.shape[0], images.shape[1], -1)


def join_networks(images: Tensor) -> Tensor:
    """(B, S, C, H, W) → (B, S·C, H, W), the layout a wide network takes."""
    joined = images.reshape(images.shape[0], -1, *images.shape[3:])
    if joined.device.type != "cpu":
        return joined
    # Copied even where it seems needless: images of one channel have both layouts at once, and torch would
    # take the slower for all that follows.
    return torch.empty_like(joined, memory_format=torch.channels_last).copy_(joined)
