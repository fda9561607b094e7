"""The file of coefficients, and merging by it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from selfpos.errors import SelfposError
from selfpos.positioning.coefficients import FORMATS, Coefficients, read_coefficients, write_coefficients
from selfpos.recipe import PositioningSettings
from selfpos.searched_merge import merge_by_coefficients, position_and_merge
from tests.helpers.stand_ins import records

AB = Coefficients(
    ["a", "b"], ["hash a", "hash b"], [0.1, 1 / 3], {"w": [1.0, 2.0]}, "base", "hash of base", {"seed": 1}
)


def test_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = write_coefficients(tmp_path / "c.json", AB)
    assert read_coefficients(file) == AB
    assert AB.merge_options["weights"] == {"w": [1.0, 2.0], "default": [0.0, 0.0]}
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_vectors_are_known_by_their_content_in_any_order(tmp_path: Path) -> None:
    assert AB.order(["hash b", "hash a"], "hash of base", tmp_path) == [1, 0]
    twice = Coefficients(["a", "copy"], ["h", "h"], [0.1, 0.2], None, "base", "b")
    assert twice.order(["h", "h"], "b", tmp_path) == [0, 1]


@pytest.mark.parametrize(
    ("hashes", "base", "message"),
    [
        (
            ["hash a", "hash c"],
            "hash of base",
            "c.json holds coefficients of a, b, .* not those: give b of the content hash",
        ),
        (["hash a"], "hash of base", "give b of the content hash"),
        (["hash a", "hash b", "hash c"], "hash of base", "give these 2 vectors alone"),
        (["hash a", "hash b"], "another", "made with the base base"),
    ],
)
def test_other_vectors_are_one_sentence(tmp_path: Path, hashes: list[str], base: str, message: str) -> None:
    with pytest.raises(SelfposError, match=message):
        AB.order(hashes, base, tmp_path / "c.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "is no coefficients file"),
        ({"format": "other"}, "has the format 'other'"),
        ({"vectors": ["a", "b"]}, "is no coefficients file"),
        ({"found_by": [1]}, "is no coefficients file"),
        ({"coefficients": [1.0]}, "2 finite coefficients"),
        ({"tensors": {"w": [1.0, float("nan")]}}, "2 finite coefficients"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, change: dict | None, message: str) -> None:
    file = write_coefficients(tmp_path / "c.json", AB)
    file.write_text("[]" if change is None else json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(SelfposError, match=message):
        read_coefficients(file)


@pytest.mark.parametrize(("number", "applied"), [(1, "linear"), (2, "tsv-m"), (3, "wudi")])
def test_the_format_says_which_vectors_are_meant(tmp_path: Path, number: int, applied: str) -> None:
    method = FORMATS[f"selfpos coefficients {number}"]
    assert method["method"] == applied
    file = write_coefficients(tmp_path / "c.json", replace(AB, method=method))
    assert json.loads(file.read_text())["format"] == f"selfpos coefficients {number}"
    assert read_coefficients(file).merge_options["method"] == applied


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match="no coefficients file"):
        read_coefficients(tmp_path / "none.json")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("granularity", ["model", "layer"])
@pytest.mark.slow
def test_the_file_makes_the_same_bytes_as_the_search(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, granularity: str
) -> None:
    settings = PositioningSettings(rounds=1, granularity=granularity, exclude=["*embeddings*"], compare=False)
    file = tmp_path / "found.json"
    position_and_merge(
        str(tiny_base),
        tiny_specialists,
        records(),
        settings,
        tmp_path / "searched",
        coefficients=file,
        seed=5,
    )
    moved = [
        shutil.copytree(source, tmp_path / f"moved-{source.name}") for source in reversed(tiny_specialists)
    ]
    merge_by_coefficients(file, str(tiny_base), moved, tmp_path / "applied")
    assert files(tmp_path / "applied") == files(tmp_path / "searched")
    with pytest.raises(SelfposError, match="give gamma of the content hash"):
        merge_by_coefficients(file, str(tiny_base), tiny_specialists[:2], tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
