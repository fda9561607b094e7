"""Task vectors V_i = θ_i − θ0: taken lazily from fine-tuned models and from LoRA adapters, checked against their base, measured."""

from __future__ import annotations

from selfpos.vectors.angles import norms_and_cosines
from selfpos.vectors.gram import gram, tensor_gram
from selfpos.vectors.task_vector import TaskVector, open_vectors

__all__ = ["TaskVector", "gram", "norms_and_cosines", "open_vectors", "tensor_gram"]
