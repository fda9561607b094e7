"""Fine-tuning: one task gives a specialist, several give a joint model."""

from __future__ import annotations

from selfpos.training.train import TrainingResult, train

__all__ = ["TrainingResult", "train"]
