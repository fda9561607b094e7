"""Two-phase training: the head of a network trained on sampled data is fine-tuned on the imbalanced data."""

from __future__ import annotations

import copy

from torch import nn

from selfpos.imbalance.study.methods.registry import Refit, register
from selfpos.imbalance.study.sampling import stream
from selfpos.imbalance.study.second_stage import Stage


def two_phase(stage: Stage) -> list[nn.Sequential]:
    """The trained heads, trained on with the first stage's settings and its base rate times `second_rate`."""
    heads = [copy.deepcopy(network.head) for network in stage.networks]
    streams = [
        stream(sample.positions, stage.settings.batch_size, sample.seed + 1000) for sample in stage.samples
    ]
    stage.fit_heads(heads, streams, rate=stage.settings.second_rate)
    return heads


SOURCE = "Havaei et al. 2017; Buda, Maki, Mazurowski 2018, section 3.1.3"
register(Refit("two-phase-ros", SOURCE, parent="ros", refit=two_phase))
register(Refit("two-phase-rus", SOURCE, parent="rus", refit=two_phase))
