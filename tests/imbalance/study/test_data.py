from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfpos.errors import OperationError, SelfposError
from selfpos.imbalance.study.data import contrast_normalise, fit_zca, read_idx, read_images, whiten
from tests.helpers.files import SHARED_DATA


def write_idx(path: Path, array: np.ndarray) -> None:
    data = (
        b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_idx_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        write_idx(
            tmp_path / f"{prefix}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        )
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    data = read_images(str(tmp_path), preprocessing="scale")
    images = data.train.batch(np.array([[3, 4], [5, 6]]), None)
    assert images.shape == (2, 2, 1, 28, 28)
    raw = read_idx(tmp_path / "train-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(images[1, 0, 0].numpy(), raw[5] / np.float32(256))
    arrays = {
        name: read_idx(file)
        for name, file in zip(("x_train", "x_test"), sorted(tmp_path.glob("*.gz"), reverse=True), strict=True)
    }
    labels = {name: np.arange(count) % 10 for name, count in (("y_train", 30), ("y_test", 20))}
    np.savez(tmp_path / "same.npz", **arrays, **labels)
    assert read_images(str(tmp_path / "same.npz"), preprocessing="raw").fingerprint == data.fingerprint
    assert data.classes == 10
    assert data.test.labels.tolist() == [*range(10), *range(10)]


def test_bad_idx_files(tmp_path: Path) -> None:
    write_idx(tmp_path / "whole", np.zeros((4, 5), np.uint8))
    cut = (tmp_path / "whole").read_bytes()[:-3]
    (tmp_path / "cut").write_bytes(cut)
    for length in (29, 11, 7, 4):
        (tmp_path / "cut").write_bytes(cut[:length])
        with pytest.raises(SelfposError, match=rf"cut has {length} bytes, and by its header"):
            read_idx(tmp_path / "cut")
    (tmp_path / "other").write_bytes(b"PNG....")
    with pytest.raises(SelfposError, match="no IDX file"):
        read_idx(tmp_path / "other")
    with pytest.raises(SelfposError, match="there are no images at"):
        read_images(str(tmp_path / "nowhere"), preprocessing="scale")


@pytest.mark.parametrize(
    "content", [gzip.compress(bytes(5000))[:-12], b"<html>not found</html>"], ids=["truncated", "other"]
)
def test_a_broken_download_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(SelfposError, match=r"train-images-idx3-ubyte\.gz is truncated or no gzip file"):
        read_images(str(tmp_path), preprocessing="scale")


def test_broken_npz_is_named(tmp_path: Path) -> None:
    whole = {
        name: np.zeros((4, 4, 4) if name.startswith("x") else 4, np.uint8)
        for name in ("x_train", "y_train", "x_test", "y_test")
    }
    np.savez(tmp_path / "a.npz", **whole)
    content = (tmp_path / "a.npz").read_bytes()
    for broken in (b"hello", content[: len(content) // 2], b""):
        (tmp_path / "a.npz").write_bytes(broken)
        with pytest.raises(SelfposError, match=r"a\.npz cannot be read as an \.npz archive"):
            read_images(str(tmp_path), preprocessing="raw")
    np.savez(tmp_path / "a.npz", **whole | {"y_test": np.array(["a", None, 1, 2], dtype=object)})
    with pytest.raises(SelfposError, match=r"a\.npz cannot be read as an \.npz archive of plain arrays"):
        read_images(str(tmp_path), preprocessing="raw")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"y_test": np.array([0, 1, 2, 7])},
            "the test images have labels that the training images lack: 2, 7",
        ),
        ({"y_train": np.array([0, 1, 0, -1])}, "it has the label -1"),
        ({"y_train": np.array([0.0, 1.0, 0.0, 1.0])}, "labels of type float64"),
        ({"y_train": np.eye(4, dtype=int)}, r"found shapes \(4, 6, 6\) and \(4, 4\)"),
        ({"x_train": np.zeros((4, 36), np.uint8)}, r"found shapes \(4, 36\)"),
        (
            {"x_test": np.zeros((4, 6, 7), np.uint8)},
            r"training images are \(6, 6\) of type uint8, test images \(6, 7\) of type uint8",
        ),
        ({"x_test": np.zeros((4, 6, 6, 3), np.uint8)}, r"test images \(6, 6, 3\) of type uint8"),
        (
            {"x_test": np.zeros((4, 6, 6), np.float32)},
            r"test images \(6, 6\) of type float32; they must be alike",
        ),
        ({"x_test": np.zeros((0, 6, 6), np.uint8), "y_test": np.zeros(0, int)}, "has 0 images"),
        (
            {"x_test": np.full((4, 6, 6), np.nan)},
            "has values in its images, of type float64, that are no finite numbers",
        ),
        ({"x_train": np.zeros((4, 6, 6), bool)}, "of type bool, that are no finite numbers"),
        (
            dict.fromkeys(("x_train", "x_test"), np.zeros((4, 6, 6))),
            "preprocessing scale takes whole numbers from 0 to 255",
        ),
    ],
)
def test_images_and_labels_that_do_not_fit(
    tmp_path: Path, changed: dict[str, np.ndarray], message: str
) -> None:
    images, labels = np.zeros((4, 6, 6), np.uint8), np.array([0, 1, 0, 1])
    np.savez(
        tmp_path / "a.npz",
        **{"x_train": images, "y_train": labels, "x_test": images, "y_test": labels} | changed,
    )
    with pytest.raises(SelfposError, match=message):
        read_images(str(tmp_path), preprocessing="scale")


def test_images_that_are_scaled_already_are_taken_raw(tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).random((4, 6, 6), np.float32), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    result = read_images(str(tmp_path), preprocessing="raw").train.batch(np.arange(4), None)
    np.testing.assert_array_equal(result[:, 0].numpy(), images)


def write_hub_set(folder: Path, **splits: list[Image.Image]) -> str:
    """A data set as `load_dataset` finds it on the Hub, in a folder; labels are 0, 1, 0, …"""
    import datasets

    folder.mkdir(parents=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for split, images in splits.items():
        records = {"image": images, "label": [number % 2 for number in range(len(images))]}
        datasets.Dataset.from_dict(records, features=features).to_parquet(folder / f"{split}.parquet")
    return f"hub:{folder}"


def test_hub_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("datasets").config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    grey = [Image.fromarray(np.full((4, 5), shade, np.uint8)) for shade in (10, 20)]
    red = [Image.new("RGB", (5, 4), (shade, 0, 0)) for shade in (100, 200)]
    palette = [image.convert("P", palette=Image.Palette.ADAPTIVE) for image in red]

    data = read_images(write_hub_set(tmp_path / "grey", train=grey, test=grey[::-1]), preprocessing="raw")
    assert data.test.batch(np.array([0]), None).tolist() == [[[[20.0] * 5] * 4]]
    assert data.train.labels.tolist() == [0, 1]
    named = write_hub_set(tmp_path / "palette", train=palette, test=palette)
    assert read_images(named, preprocessing="raw").train.batch(np.array([1]), None)[0, :, 0, 0].tolist() == [
        200,
        0,
        0,
    ]
    bits = [Image.fromarray(np.full((4, 5), shade, np.uint8)).convert("1") for shade in (0, 255)]
    named = write_hub_set(tmp_path / "bits", train=bits, test=bits)
    assert read_images(named, preprocessing="raw").train.batch(np.array([1]), None).unique().tolist() == [255]
    with pytest.raises(SelfposError, match="has no split test; found train, validation"):
        read_images(write_hub_set(tmp_path / "no-test", train=grey, validation=grey), preprocessing="raw")
    uneven = [grey[0], Image.new("L", (7, 4))]
    with pytest.raises(
        SelfposError, match=r"has images of 2 shapes in test, \(4, 5\) and \(4, 7\) among them"
    ):
        read_images(write_hub_set(tmp_path / "uneven", train=grey, test=uneven), preprocessing="raw")
    with pytest.raises(OperationError, match=r"the Hugging Face Hub did not supply data set .*nowhere"):
        read_images(f"hub:{tmp_path / 'nowhere'}", preprocessing="raw")

    requested = []
    monkeypatch.setattr(
        "datasets.load_dataset", lambda *names, revision: requested.append((*names, revision)) or {}
    )
    for name in ("a/b", "a/b:c", "a/b@d", "a/b:c@d"):
        with pytest.raises(SelfposError, match="data set a/b has no split train"):
            read_images(f"hub:{name}", preprocessing="raw")
    assert requested == [("a/b", None, None), ("a/b", "c", None), ("a/b", None, "d"), ("a/b", "c", "d")]


def test_npz_names_its_missing_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.zeros((2, 4, 4, 3), np.uint8), labels=np.zeros(2))
    with pytest.raises(SelfposError, match="no array y_train, x_test, y_test; found x_train, labels"):
        read_images(str(tmp_path), preprocessing="raw")


def test_folder_of_image_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, shade in (("cat", 40), ("dog", 200)):
            (tmp_path / split / label).mkdir(parents=True)
            for number, (width, height) in enumerate([(300, 260), (256, 400)]):
                pixels = np.full((height, width, 3), shade, np.uint8)
                pixels[:, : width // 2] += 20
                Image.fromarray(pixels + rng.integers(0, 3, pixels.shape, dtype=np.uint8)).save(
                    tmp_path / split / label / f"{number}.png"
                )
    data = read_images(str(tmp_path), preprocessing="raw")
    assert data.class_names == ["cat", "dog"]
    with pytest.raises(SelfposError, match="set preprocessing to raw, found scale"):
        read_images(str(tmp_path), preprocessing="scale")
    index = np.array([0, 1, 2, 3])
    centre = data.test.batch(index, None)
    assert centre.shape == (4, 3, 224, 224)
    assert centre[0, 0, 0, 0] > centre[0, 0, 0, -1] + 10  # the test view is not mirrored
    first, again = (data.train.batch(np.repeat(index, 8), np.random.default_rng(1)) for _ in range(2))
    assert (first == again).all()
    left_is_bright = (first[:, 0, 0, 0] > first[:, 0, 0, -1] + 10).float().mean().item()
    assert 0.2 < left_is_bright < 0.8  # about half are mirrored
    (tmp_path / "val" / "dog" / "1.png").write_bytes(b"no image")
    with pytest.raises(OperationError, match=r"1\.png cannot be read"):
        data.test.batch(index, None)


def test_image_folders_are_told_apart_by_content(tmp_path: Path) -> None:
    def write(number: str, shade: int) -> None:
        (tmp_path / number).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), shade, np.uint8)).save(tmp_path / number)

    for number in ("train/cat/0.bmp", "train/dog/0.bmp", "test/cat/0.bmp", "test/dog/0.bmp"):
        write(number, 40)
    first = read_images(str(tmp_path), preprocessing="raw").fingerprint
    assert read_images(str(tmp_path), preprocessing="raw").fingerprint == first
    size = (tmp_path / "test/dog/0.bmp").stat().st_size
    write("test/dog/0.bmp", 41)
    assert (tmp_path / "test/dog/0.bmp").stat().st_size == size
    assert read_images(str(tmp_path), preprocessing="raw").fingerprint != first
    (tmp_path / "test" / "notes").mkdir()  # without images: no class
    read_images(str(tmp_path), preprocessing="raw")
    write("test/emu/0.bmp", 40)
    with pytest.raises(SelfposError, match=r"test has images of classes that .*train lacks: emu"):
        read_images(str(tmp_path), preprocessing="raw")


def test_contrast_normalisation_and_zca() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 4, 4, 3)).astype(np.uint8)
    flat = contrast_normalise(images)
    np.testing.assert_allclose(flat.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 55, rtol=1e-5)
    mean, matrix = fit_zca(flat, ridge=0.1)
    centred = flat.astype(np.float64) - mean
    covariance = centred.T @ centred / len(flat)
    # By definition P (C + 0.1 I) P = I; and P is symmetric, which is what makes it ZCA.
    np.testing.assert_allclose(matrix @ (covariance + 0.1 * np.eye(48)) @ matrix, np.eye(48), atol=1e-3)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    train, test = whiten(images, images[:5])
    np.testing.assert_allclose(train[:5], test, atol=1e-4)
    assert train.shape == images.shape
    assert contrast_normalise(np.full((1, 2, 2, 3), 9, np.uint8)).tolist() == [
        [0.0] * 12
    ]  # a blank image stays blank


def test_real_mnist_counts() -> None:
    folder = SHARED_DATA / "images" / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST at {folder}")
    data = read_images(str(folder), preprocessing="scale")
    assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (np.bincount(data.train.labels).min(), np.bincount(data.train.labels).max()) == (5421, 6742)
