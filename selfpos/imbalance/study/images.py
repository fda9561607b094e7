"""Labelled images that training draws batches from: in memory, or decoded from files as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfpos.errors import OperationError

Ints = NDArray[np.int64]


class Images(Protocol):
    """Images with labels 0 … K−1."""

    @property
    def labels(self) -> Ints: ...

    def batch(self, index: Ints, rng: np.random.Generator | None) -> Tensor:
        """The images at `index` (any shape), float32 (*index.shape, C, H, W).

        `rng` draws the augmentation; without it, the test view.
        """
        ...


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory; `pixels` (n, C, H, W) of any type, read out as float32 times `scale`.

    No augmentation, as in the study.
    """

    pixels: Tensor
    labels: Ints
    scale: float = 1.0

    def batch(self, index: Ints, rng: np.random.Generator | None) -> Tensor:
        picked = self.pixels[torch.from_numpy(np.ascontiguousarray(index)).to(self.pixels.device)]
        return picked.to(torch.float32) * self.scale

    def to(self, device: torch.device) -> ArrayImages:
        return ArrayImages(self.pixels.to(device), self.labels, self.scale)


@dataclass(frozen=True)
class FileImages:
    """Image files, decoded when drawn: short side to 256, then a random 224 crop and mirror (training) or the
    centre crop (test).

    Values stay 0–255: the network normalises its input itself.
    """

    paths: list[Path]
    labels: Ints
    size: int = 256
    crop: int = 224

    def batch(self, index: Ints, rng: np.random.Generator | None) -> Tensor:
        from concurrent.futures import ThreadPoolExecutor

        flat = index.ravel()
        # Drawn before the threads start, so that the result does not depend on which one is faster.
        draws = [None] * len(flat) if rng is None else [tuple(row) for row in rng.random((len(flat), 3))]
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(self._load, flat, draws))
        return torch.from_numpy(np.stack(images)).view(*index.shape, 3, self.crop, self.crop)

    def _load(self, index: int, draw: tuple[float, float, float] | None) -> NDArray[np.float32]:
        from PIL import Image, UnidentifiedImageError

        path = self.paths[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise OperationError(f"image {path} cannot be read: {error}") from None
        ratio = self.size / min(image.size)
        image = image.resize(
            (max(round(image.width * ratio), self.size), max(round(image.height * ratio), self.size)),
            Image.Resampling.BILINEAR,
        )
        free_x, free_y = image.width - self.crop, image.height - self.crop
        left, top = (
            (free_x // 2, free_y // 2)
            if draw is None
            else (int(draw[0] * (free_x + 1)), int(draw[1] * (free_y + 1)))
        )
        pixels = np.asarray(image.crop((left, top, left + self.crop, top + self.crop)), dtype=np.float32)
        if draw is not None and draw[2] < 0.5:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
