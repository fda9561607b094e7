"""Task vectors whose matrices no longer use each other's directions.

Fine-tunings of one base move a matrix along directions that partly are the same, so a sum goes too far along
these. TSV-M (Gargiulo et al. 2025, arXiv 2412.00081) keeps the leading r/N singular directions of each of N
vectors and makes them orthogonal to those of the others. Its parts U⊥_i Σ_i V⊥_iᵀ do not depend on the
vectors' weights, so they are vectors that a search may take: the merge stays linear in the coefficients.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import progress
from selfpos.errors import SelfposError
from selfpos.positioning.lowrank import is_low_rank
from selfpos.vectors import gram, norms_and_cosines
from selfpos.vectors.names import is_linear_map
from selfpos.vectors.parts import Kept, TensorPart

if TYPE_CHECKING:
    from selfpos.recipe import PositioningSettings
    from selfpos.storage.model_folder import ModelFolder
    from selfpos.vectors import TaskVector

LARGEST = 1_000_000_000  # weights in matrices: beyond, their decompositions take hours
NEAREST = 0.5  # cosine of two vectors that are still taken for different tasks
ROOM = 2  # times the size of the files that must be free, for the system's other needs


def separates(vectors: Sequence[TaskVector], settings: PositioningSettings) -> bool:
    """Whether a search with `settings` separates `vectors`.

    One vector is separate as it is, and adapters run beside the base. Without a word in the settings the
    linearised search separates what is quick to decompose and no soup: of vectors that are nearly one, such
    as checkpoints of one training, the common directions are the point.
    """
    if len(vectors) == 1 or (settings.low_rank and is_low_rank(vectors)):
        return False
    if settings.separate is not None:
        return settings.separate
    base = vectors[0].base
    if settings.search != "linearised" or sum(base.tensors[key].numel for key in _matrices(base)) > LARGEST:
        return False
    _, cosines = norms_and_cosines(gram(vectors))
    return bool((cosines - np.eye(len(vectors))).max() <= NEAREST)


def merge_method(separated: bool) -> dict[str, Any]:
    """What applies coefficients, as keywords of `merge`: method, and its parameters where it has some."""
    return {"method": "tsv-m", "params": {"others": "sum"}} if separated else {"method": "linear"}


def is_separated(vectors: Sequence[TaskVector]) -> bool:
    """Whether these are vectors that `separated` returned."""
    return any(isinstance(part, Kept) for vector in vectors for part in vector.parts.values())


def separated(vectors: Sequence[TaskVector], device: str = "cpu") -> list[TaskVector]:
    """The vectors with their matrices separated, in memory maps of files that exist until they are read last.

    Other tensors stay as they are, and so do matrices with numbers that are not finite.

    Args:
        vectors: two task vectors or more of one base.
        device: where the decompositions are computed.

    Raises:
        SelfposError: where the folder for temporary files has too little room.
    """
    base = vectors[0].base
    keys = _matrices(base)
    size = sum(base.tensors[key].numel for key in keys)
    folder = Path(tempfile.gettempdir())
    if shutil.disk_usage(folder).free < ROOM * 4 * size * len(vectors):
        raise SelfposError(
            f"separating the vectors needs {4 * size * len(vectors) >> 20:,} MB for temporary files, and "
            f"{folder} has too little room: set TMPDIR to a folder on a larger disk, or 'separate: false'"
        )
    files = [_scratch(size) for _ in vectors]
    parts: list[dict[str, TensorPart]] = [dict(vector.parts) for vector in vectors]
    start = 0
    with progress("separating the vectors", len(keys), unit="matrices") as bar:
        for key in keys:
            matrices = [vector.values(key) for vector in vectors]
            if all(np.isfinite(matrix).all() for matrix in matrices):
                stop = start + matrices[0].size
                for index, matrix in enumerate(orthogonal(matrices, device)):
                    files[index][start:stop] = matrix.reshape(-1)
                    parts[index][key] = Kept(files[index][start:stop])
                start = stop
            bar.advance(1)
    return [replace(vector, parts=of_vector) for vector, of_vector in zip(vectors, parts, strict=True)]


def _scratch(size: int) -> np.ndarray:
    """So many float32 numbers in a file without a name, which ends with the last array that shows them."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(size,))


def orthogonal(matrices: Sequence[np.ndarray], device: str = "cpu") -> list[np.ndarray]:
    """The matrices of one tensor, separated: U⊥_i Σ_i V⊥_iᵀ of each."""
    from selfpos.merging.maths.matrices import join, leading, shared_rank
    from selfpos.merging.stream import array_module

    arrays: Sequence[Any] = matrices
    if device != "cpu":
        import torch

        arrays = [torch.from_numpy(matrix).to(device) for matrix in matrices]
    xp = array_module(arrays[0])
    rank = shared_rank(matrices[0].shape, len(matrices))
    left, values, right = join(xp, [leading(xp, array, rank) for array in arrays])
    parts = [slice(start, start + rank) for start in range(0, len(values), rank)]
    products = [(left[:, part] * values[part]) @ right[part] for part in parts]
    return [product if isinstance(product, np.ndarray) else product.cpu().numpy() for product in products]


def _matrices(base: ModelFolder) -> list[str]:
    """The tensors that are matrices of linear maps."""
    return [key for key, entry in base.tensors.items() if entry.mergeable and is_linear_map(key, entry.shape)]
