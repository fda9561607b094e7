"""The file of coefficients."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpos.errors import SelfposError
from selfpos.positioning.coefficients import Coefficients, read_coefficients, write_coefficients


def test_read_back_in_the_order_of_the_vectors_given(tmp_path: Path) -> None:
    file = write_coefficients(tmp_path / "c.json", Coefficients(["a", "b"], [0.1, 1 / 3], {"w": [1.0, 2.0]}, "hash"), {"seed": 1})
    found = read_coefficients(file, ["b", "a"], "hash")
    assert (found.values, found.weights) == ([1 / 3, 0.1], {"w": [2.0, 1.0], "default": [0.0, 0.0]})
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]
    assert Coefficients(["a"], [0.5], None, None).weights == [0.5]


@pytest.mark.parametrize(
    ("text", "names", "base", "message"),
    [
        ("[]", ["a"], None, "is no coefficients file"),
        ('{"format": "other"}', ["a"], None, "has the format 'other'"),
        (None, ["a", "c"], None, "holds coefficients of a, b; the vectors given are a, c"),
        (None, ["a", "b"], "another", "made with the base of content hash hash"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, text: str | None, names: list[str], base: str | None, message: str) -> None:
    file = write_coefficients(tmp_path / "c.json", Coefficients(["a", "b"], [0.1, 0.2], None, "hash"), {})
    if text is not None:
        file.write_text(text)
    with pytest.raises(SelfposError, match=message):
        read_coefficients(file, names, base)


def test_nothing_is_overwritten_and_nan_is_refused(tmp_path: Path) -> None:
    file = write_coefficients(tmp_path / "c.json", Coefficients(["a"], [float("nan")], None, None), {})
    with pytest.raises(SelfposError, match="exists already"):
        write_coefficients(file, Coefficients(["a"], [1.0], None, None), {})
    with pytest.raises(SelfposError, match="1 finite coefficients"):
        read_coefficients(file, ["a"])
    with pytest.raises(SelfposError, match="no coefficients file"):
        read_coefficients(tmp_path / "none.json", ["a"])
