"""Task vectors whose matrices interfere less with each other.

Fine-tunings of one base move a matrix along directions that partly are the same, so a sum goes too far along
these. WUDI (Cheng et al. 2025, arXiv 2503.08099) takes the matrix that differs least from each vector on the
inputs that this vector spans. With a pull to the sum it is linear in the vectors: the share of each is
V_i (G_i + λ) (Σ G_j + λ)⁻¹ with G_i = V_iᵀV_i / ‖V_i‖², whatever their weights. So a search may take the
shares as its vectors: the merge stays linear in the coefficients.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import progress
from selfpos.errors import OperationError, SelfposError
from selfpos.vectors import norms_and_cosines, tensor_gram
from selfpos.vectors.names import is_linear_map
from selfpos.vectors.parts import InMemory, TensorPart

if TYPE_CHECKING:
    from selfpos.recipe import PositioningSettings
    from selfpos.storage.model_folder import ModelFolder
    from selfpos.vectors import TaskVector

RIDGE = 1.0  # not tuned; in mean eigenvalues of Σ G_j
LARGEST = 1_000_000_000  # weights in matrices; more are not inverted unasked
NEAREST = 0.5  # cosine of two vectors that are still taken for different tasks


def separates(vectors: Sequence[TaskVector], settings: PositioningSettings) -> bool:
    """Whether a search with `settings` separates `vectors`.

    One vector is separate as it is. Where the settings leave it open, the linearised search separates whole
    models whose matrices are inverted in minutes and differ. Of vectors that are nearly one, such as
    checkpoints of one training, the common directions are the point.
    """
    if len(vectors) == 1 or settings.search != "linearised":
        return False
    if settings.separate is not None:
        return settings.separate
    base = vectors[0].base
    keys = matrices(base, settings.exclude)
    too_many = sum(base.tensors[key].numel for key in keys) > LARGEST
    if not keys or too_many or any(vector.folder.is_adapter for vector in vectors):
        return False
    _, cosines = norms_and_cosines(np.sum([tensor_gram(vectors, key) for key in keys], axis=0))
    return bool((cosines - np.eye(len(vectors))).max() <= NEAREST)


def merge_method(separated: bool) -> dict[str, Any]:
    """What applies coefficients, as keywords of `merge`: method, and its parameters where it has some."""
    return (
        {"method": "wudi", "params": {"ridge": RIDGE, "others": "sum"}} if separated else {"method": "linear"}
    )


def separated(
    vectors: Sequence[TaskVector], *, exclude: Sequence[str] = (), device: str = "cpu"
) -> list[TaskVector]:
    """The vectors with their matrices separated, in memory maps of temporary files without names.

    Other tensors stay as they are, and so do matrices with numbers that are not finite.

    Args:
        vectors: two task vectors or more of one base.
        exclude: patterns of tensors that the search leaves out.
        device: where the matrices are inverted.

    Raises:
        OperationError: where the folder for temporary files has too little room.
        SelfposError: where a matrix has no inverse.
    """
    base = vectors[0].base
    keys = matrices(base, exclude)
    size = sum(base.tensors[key].numel for key in keys)
    files = [_scratch(size) for _ in vectors]
    parts: list[dict[str, TensorPart]] = [dict(vector.parts) for vector in vectors]
    start = 0
    with progress("separating the vectors", len(keys), unit="matrices") as bar:
        for key in keys:
            values = [vector.values(key) for vector in vectors]
            if all(np.isfinite(matrix).all() for matrix in values):
                stop = start + values[0].size
                for index, matrix in enumerate(_separate(key, values, device)):
                    files[index][start:stop] = matrix.reshape(-1)
                    parts[index][key] = InMemory(files[index][start:stop])
                start = stop
            bar.advance(1)
    return [replace(vector, parts=of_vector) for vector, of_vector in zip(vectors, parts, strict=True)]


def _scratch(size: int) -> np.ndarray:
    """So many float32 numbers in a temporary file, which is gone when nothing refers to them any more."""
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate") and size:
            try:
                os.posix_fallocate(file.fileno(), 0, 4 * size)
            except OSError as error:
                raise OperationError(
                    f"separating the vectors needs {4 * size >> 20:,} MB for each in {tempfile.gettempdir()} "
                    f"({error.strerror}): set TMPDIR to a folder on a larger disk, or 'separate: false'"
                ) from None
        return np.memmap(file, np.float32, "w+", shape=(size,))


def _separate(key: str, values: Sequence[np.ndarray], device: str) -> list[np.ndarray]:
    try:
        return shares(values, device)
    except (np.linalg.LinAlgError, RuntimeError) as error:
        raise SelfposError(
            f"the vectors' matrices at {key} cannot be separated ({error}): set 'separate: false'"
        ) from None


def shares(values: Sequence[np.ndarray], device: str = "cpu") -> list[np.ndarray]:
    """The shares of one tensor's matrices (m, n): for each its V_i (G_i + λ) (Σ G_j + λ)⁻¹, in float32."""
    from selfpos.merging.maths.matrices import apart, as_single
    from selfpos.merging.stream import array_module

    arrays: Sequence[Any] = values
    if device != "cpu":
        import torch

        arrays = [torch.from_numpy(matrix).to(device) for matrix in values]
    separated_arrays = map(as_single, apart(array_module(arrays[0]), arrays, RIDGE))
    return [share if isinstance(share, np.ndarray) else share.cpu().numpy() for share in separated_arrays]


def matrices(base: ModelFolder, exclude: Sequence[str] = ()) -> list[str]:
    """The tensors that are matrices of linear maps, but for those that a pattern of `exclude` fits."""
    return [
        key
        for key, entry in base.tensors.items()
        if entry.mergeable
        and is_linear_map(key, entry.shape)
        and not any(fnmatchcase(key, pattern) for pattern in exclude)
    ]
