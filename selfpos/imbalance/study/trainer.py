"""Training and predictions of S networks as one wide network.

Shapes: logits (B, S, K), targets (B, S), class counts (S, K), for S networks trained side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from selfpos.console import log
from selfpos.imbalance.study.batch_last import join_pooling
from selfpos.imbalance.study.data import Images
from selfpos.imbalance.study.networks import Network, copy_back, widen
from selfpos.imbalance.study.recipe import TrainingSettings
from selfpos.imbalance.study.sampling import Floats, Ints, Streams

CHUNK = 500  # images of which features or predictions are computed
Batches = Iterator[tuple[Tensor, Tensor]]  # images (B, S, …) float32, targets (B, S)
Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""logits, targets, counts, progress 0 … 1 → losses (B, S), whose mean over B is each network's loss."""
Mix = Callable[[Tensor, Tensor, Tensor, Sequence[np.random.Generator]], tuple[Tensor, Tensor, Tensor]]
"""images (B, S, …), targets, counts, a generator per network → mixed images, second targets, shares."""


def cross_entropy(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """−log softmax(z)_y, (B, S)."""
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view_as(targets)


@dataclass(frozen=True)
class Sample:
    """The imbalanced training set of one network (one seed)."""

    seed: int
    index: Ints  # positions of its examples among the training images
    labels: Ints  # of these examples
    counts: Ints  # unique examples of every class: the prior before any sampling
    minority: Ints  # labels of the small classes
    validation: Ints  # positions of its validation images

    @property
    def positions(self) -> Ints:
        """Each of its examples once, as positions into `index`."""
        return np.arange(len(self.index))


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
    optimizer: str | None = None,
    tick: Callable[[], None] | None = None,
    watch: Callable[[int], None] | None = None,
    watch_every: int | None = None,
) -> None:
    """Train `networks` (one architecture) in place, each by its loss on its part of `batches`.

    `counts` (S, K) are the class sizes that losses use. The sum of the losses is minimised, so each network
    gets the gradient that it would get alone. `tick` is called after every iteration; `watch` gets the
    iteration, with the networks up to date, every `watch_every` of them and at the end.
    """
    device = next(networks[0].parameters()).device
    wide = widen(networks).train()
    if len(networks) == 1 and device.type == "cpu" and torch.get_num_threads() == 1:
        join_pooling(wide)
    optimiser = _optimiser(wide, settings, rate, optimizer or settings.optimizer)
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
        logits = wide(join_networks(images)).flatten(1).view(images.shape[0], images.shape[1], -1)
        losses = loss(logits, targets, sizes, iteration / iterations)
        if others is not None and shares is not None:
            losses = shares * losses + (1 - shares) * loss(logits, others, sizes, iteration / iterations)
        optimiser.zero_grad(set_to_none=True)
        losses.mean(dim=0).sum().backward()
        optimiser.step()
        if tick is not None:
            tick()
        done = iteration + 1
        if watch is not None and watch_every and (done % watch_every == 0 or done == iterations):
            copy_back(wide, networks)
            watch(done)
    copy_back(wide, networks)


def _optimiser(wide: nn.Module, settings: TrainingSettings, rate: float, kind: str) -> torch.optim.Optimizer:
    """SGD or AdamW over all parameters that require gradients; `factor` is of the biases' rate."""
    groups = []
    for biases, factor in ((False, 1.0), (True, settings.bias_rate)):
        named = [(name, parameter) for name, parameter in wide.named_parameters() if parameter.requires_grad]
        parameters = [parameter for name, parameter in named if name.endswith("bias") == biases]
        if parameters:
            groups.append({"params": parameters, "factor": factor})
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=settings.adamw_decay, fused=True)
    return torch.optim.SGD(
        groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True
    )


def image_batches(
    images: Images, samples: Sequence[Sample], streams: Streams, device: torch.device
) -> Batches:
    """Join each network's stream of positions into batches of images (B, S, C, H, W) and targets (B, S)."""
    rng = np.random.default_rng([samples[0].seed, 5])
    while True:
        positions = [next(stream) for stream in streams]
        index = np.stack([sample.index[at] for sample, at in zip(samples, positions, strict=True)], axis=1)
        targets = np.stack([sample.labels[at] for sample, at in zip(samples, positions, strict=True)], axis=1)
        yield images.batch(index, rng).to(device), torch.from_numpy(targets).to(device)


def predict(
    networks: Sequence[Network], heads: Mapping[str, Sequence[nn.Module]], images: Images, index: Ints
) -> dict[str, Floats]:
    """Log-softmax in float64 of every set of `heads` on the networks' trunks, (S, n, K) each.

    `index` is (n,) for images that all networks see, or (n, S). A network whose training diverged gets the
    uniform distribution, whose AUC is 50, and a warning in the log.
    """
    device = next(networks[0].parameters()).device
    trunk = widen([network.trunk for network in networks]).eval()
    wide_heads = {name: widen(list(modules)).eval() for name, modules in heads.items()}
    parts: dict[str, list[Tensor]] = {name: [] for name in heads}
    with torch.inference_mode():
        for start in range(0, len(index), CHUNK):
            at = index[start : start + CHUNK]
            pixels = images.batch(at, None).to(device)
            if at.ndim == 1:
                pixels = pixels[:, None].expand(-1, len(networks), *pixels.shape[1:])
            features = trunk(join_networks(pixels))
            for name, head in wide_heads.items():
                logits = head(features).flatten(1).view(len(at), len(networks), -1)
                parts[name].append(logits.double().log_softmax(dim=2).cpu())
    return {name: _finite(torch.cat(chunks).transpose(0, 1).numpy(), name) for name, chunks in parts.items()}


def _finite(log_probs: Floats, name: str) -> Floats:
    diverged = np.array([not np.isfinite(values).all() for values in log_probs])
    if diverged.any():
        message = "%s: the training of %d of %d networks diverged; they are scored as guessing"
        log.warning(message, name, diverged.sum(), len(diverged))
        log_probs = log_probs.copy()
        log_probs[diverged] = -np.log(log_probs.shape[2])
    return log_probs


def join_networks(images: Tensor) -> Tensor:
    """(B, S, C, H, W) → (B, S·C, H, W), the layout that a wide network takes."""
    joined = images.reshape(images.shape[0], -1, *images.shape[3:])
    if joined.device.type != "cpu":
        return joined
    # Copied even where it seems needless: images of one channel have both layouts at once, and torch would
    # take the slower for all that follows.
    return torch.empty_like(joined, memory_format=torch.channels_last).copy_(joined)
