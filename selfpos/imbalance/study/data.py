"""Labelled images in memory or in files, where they come from, and their whitening."""

from __future__ import annotations

import gzip
import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfpos.data.hub import HubAddress, answers_of_hub, commit_of, hub_address
from selfpos.errors import OperationError, SelfposError
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.sampling import Ints
from selfpos.storage.hashing import sha256_file

SIZE, CROP = 256, 224  # of image files: pixels of the short side, and of the part that a network sees
IDX_FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


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
        """The images at `index`, float32 (*index.shape, 3, 224, 224); `rng` draws crops and mirror images."""
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

    `network` makes the network of a seed for texts, `division` says how they were divided. `fingerprint` is
    the SHA-256 (hex) of types, shapes and values.
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


def read_images(source: str, *, preprocessing: str) -> ImageData:
    """Read `source`: a folder, an .npz archive, or a data set of the Hub, hub:NAME[:CONFIG][@REVISION].

    A folder holds IDX files, one .npz, or train/ and test/ (or val/) with a folder per class. preprocessing
    "scale": 0–255 times 1/256 (the LeNet example's); "gcn-zca": whitened; "raw": as they are.
    """
    path = Path(source).expanduser()
    address = hub_address(source)
    if address is not None:
        arrays = _read_hub(address)
    elif any(path.glob("train-images-idx3-ubyte*")):
        arrays = [read_idx(_idx_file(path, name)) for name in IDX_FILES]
    elif (path / "train").is_dir() and not any(path.glob("*.npz")):
        if preprocessing != "raw":
            raise SelfposError(
                f"{path} holds image files, which the network normalises itself; set preprocessing to raw, "
                f"found {preprocessing}"
            )
        return _read_folder(path)
    else:
        archives = [path] if path.suffix == ".npz" else sorted(path.glob("*.npz"))
        if len(archives) != 1 or not archives[0].is_file():
            raise SelfposError(
                f"there are no images at {path}: expected MNIST's IDX files, one .npz archive, or the "
                "folders train/ and test/ with a folder per class"
            )
        arrays = _read_npz(archives[0])
    return _in_memory(arrays, preprocessing, source)


def _in_memory(arrays: list[NDArray], preprocessing: str, source: str) -> ImageData:
    x_train, y_train, x_test, y_test = arrays
    if fault := _fault(x_train, y_train, x_test, y_test):
        raise SelfposError(f"{source}: {fault}")
    if preprocessing == "scale" and x_train.dtype.kind == "f":
        raise SelfposError(
            f"{source} has images of type {x_train.dtype}, and preprocessing scale takes whole numbers from "
            "0 to 255; set preprocessing to raw to take them as they are"
        )
    y_train, y_test = y_train.astype(np.int64), y_test.astype(np.int64)
    digest = hashlib.sha256()
    for array in (x_train, y_train, x_test, y_test):
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    if preprocessing == "gcn-zca":
        x_train, x_test = whiten(x_train, x_test)
    scale = 1 / 256 if preprocessing == "scale" else 1.0
    sets = []
    for images, labels in ((x_train, y_train), (x_test, y_test)):
        channels_first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        pixels = torch.from_numpy(np.array(channels_first, order="C"))
        sets.append(ArrayImages(pixels, labels, scale))
    names = [str(label) for label in range(int(y_train.max()) + 1)]
    return ImageData(sets[0], sets[1], names, source, fingerprint=digest.hexdigest())


def _fault(x_train: NDArray, y_train: NDArray, x_test: NDArray, y_test: NDArray) -> str | None:
    """What keeps the arrays from being training and test images with labels."""
    for images, labels in ((x_train, y_train), (x_test, y_test)):
        if images.ndim not in (3, 4) or labels.ndim != 1 or labels.dtype.kind not in "iu":
            return (
                "expected images (n, height, width[, channels]) with whole numbers (n) as labels, found "
                f"shapes {images.shape} and {labels.shape}, labels of type {labels.dtype}"
            )
        if len(images) != len(labels) or not len(images):
            counts = f"{len(images)} images and {len(labels)} labels"
            return f"it has {counts}; it needs images, and one label for each"
        if labels.min() < 0:
            return f"it has the label {labels.min()}; labels count from 0"
        if images.dtype.kind not in "uif" or (images.dtype.kind == "f" and not np.isfinite(images).all()):
            return f"it has values in its images, of type {images.dtype}, that are no finite numbers"
    if (x_train.shape[1:], x_train.dtype) != (x_test.shape[1:], x_test.dtype):
        return (
            f"training images are {x_train.shape[1:]} of type {x_train.dtype}, test images "
            f"{x_test.shape[1:]} of type {x_test.dtype}; they must be alike, so that a value means the same "
            "in both"
        )
    if unknown := sorted(set(y_test.tolist()) - set(y_train.tolist())):
        missing = ", ".join(map(str, unknown[:5]))
        return f"the test images have labels that the training images lack: {missing}"
    return None


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, plain or gzipped."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise SelfposError(f"{path} is truncated or no gzip file ({error}); fetch it again") from None
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise SelfposError(f"{path} is no IDX file of unsigned bytes")
    header = 4 + 4 * data[3]
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4)]
    if len(data) != header + math.prod(shape):
        raise SelfposError(
            f"{path} has {len(data)} bytes, and by its header {header + math.prod(shape)}; the file is "
            "truncated, or no IDX file"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _idx_file(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    raise SelfposError(f"{folder} has no {stem}[.gz]")


def _read_npz(path: Path) -> list[NDArray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if missing := [name for name in ARRAYS if name not in archive.files]:
                raise SelfposError(
                    f"{path} has no array {', '.join(missing)}; found {', '.join(archive.files)}"
                )
            return [archive[name] for name in ARRAYS]
    except (EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise SelfposError(f"{path} cannot be read as an .npz archive of plain arrays: {error}") from None


def _read_hub(address: HubAddress) -> list[NDArray]:
    from datasets import load_dataset

    name, config, revision = address
    commit, connected = commit_of(name, revision)
    with answers_of_hub(name, "train", connected=connected):
        sets = load_dataset(name, config, revision=commit)
    arrays: list[NDArray] = []
    for split in ("train", "test"):
        if split not in sets:
            raise SelfposError(f"data set {name} has no split {split}; found {', '.join(sets)}")
        columns = sets[split].column_names
        image = next((column for column in ("image", "img") if column in columns), None)
        label = next((column for column in ("label", "labels", "fine_label") if column in columns), None)
        if image is None or label is None:
            raise SelfposError(
                f"data set {name} has no image and label columns in {split}; found {', '.join(columns)}"
            )
        pixels = [_pixels(picture) for picture in sets[split][image]]
        if len(shapes := sorted({values.shape for values in pixels})) > 1:
            raise SelfposError(
                f"data set {name} has images of {len(shapes)} shapes in {split}, "
                f"{shapes[0]} and {shapes[1]} among them; a network takes one"
            )
        arrays += [np.array(pixels), np.asarray(sets[split][label])]
    return arrays


def _pixels(picture: Any) -> NDArray:
    """The values of an image; a palette's indices and single bits are none, so these are converted."""
    mode = {"P": "RGB", "1": "L"}.get(getattr(picture, "mode", ""))
    return np.asarray(picture.convert(mode) if mode else picture)


def _read_folder(path: Path) -> ImageData:
    train = path / "train"
    test = next((path / name for name in ("test", "val", "validation") if (path / name).is_dir()), None)
    if test is None:
        raise SelfposError(f"{path} has a folder train/ but neither test/ nor val/")
    names = sorted(folder.name for folder in train.iterdir() if folder.is_dir())
    others = [folder for folder in test.iterdir() if folder.name not in names]
    if unknown := sorted(folder.name for folder in others if _image_files(folder)):
        raise SelfposError(f"{test} has images of classes that {train} lacks: {', '.join(unknown[:5])}")
    digest = hashlib.sha256()
    sets = []
    for root in (train, test):
        files = [(file, label) for label, name in enumerate(names) for file in _image_files(root / name)]
        if not files:
            raise SelfposError(f"{root} holds no images; expected {root}/CLASS/*.jpg")
        for file, label in files:
            digest.update(f"{file.relative_to(root)} {sha256_file(file)} {label}\n".encode())
        labels = np.array([label for _, label in files], dtype=np.int64)
        sets.append(FileImages([file for file, _ in files], labels))
    return ImageData(sets[0], sets[1], names, str(path), fingerprint=digest.hexdigest())


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_ENDINGS)


def contrast_normalise(images: NDArray) -> NDArray[np.float32]:
    """Each image minus its mean, divided by its L2 norm, times 55 as in pylearn2: (n, …) → (n, features)."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return (flat * (55.0 / np.where(norms < 1e-8, 1.0, norms))).astype(np.float32, copy=False)


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
    """Contrast-normalise and whiten by the statistics of `train`, as pylearn2 did for All-CNN's CIFAR-10."""
    flat = contrast_normalise(train)
    mean, matrix = fit_zca(flat)
    whitened: list[NDArray] = [(images - mean) @ matrix for images in (flat, contrast_normalise(test))]
    return whitened[0].reshape(train.shape), whitened[1].reshape(test.shape)
