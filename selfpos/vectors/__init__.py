"""Task vectors V_i = θ_i − θ0: read lazily from models and LoRA adapters, checked, measured."""

from __future__ import annotations

from selfpos.vectors.gram import gram, norms_and_cosines, tensor_gram
from selfpos.vectors.task_vector import TaskVector, open_vectors

__all__ = ["TaskVector", "gram", "norms_and_cosines", "open_vectors", "tensor_gram"]
