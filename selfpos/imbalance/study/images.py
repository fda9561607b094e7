"""Labelled images that training draws batches from, in memory or in files, and their whitening."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfpos.errors import OperationError
from selfpos.imbalance.study.networks import Network

Ints = NDArray[np.int64]
SIZE, CROP = 256, 224  # of image files: pixels of the short side, and of the part that a network sees


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory; `pixels` (n, C, H, W) of any type, read as float32 times `scale`."""

    pixels: Tensor
    labels: Ints
    scale: float = 1.0

    def batch(self, index: Ints, rng: np.random.Generator | None) -> Tensor:
        """The images at `index` (any shape), float32 (*index.shape, C, H, W), without augmentation."""
        picked = self.pixels[torch.from_numpy(np.ascontiguousarray(index)).to(self.pixels.device)]
        return picked.to(torch.float32) * self.scale

    def to(self, device: torch.device) -> ArrayImages:
        return replace(self, pixels=self.pixels.to(device))


@dataclass(frozen=True)
class FileImages:
    """Image files, decoded when drawn, with values 0–255: the network normalises its input."""

    paths: list[Path]
    labels: Ints

    def batch(self, index: Ints, rng: np.random.Generator | None) -> Tensor:
        """The images at `index`, float32 (*index.shape, 3, 224, 224).

        `rng` draws a crop and a mirror image of each; without it, the centre.
        """
        flat = index.ravel()
        # Drawn before the threads start, so that the result does not depend on which one is faster.
        draws = [None] * len(flat) if rng is None else [tuple(row) for row in rng.random((len(flat), 3))]
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(self._load, flat, draws))
        return torch.from_numpy(np.stack(images)).view(*index.shape, 3, CROP, CROP)

    def _load(self, index: int, draw: tuple[float, float, float] | None) -> NDArray[np.float32]:
        from PIL import Image, UnidentifiedImageError

        path = self.paths[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise OperationError(f"image {path} cannot be read: {error}") from None
        ratio = SIZE / min(image.size)
        width, height = (max(round(side * ratio), SIZE) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        if draw is None:
            left, top = (width - CROP) // 2, (height - CROP) // 2
        else:
            left, top = int(draw[0] * (width - CROP + 1)), int(draw[1] * (height - CROP + 1))
        pixels = np.asarray(image.crop((left, top, left + CROP, top + CROP)), dtype=np.float32)
        if draw is not None and draw[2] < 0.5:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def to(self, device: torch.device) -> FileImages:
        return self


Images = ArrayImages | FileImages  # with labels 0 … K−1


@dataclass(frozen=True)
class ImageData:
    """Training and test images with the names of their classes.

    `network` makes the network of a seed for texts, which no image network takes. `fingerprint` is the
    SHA-256 (hex) of the data; empty for data that a caller made. `division` says how texts were divided.
    """

    train: Images
    test: Images
    class_names: list[str]
    description: str
    network: Callable[[int], Network] | None = None
    fingerprint: str = ""
    division: str = ""

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def to(self, device: torch.device) -> ImageData:
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def contrast_normalise(images: NDArray, scale: float = 55.0) -> NDArray[np.float32]:
    """Each image minus its mean, divided by its L2 norm, times `scale`: (n, …) → (n, features)."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return (flat * (scale / np.where(norms < 1e-8, 1.0, norms))).astype(np.float32, copy=False)


def fit_zca(flat: NDArray[np.float32], ridge: float = 0.1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (features,) and ZCA matrix V diag((λ + ridge)^−½) Vᵀ of XᵀX/n, computed in float64."""
    mean = flat.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((flat.shape[1], flat.shape[1]))
    for start in range(0, len(flat), 4096):
        block = flat[start : start + 4096].astype(np.float64) - mean
        covariance += block.T @ block
    values, vectors = np.linalg.eigh(covariance / len(flat) + ridge * np.eye(flat.shape[1]))
    return mean.astype(np.float32), ((vectors / np.sqrt(values)) @ vectors.T).astype(np.float32)


def whiten(train: NDArray, test: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Contrast-normalise and whiten both sets with the statistics of `train`.

    As in pylearn2's CIFAR-10 script, whose output All-CNN was trained on.
    """
    flat = contrast_normalise(train)
    mean, matrix = fit_zca(flat)

    def apply(images: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        return ((images - mean) @ matrix).reshape(shape).astype(np.float32, copy=False)

    return apply(flat, train.shape), apply(contrast_normalise(test), test.shape)
