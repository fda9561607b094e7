from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfpos.imbalance.study.methods import (
    balanced_softmax,
    class_balanced,
    effective_number_weights,
    focal,
    focal_balanced,
    ldam_drw,
    logit_adjusted,
    mixup,
    remix,
    weighted_cross_entropy,
)
from selfpos.imbalance.study.trainer import cross_entropy

COUNTS = torch.tensor([[500, 50, 5], [5, 500, 500]])


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 2, 3, generator=generator), torch.randint(3, (32, 2), generator=generator)


def per_network(losses: Tensor) -> list[float]:
    return losses.mean(dim=0).tolist()


def test_weighted_losses_are_torchs(batch: tuple[Tensor, Tensor]) -> None:
    logits, targets = batch
    plain = [nn.functional.cross_entropy(logits[:, s], targets[:, s]).item() for s in range(2)]
    assert per_network(cross_entropy(logits, targets, COUNTS, 0)) == pytest.approx(plain, rel=1e-5)
    inverse = [
        nn.functional.cross_entropy(logits[:, s], targets[:, s], weight=1 / COUNTS[s]).item()
        for s in range(2)
    ]
    assert per_network(weighted_cross_entropy(logits, targets, COUNTS, 0)) == pytest.approx(inverse, rel=1e-5)
    weights = [torch.tensor([(1 - 0.9999) / (1 - 0.9999 ** int(n)) for n in COUNTS[s]]) for s in range(2)]
    cui = [
        nn.functional.cross_entropy(logits[:, s], targets[:, s], weight=weights[s]).item() for s in range(2)
    ]
    assert per_network(class_balanced(logits, targets, COUNTS, 0)) == pytest.approx(cui, rel=1e-4)
    assert effective_number_weights(COUNTS).sum(dim=1).tolist() == pytest.approx([3, 3])


def test_focal_closed_form(batch: tuple[Tensor, Tensor]) -> None:
    logits, targets = batch
    p = logits.softmax(dim=2).gather(2, targets[..., None])[..., 0]
    torch.testing.assert_close(focal(logits, targets, COUNTS, 0), -((1 - p) ** 2) * p.log())
    # The class weight stands before the focal term, not within p_t; the batch's mean is over the sum of
    # weights.
    for s in range(2):
        weights = effective_number_weights(COUNTS)[s][targets[:, s]]
        expected = (-weights * (1 - p[:, s]) ** 2 * p[:, s].log()).sum() / weights.sum()
        assert per_network(focal_balanced(logits, targets, COUNTS, 0))[s] == pytest.approx(
            expected.item(), rel=1e-5
        )


def test_balanced_softmax_is_logit_adjustment(batch: tuple[Tensor, Tensor]) -> None:
    logits, targets = batch
    torch.testing.assert_close(
        balanced_softmax(logits, targets, COUNTS, 0),
        logit_adjusted(logits, targets, COUNTS, 0),
        rtol=1e-4,
        atol=1e-5,
    )
    by_hand = nn.functional.cross_entropy(
        logits[:, 0] + (COUNTS[0] / COUNTS[0].sum()).log(), targets[:, 0], reduction="none"
    )
    torch.testing.assert_close(logit_adjusted(logits, targets, COUNTS, 0)[:, 0], by_hand)


def test_ldam_margins_and_deferred_weights(batch: tuple[Tensor, Tensor]) -> None:
    logits, targets = batch
    margins = 0.5 * (COUNTS[0].double() / 5) ** -0.25  # n_j^(-1/4), scaled so that the rarest class has 1/2
    shifted = logits[:, 0].double().clone()
    shifted[torch.arange(32), targets[:, 0]] -= 30 * margins[targets[:, 0]]
    expected = nn.functional.cross_entropy(shifted, targets[:, 0])
    assert per_network(ldam_drw(logits, targets, COUNTS, 0.5))[0] == pytest.approx(expected.item(), rel=1e-5)
    weighted = nn.functional.cross_entropy(
        shifted, targets[:, 0], weight=effective_number_weights(COUNTS)[0].double()
    )
    assert per_network(ldam_drw(logits, targets, COUNTS, 0.8))[0] == pytest.approx(weighted.item(), rel=1e-5)


def test_mixup_and_remix() -> None:
    generator = torch.Generator().manual_seed(0)
    images, targets = (
        torch.rand(16, 2, 1, 4, 4, generator=generator),
        torch.randint(3, (16, 2), generator=generator),
    )

    def rngs() -> list[np.random.Generator]:
        return [np.random.default_rng(s) for s in (1, 2)]

    mixed, others, shares = mixup(images, targets, COUNTS, rngs())
    alone, _, _ = mixup(images[:, 1:], targets[:, 1:], COUNTS[1:], rngs()[1:])
    assert torch.equal(mixed[:, 1:], alone)  # a network's draws do not depend on its neighbours
    assert (shares[0] == shares).all()
    same, remix_others, remix_shares = remix(images, targets, COUNTS, rngs())
    assert torch.equal(same, mixed)
    assert torch.equal(others, remix_others)
    for b in range(16):
        for s in range(2):
            ratio = (COUNTS[s, targets[b, s]] / COUNTS[s, others[b, s]]).item()
            share = shares[b, s].item()
            expected = (
                0.0 if ratio >= 3 and share < 0.5 else 1.0 if ratio <= 1 / 3 and 1 - share < 0.5 else share
            )
            assert remix_shares[b, s].item() == pytest.approx(expected)
