"""How the losses of several tasks become one number, so that tasks whose losses live on different scales do not drown each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from selfpos.errors import SelfposError, nearest

SMALLEST_GAIN = 0.05  # of the base's loss: a specialist that gains less cannot serve as the unit of its task
SHARPNESS = 10.0  # of the soft maximum, in units of normalised loss


@dataclass(frozen=True)
class Balance:
    """Weighs task losses L_k into one value, differentiably.

    `normalise`: `none` takes L_k; `base` L_k / L_k(base); `gain` (L_k − L_k(best specialist)) / (L_k(base) − L_k(best specialist)), the share
    of the specialist's gain still missing, where a gain below 5 % of the base's loss counts as 5 %.
    `mode`: `mean`, weighted by `ratios`; `worst`, the soft maximum log Σ w_k exp(10·x_k) / 10; `uncertainty`, mean of log L_k, which is what
    homoscedastic uncertainty weighting (Kendall et al., CVPR 2018, equation 7) comes to with its variances at their optimum.
    """

    normalise: str = "none"
    mode: str = "mean"
    ratios: Mapping[str, float] = field(default_factory=dict)
    base: Mapping[str, float] = field(default_factory=dict)
    specialist: Mapping[str, float] = field(default_factory=dict)

    @property
    def needs_references(self) -> bool:
        return self.normalise != "none" or self.mode == "uncertainty"

    def normalised(self, task: str, loss: Tensor) -> Tensor:
        if self.normalise == "none":
            return loss
        unit = abs(self.base[task]) or 1.0
        if self.normalise == "base":
            return loss / unit
        return (loss - self.specialist[task]) / max(
            self.base[task] - self.specialist[task], SMALLEST_GAIN * unit
        )

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One value of the losses of the tasks at hand (all of them, or the one of a single-task batch)."""
        weights = torch.tensor([self.ratios.get(task, 1.0) for task in losses], dtype=torch.float64)
        weights = weights / weights.sum()
        if self.mode == "uncertainty":
            # a loss may touch zero, where the logarithm would care for nothing else: a thousandth of the base's is its floor
            values = [torch.log(loss + 1e-3 * (abs(self.base[task]) or 1.0)) for task, loss in losses.items()]
        else:
            values = [self.normalised(task, loss) for task, loss in losses.items()]
        stacked = torch.stack(values)
        weights = weights.to(stacked)
        if self.mode == "worst":
            return torch.logsumexp(SHARPNESS * stacked + weights.log(), 0) / SHARPNESS
        return (weights * stacked).sum()

    def value(self, losses: Mapping[str, float]) -> float:
        """The same of plain numbers."""
        return self({task: torch.tensor(loss, dtype=torch.float64) for task, loss in losses.items()}).item()


def check_ratios(ratios: Mapping[str, float], tasks: Mapping[str, object]) -> None:
    """Raise SelfposError when a ratio is given for a task that the probe does not have."""
    for name in ratios:
        if name not in tasks:
            raise SelfposError(
                f"positioning.ratios names the task '{name}', which the probe set does not have{nearest(name, tasks)}"
            )
