"""Plain training on the imbalanced set; and its two controls."""

from __future__ import annotations

from selfpos.imbalance.study.methods.registry import Method, register

BUDA = "Buda, Maki, Mazurowski 2018, arXiv 1710.05381"

register(Method("baseline", BUDA))
# The control that the study lacks: as many examples in all, but balanced, tells the loss of balance from the loss of data.
register(Method("size-matched", "control: the same total number of examples, balanced", size_matched=True))
# Heavy-tailed class sizes slow rare classes under SGD and much less under Adam.
register(
    Method("adamw", "Kunstner et al. 2024, arXiv 2402.19449; Loshchilov and Hutter 2019", optimizer="adamw")
)
