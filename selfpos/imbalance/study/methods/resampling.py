"""The methods of the study: the baseline with its controls, over- and undersampling, two-phase training."""

from __future__ import annotations

import copy

from torch import nn

from selfpos.imbalance.study.methods.registry import Method, Refit, register
from selfpos.imbalance.study.sampling import oversample, stream, undersample
from selfpos.imbalance.study.second_stage import Stage

BUDA = "Buda, Maki, Mazurowski 2018, arXiv 1710.05381"
TWO_PHASE = f"Havaei et al. 2017; {BUDA}, section 3.1.3"


def two_phase(stage: Stage) -> list[nn.Sequential]:
    """The heads, trained further on the imbalanced data, with the base rate times `second_rate`."""
    heads = [copy.deepcopy(network.head) for network in stage.networks]
    streams = [
        stream(sample.positions, stage.settings.batch_size, sample.seed + 1000) for sample in stage.samples
    ]
    stage.fit_heads(heads, streams, rate=stage.settings.second_rate)
    return heads


register(
    Method("baseline", BUDA),
    # The study lacks this control: as many examples, but balanced, separates the loss of balance from that of
    # data.
    Method("size-matched", "control: the same total number of examples, balanced", size_matched=True),
    # Heavy-tailed class sizes slow rare classes under SGD and much less under Adam.
    Method("adamw", "Kunstner et al. 2024, arXiv 2402.19449; Loshchilov and Hutter 2019", optimizer="adamw"),
    Method("ros", f"{BUDA}, sections 3.1.1 and 4.5", resample=oversample),
    Method("rus", f"{BUDA}, sections 3.1.1 and 4.5", resample=undersample),
    Method(
        "ros-long",
        "control: ROS for as many iterations as methods with a second stage have in both",
        resample=oversample,
        with_second_stage=True,
    ),
    Refit("two-phase-ros", TWO_PHASE, two_phase, parent="ros"),
    Refit("two-phase-rus", TWO_PHASE, two_phase, parent="rus"),
)
