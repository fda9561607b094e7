"""An expert of the majority classes and one of the minority, merged, against oversampling and thresholding.

Merges are average and SLERP of the two vectors, and Self Positioning: gradient descent on a_1, a_2 and λ over
a probe set (Li et al., arXiv 2410.15035, section 3.3), the validation images, balanced or thinned to the
shares of the training set. A balanced probe is hidden oversampling, so thresholding's τ is tuned on it too.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from selfpos.imbalance.carryover import comparison
from selfpos.imbalance.carryover.comparison import Bench, Measured, Outcome, Vector, compared
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.sampling import Ints, stream
from selfpos.imbalance.study.scoring import best_tau
from selfpos.imbalance.study.trainer import Sample
from selfpos.positioning.space import chain, get_space

STEPS, RATE, PENALTY = 100, 0.05, 0.05  # of the search; μ of μ·λ is the paper's
MERGED = {probe: f"experts, Self Positioning, {probe} probe" for probe in ("balanced", "natural")}
TUNED = "thresholding, τ tuned on the balanced probe"


def iterations(length: int) -> int:
    """Iterations that a seed takes in all, where the recipe's training takes `length`."""
    return 3 * length + 3 * comparison.third(length)


def measure(bench: Bench, seed: int) -> Measured:
    """Measures on the test images, by arm."""
    trained = {name: bench.train(name, seed) for name in ("baseline", "ros", "logit-adjustment")}
    start, experts, sample = bench.experts(seed)
    vectors = [comparison.difference(expert, start) for expert in experts]
    gram = comparison.gram_of(vectors)
    natural = thinned(sample, bench.data.train.labels)
    coefficients = {
        "experts, average": [0.5, 0.5],
        "experts, SLERP": chain(torch.ones(2, dtype=torch.float64), gram).tolist(),
        MERGED["natural"]: search(bench, start, vectors, gram, natural, seed),
        MERGED["balanced"]: search(bench, start, vectors, gram, sample.validation, seed),
    }
    networks = {name: unit.networks[0] for name, unit in trained.items()}
    networks |= dict(zip(("majority expert", "minority expert"), experts, strict=True))
    networks |= {name: comparison.moved(start, vectors, c) for name, c in coefficients.items()}
    test = trained["baseline"].test
    scores = {name: bench.predict(network, test, test=True) for name, network in networks.items()}
    arms = {name: comparison.measures(*arm_scores, sample) for name, arm_scores in scores.items()}
    for name in ("baseline", "ros"):
        tau = best_tau(*bench.predict(networks[name], sample.validation, test=False), sample.counts)
        arms[f"{name} + thresholding"] = comparison.measures(*scores[name], sample, 1.0)
        arms[f"{name} + {TUNED}"] = comparison.measures(*scores[name], sample, tau)
    return {"arms": arms, "coefficients": coefficients}


def thinned(sample: Sample, labels: Ints) -> Ints:
    """The validation images with the training set's shares of the classes; at least one of each."""
    chosen = []
    for label, count in enumerate(sample.counts):
        members = sample.validation[labels[sample.validation] == label]
        chosen.append(members[: max(round(len(members) * count / sample.counts.max()), 1)])
    return np.concatenate(chosen)


def search(
    bench: Bench, start: Network, vectors: list[Vector], gram: Tensor, probe: Ints, seed: int
) -> list[float]:
    """The coefficients of the two vectors by Self Positioning on the training images `probe`."""
    start = copy.deepcopy(start).eval()  # without dropout, and with the statistics of its training
    space = get_space("spherical")
    rows = space.start(gram).requires_grad_()
    optimiser = torch.optim.Adam([rows], lr=RATE)
    origin, train = comparison.weights_of(start), bench.data.train
    batches = stream(np.arange(len(probe)), min(bench.recipe.training.batch_size, len(probe)), seed + 5000)
    for _ in range(STEPS):
        index = probe[next(batches)]
        coefficients = space.coefficients(rows, gram[None])[0].float()
        weights = comparison.moved_weights(origin, vectors, coefficients)
        images = train.batch(index, None).to(bench.device)
        labels = torch.from_numpy(train.labels[index]).to(bench.device)
        loss = nn.functional.cross_entropy(torch.func.functional_call(start, weights, (images,)), labels)
        optimiser.zero_grad()
        (loss + PENALTY * space.scale(rows, gram[None]).sum()).backward()
        optimiser.step()
        with torch.no_grad():
            rows.clamp_(min=1e-3)  # the chain's a_i only make sense above zero
    return [float(x) for x in space.coefficients(rows.detach(), gram[None])[0]]


def outcome(by_seed: list[Measured]) -> Outcome:
    """Merged experts against the rivals."""
    names, fields = list(by_seed[0]["arms"]), list(next(iter(by_seed[0]["arms"].values())))

    def of(name: str, field: str) -> list[float]:
        return [values["arms"][name][field] for values in by_seed]

    findings = []
    for probe, name in MERGED.items():
        for field in ("auc", "balanced accuracy"):
            claim = f"Self Positioning ({probe} probe) is better than ROS, {field}"
            findings.append(compared(claim, of(name, field), of("ros", field), strict=True))
    field = "balanced accuracy"
    for rival in (f"baseline + {TUNED}", "logit-adjustment"):
        claim = f"Self Positioning (balanced probe) is better than {rival}, {field}"
        findings.append(compared(claim, of(MERGED["balanced"], field), of(rival, field), strict=True))
    return Outcome(
        "Merged experts against oversampling and thresholding",
        "merging fails where the rival at equal draws lies within the interval",
        ["arm", *fields],
        [[name, *(comparison.mean(of(name, field)) for field in fields)] for name in names],
        findings,
    )
