"""What a loss is, and the plain one.

Shapes: logits (B, S, K), targets (B, S), class counts (S, K), for S networks trained side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""logits, targets, counts, progress 0 … 1 → losses (B, S), whose mean over B is each network's loss."""
Mix = Callable[[Tensor, Tensor, Tensor, Sequence[np.random.Generator]], tuple[Tensor, Tensor, Tensor]]
"""images (B, S, …), targets, counts, a generator per network → mixed images, second targets, share of the
first.
"""


def cross_entropy(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """−log softmax(z)_y, (B, S)."""
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view_as(targets)
