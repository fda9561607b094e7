"""An expert of the majority classes and one of the minority, from one start, merged: against oversampling and
thresholding at equal draws.

The start is trained on the imbalanced set; start and experts take a third of the iterations each. Merges:
average and SLERP of the two vectors, and Self Positioning, the gradient descent of Li et al. (arXiv
2410.15035, section 3.3) on a_1, a_2 and λ over a probe set. The probe is the validation images, as balanced
as they are or thinned to the shares of the training set: a balanced probe is hidden oversampling, so the
rivals get it too, as the images on which thresholding's τ is tuned.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfpos.imbalance.carryover.arms import Bench, difference, inner, measures, moved, point_of
from selfpos.imbalance.carryover.outcome import Outcome, Values, finding, mean
from selfpos.imbalance.study.metrics import best_tau
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.sampling import stream
from selfpos.imbalance.study.trainer import Sample
from selfpos.positioning.space import chain, get_space

STEPS, RATE, PENALTY = 100, 0.05, 0.05  # of the search; μ of μ·λ is the paper's
TRAININGS = 4.0  # lengths of the recipe's training that a seed takes
Ints = NDArray[np.int64]


def measure(bench: Bench, seed: int) -> Values:
    """AUC, balanced accuracy and minority recall × 100 on the test images, by arm."""
    whole = {name: bench.train(name, seed) for name in ("baseline", "ros", "logit-adjustment")}
    start, experts, sample = bench.experts(seed)
    vectors = [difference(expert, start) for expert in experts]
    gram = torch.tensor([[inner(a, b) for b in vectors] for a in vectors], dtype=torch.float64)
    natural = thinned(sample, bench.data.train.labels)
    coefficients = {
        "experts, average": [0.5, 0.5],
        "experts, SLERP": chain(torch.ones(2, dtype=torch.float64), gram).tolist(),
        "experts, Self Positioning, natural probe": search(bench, start, vectors, gram, natural, seed),
        "experts, Self Positioning, balanced probe": search(
            bench, start, vectors, gram, sample.validation, seed
        ),
    }
    networks = {name: found.networks[0] for name, found in whole.items()} | {
        "majority expert": experts[0],
        "minority expert": experts[1],
    }
    networks |= {name: moved(start, vectors, c) for name, c in coefficients.items()}
    test = whole["baseline"].scoring.test
    arms = {
        name: measures(*bench.predict(network, test, test=True), sample) for name, network in networks.items()
    }
    for name in ("baseline", "ros"):
        scores, labels = bench.predict(networks[name], test, test=True)
        tau = best_tau(*bench.predict(networks[name], sample.validation, test=False), sample.counts)
        arms[f"{name} + thresholding"] = measures(scores, labels, sample, 1.0)
        arms[f"{name} + thresholding, τ tuned on the balanced probe"] = measures(scores, labels, sample, tau)
    return {"arms": arms, "coefficients": coefficients}


def thinned(sample: Sample, labels: Ints) -> Ints:
    """The validation images with the training set's shares of the classes; one at least of each."""
    kept = []
    for label, count in enumerate(sample.counts):
        members = sample.validation[labels[sample.validation] == label]
        kept.append(members[: max(round(len(members) * count / sample.counts.max()), 1)])
    return np.concatenate(kept)


def search(
    bench: Bench, start: Network, vectors: list[dict[str, Tensor]], gram: Tensor, probe: Ints, seed: int
) -> list[float]:
    """The coefficients of the two vectors that Self Positioning finds on the images `probe` of the training
    set.
    """
    start = copy.deepcopy(start).eval()  # without dropout, and with the statistics its training left
    space = get_space("spherical")
    rows = space.start(gram).requires_grad_()
    optimiser = torch.optim.Adam([rows], lr=RATE)
    origin = point_of(start)
    batches = stream(np.arange(len(probe)), min(bench.recipe.training.batch_size, len(probe)), seed + 5000)
    for _ in range(STEPS):
        at = probe[next(batches)]
        c = space.coefficients(rows, gram[None])[0].float()
        place = {
            name: tensor + sum(x * v[name] for x, v in zip(c, vectors, strict=True))
            for name, tensor in origin.items()
        }
        logits = torch.func.functional_call(
            start, place, (bench.data.train.batch(at, None).to(bench.device),)
        )
        loss = nn.functional.cross_entropy(
            logits, torch.from_numpy(bench.data.train.labels[at]).to(bench.device)
        )
        optimiser.zero_grad()
        (loss + PENALTY * space.scale(rows, gram[None]).sum()).backward()
        optimiser.step()
        with torch.no_grad():
            rows.clamp_(min=1e-3)  # the chain's a_i only make sense above zero
    return [float(x) for x in space.coefficients(rows.detach(), gram[None])[0]]


def outcome(found: list[Values]) -> Outcome:
    """Merged experts against the rivals."""
    fields = list(next(iter(found[0]["arms"].values())))
    arms = {
        name: {field: [one["arms"][name][field] for one in found] for field in fields}
        for name in found[0]["arms"]
    }
    merged = {probe: f"experts, Self Positioning, {probe} probe" for probe in ("balanced", "natural")}
    findings = [
        finding(
            f"Self Positioning ({probe} probe) is better than ROS, {field}",
            arms[name][field],
            arms["ros"][field],
            strict=True,
        )
        for probe, name in merged.items()
        for field in ("auc", "balanced accuracy")
    ]
    for rival in ("baseline + thresholding, τ tuned on the balanced probe", "logit-adjustment"):
        ours, theirs = arms[merged["balanced"]]["balanced accuracy"], arms[rival]["balanced accuracy"]
        findings.append(
            finding(
                f"Self Positioning (balanced probe) is better than {rival}, balanced accuracy",
                ours,
                theirs,
                strict=True,
            )
        )
    return Outcome(
        "Merged experts against oversampling and thresholding",
        "merging fails where the rival at equal draws lies within the interval",
        ["arm", *fields],
        [[name, *(mean(values[field]) for field in fields)] for name, values in arms.items()],
        findings,
    )
