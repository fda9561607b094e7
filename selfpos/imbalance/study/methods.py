"""All methods: ways to train a network, and second stages on a trained one.

What a method leaves out is as in the baseline; `losses` and `heads` hold what it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from selfpos.errors import SelfposError, unknown
from selfpos.imbalance.study import heads, losses
from selfpos.imbalance.study.sampling import Ints, oversample, undersample
from selfpos.imbalance.study.trainer import Loss, Mix, cross_entropy

BUDA = "Buda, Maki, Mazurowski 2018, arXiv 1710.05381"
SAMPLING = f"{BUDA}, sections 3.1.1 and 4.5"
TWO_PHASE = f"Havaei et al. 2017; {BUDA}, section 3.1.3"
LIN, CUI = "Lin et al. 2017, arXiv 1708.02002", "Cui et al. 2019, arXiv 1901.05555"
KANG = "Kang et al. 2020, arXiv 1910.09217, section 4"


@dataclass(frozen=True)
class Method:
    """A way to train a network from its first weights."""

    name: str
    source: str
    loss: Loss = cross_entropy
    resample: Callable[[Ints, int, float], Ints] | None = None  # labels, seed, ratio → positions to train on
    ratio: float = 1.0
    mix: Mix | None = None
    cosine_head: bool = False
    optimizer: Literal["adamw"] | None = None  # None: the recipe's
    size_matched: bool = False
    with_second_stage: bool = False  # as many iterations as a first and a second stage together

    @property
    def parent(self) -> str:
        """The method that trains the networks: this one."""
        return self.name


@dataclass(frozen=True)
class Refit:
    """A second stage: the networks of the method `parent` keep their trunks and get other heads."""

    name: str
    source: str
    refit: Callable[[heads.Stage], heads.Heads]
    parent: str = "baseline"


ALL: list[Method | Refit] = [
    Method("baseline", BUDA),
    # The study lacks this control: as many examples, but balanced, separates the loss of balance from that of
    # data.
    Method("size-matched", "control: the same total number of examples, balanced", size_matched=True),
    # Heavy-tailed class sizes slow rare classes under SGD and much less under Adam.
    Method("adamw", "Kunstner et al. 2024, arXiv 2402.19449; Loshchilov and Hutter 2019", optimizer="adamw"),
    Method("ros", SAMPLING, resample=oversample),
    Method("rus", SAMPLING, resample=undersample),
    Method(
        "ros-long",
        "control: ROS for as many iterations as methods with a second stage have in both",
        resample=oversample,
        with_second_stage=True,
    ),
    Method("weighted", "inverse class frequency", loss=losses.weighted_cross_entropy),
    Method("class-balanced", f"{CUI}, equation 2", loss=losses.class_balanced),
    Method("focal", f"{LIN}, equation 4", loss=losses.focal),
    Method("focal-balanced", f"{LIN}, equation 5, with the α of {CUI}", loss=losses.focal_balanced),
    Method(
        "ldam-drw",
        "Cao et al. 2019, arXiv 1906.07413, equations 10-13",
        loss=losses.ldam_drw,
        cosine_head=True,
    ),
    Method("logit-adjustment", "Menon et al. 2021, arXiv 2007.07314, equation 10", losses.logit_adjusted),
    Method("balanced-softmax", "Ren et al. 2020, arXiv 2007.10740, equation 4", losses.balanced_softmax),
    Method("mixup", "Zhang et al. 2018, arXiv 1710.09412, equation 1", mix=losses.mixup),
    Method("remix", "Chou et al. 2020, arXiv 2007.03943, equations 4-6", mix=losses.remix),
    Refit("two-phase-ros", TWO_PHASE, heads.two_phase, parent="ros"),
    Refit("two-phase-rus", TWO_PHASE, heads.two_phase, parent="rus"),
    Refit("crt", KANG, heads.retrain),
    Refit("lws", KANG, heads.learn_scales),
    Refit("tau-norm", KANG, heads.normalise),
    Refit("ncm", f"nearest class mean; {KANG}", heads.nearest_mean),
    Refit("smote", "Chawla et al. 2002, in feature space", heads.smote),
]
METHODS = {method.name: method for method in sorted(ALL, key=lambda method: method.name)}


def get_method(name: str) -> Method | Refit:
    """The method `name`; `ros:R` and `rus:R` sample to the ratio R. Raises SelfposError for unknown names."""
    stem, _, ratio = name.partition(":")
    if stem not in METHODS:
        raise unknown("imbalance method", stem, METHODS)
    method = METHODS[stem]
    if not ratio:
        return method
    try:
        target = float(ratio)
    except ValueError:
        target = 0.0
    if not isinstance(method, Method) or method.resample is None or not 1 <= target < math.inf:
        raise SelfposError(
            f"method '{name}': only ros:R and rus:R take a target ratio, a number of 1 or more"
        )
    return replace(method, name=name, ratio=target)
