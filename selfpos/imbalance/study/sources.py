"""Where images come from: MNIST's IDX files, an .npz archive, a folder of image files, or a Hub data set
named by the user.
"""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfpos.errors import OperationError, SelfposError
from selfpos.imbalance.study.images import ArrayImages, FileImages, Images
from selfpos.imbalance.study.networks import Network

IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


@dataclass(frozen=True)
class ImageData:
    """Training and test images with the names of their classes."""

    train: Images
    test: Images
    class_names: list[str]
    description: str
    network: Callable[[int], Network] | None = (
        None  # seed → a network for these data, where the recipe's `network` is no image network
    )
    fingerprint: str = ""  # SHA-256 (hex) of what was read; empty for data that a caller made
    division: str = ""  # of data without a division of their own into training and test: how it was made

    @property
    def classes(self) -> int:
        return len(self.class_names)


def read_images(source: str, *, preprocessing: str) -> ImageData:
    """Read `source`: a folder (IDX files, one .npz, or train/ and test/ or val/ with a folder per class), an
    .npz, or a Hub data set, hub:NAME[:CONFIG][@REVISION].

    preprocessing "scale": 0–255 times 1/256 (the LeNet example's); "gcn-zca": whitened; "raw": 0–255. Raises
    SelfposError when nothing readable is there.
    """
    if source.startswith("hub:"):
        arrays = _read_hub(source.removeprefix("hub:"))
    else:
        path = Path(source).expanduser()
        archives = [path] if path.suffix == ".npz" else sorted(path.glob("*.npz"))
        if any(path.glob("train-images-idx3-ubyte*")):
            arrays = [
                array
                for part in IDX_FILES.values()
                for array in (read_idx(_idx_file(path, part[0])), read_idx(_idx_file(path, part[1])))
            ]
        elif len(archives) == 1 and archives[0].is_file():
            arrays = _read_npz(archives[0])
        elif (path / "train").is_dir():
            if preprocessing != "raw":
                raise SelfposError(
                    f"{path} holds image files, which the network normalises itself; set preprocessing to "
                    f"raw, found {preprocessing}"
                )
            return _read_folder(path)
        else:
            raise SelfposError(
                f"there are no images at {path}: expected MNIST's IDX files, one .npz archive, or the "
                "folders train/ and test/ with a folder per class"
            )
    return _in_memory(*arrays, preprocessing=preprocessing, description=source)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, plain or gzipped.

    Raises SelfposError for any other content.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise SelfposError(f"{path} is truncated or no gzip file ({error}); fetch it again") from None
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise SelfposError(f"{path} is no IDX file of unsigned bytes")
    rank = data[3]
    if len(data) < 4 + 4 * rank:
        raise SelfposError(
            f"{path} should have a header of {4 + 4 * rank} bytes, found {len(data)}; the file is truncated"
        )
    shape = np.frombuffer(data, ">u4", rank, offset=4).astype(int).tolist()
    if len(data) != 4 + 4 * rank + int(np.prod(shape)):
        raise SelfposError(
            f"{path} should hold {shape} bytes behind its header, found {len(data) - 4 - 4 * rank}; the file "
            "is truncated"
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _idx_file(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    raise SelfposError(f"{folder} has no {stem}[.gz]")


def _read_npz(path: Path) -> list[NDArray]:
    names = ["x_train", "y_train", "x_test", "y_test"]
    try:
        with zipfile.ZipFile(path) as file:
            found = [Path(name).stem for name in file.namelist()]
        if missing := [name for name in names if name not in found]:
            raise SelfposError(f"{path} has no array {', '.join(missing)}; found {', '.join(found)}")
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise SelfposError(f"{path} cannot be read as an .npz archive of plain arrays: {error}") from None


def _read_hub(place: str) -> list[NDArray]:
    from datasets import load_dataset

    name, _, revision = place.partition("@")
    name, _, config = name.partition(":")
    try:
        sets = load_dataset(name, config or None, revision=revision or None)
    except Exception as error:
        raise OperationError(
            f"data set {name} could not be had from the Hub: {' '.join(str(error).split())}"
        ) from None
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
        if len(shapes := {one.shape for one in pixels}) > 1:
            raise SelfposError(
                f"data set {name} has images of {len(shapes)} shapes in {split}, "
                f"{' and '.join(str(one) for one in sorted(shapes)[:2])} among them; a network takes one"
            )
        arrays += [np.array(pixels), np.asarray(sets[split][label])]
    return arrays


def _pixels(picture: Any) -> NDArray:
    """The values of an image, which a palette's indices and single bits are not; arrays as they are."""
    wanted = {"P": "RGB", "1": "L"}.get(getattr(picture, "mode", ""))
    return np.asarray(picture.convert(wanted) if wanted else picture)


def _in_memory(
    x_train: NDArray,
    y_train: NDArray,
    x_test: NDArray,
    y_test: NDArray,
    *,
    preprocessing: str,
    description: str,
) -> ImageData:
    for images, labels in ((x_train, y_train), (x_test, y_test)):
        if images.ndim not in (3, 4) or labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise SelfposError(
                f"{description}: expected images (n, height, width[, channels]) with whole numbers (n) as "
                f"labels, found shapes {images.shape} and {labels.shape}, labels of type {labels.dtype}"
            )
        if len(images) != len(labels) or not len(images):
            raise SelfposError(
                f"{description} has {len(images)} images and {len(labels)} labels; it needs images, and one "
                "label for each"
            )
        if labels.min() < 0:
            raise SelfposError(f"{description} has the label {labels.min()}; labels count from 0")
        if images.dtype.kind not in "uif" or (images.dtype.kind == "f" and not np.isfinite(images).all()):
            raise SelfposError(
                f"{description} has values in its images, of type {images.dtype}, that are no finite numbers"
            )
    if (x_train.shape[1:], x_train.dtype) != (x_test.shape[1:], x_test.dtype):
        raise SelfposError(
            f"{description}: training images are {x_train.shape[1:]} of type {x_train.dtype}, test images "
            f"{x_test.shape[1:]} of type {x_test.dtype}; they must be alike, so that a value means the same "
            "in both"
        )
    if strange := sorted(set(y_test.tolist()) - set(y_train.tolist())):
        raise SelfposError(
            f"{description}: the test images have labels that the training images lack: "
            f"{', '.join(str(one) for one in strange[:5])}"
        )
    if preprocessing == "scale" and x_train.dtype.kind == "f":
        raise SelfposError(
            f"{description} has images of type {x_train.dtype}, and preprocessing scale takes whole numbers "
            "from 0 to 255; set preprocessing to raw to take them as they are"
        )
    fingerprint = fingerprint_of([x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)])
    scale = 1.0
    if preprocessing == "gcn-zca":
        from selfpos.imbalance.study.whitening import whiten

        x_train, x_test = whiten(x_train, x_test)
    elif preprocessing == "scale":
        scale = 1 / 256

    def pack(images: NDArray, labels: NDArray) -> ArrayImages:
        shaped = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        return ArrayImages(torch.from_numpy(np.array(shaped, order="C")), labels.astype(np.int64), scale)

    names = [str(label) for label in range(int(y_train.max()) + 1)]
    return ImageData(
        pack(x_train, y_train), pack(x_test, y_test), names, description, fingerprint=fingerprint
    )


def fingerprint_of(arrays: Iterable[NDArray]) -> str:
    """SHA-256 (hex) of the arrays' types, shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read_folder(path: Path) -> ImageData:
    held_out = next((path / name for name in ("test", "val", "validation") if (path / name).is_dir()), None)
    if held_out is None:
        raise SelfposError(f"{path} has a folder train/ but neither test/ nor val/")
    names = sorted(folder.name for folder in (path / "train").iterdir() if folder.is_dir())
    if strange := sorted(
        folder.name for folder in held_out.iterdir() if folder.name not in names and _image_files(folder)
    ):
        raise SelfposError(
            f"{held_out} has images of classes that {path / 'train'} lacks: {', '.join(strange[:5])}"
        )
    digest = hashlib.sha256()

    def pack(root: Path) -> FileImages:
        files = [(file, label) for label, name in enumerate(names) for file in _image_files(root / name)]
        if not files:
            raise SelfposError(f"{root} holds no images; expected {root}/CLASS/*.jpg")
        for file, label in files:
            with file.open("rb") as content:
                own = hashlib.file_digest(content, "sha256").hexdigest()
            digest.update(f"{file.relative_to(root)} {own} {label}\n".encode())
        return FileImages(
            [file for file, _ in files], np.array([label for _, label in files], dtype=np.int64)
        )

    sets = pack(path / "train"), pack(held_out)
    return ImageData(*sets, names, str(path), fingerprint=digest.hexdigest())


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_ENDINGS)
