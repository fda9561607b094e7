"""Merges that looked at data, made again: their statistics are gathered anew, where the probe set is at
hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from datasets import Dataset

from selfpos.data.probe import read_probe, write_probe
from selfpos.errors import SelfposError
from selfpos.operations import merge
from selfpos.reproduction import reproduce
from selfpos.tasks import get_task


def make_probe(folder: Path, first: str = "a") -> Path:
    """A probe set for the specialists `alpha` and `beta`, with prompts."""
    pairs = Dataset.from_list(
        [{"anchor": f"{first} {row % 7}", "positive": f"b c {row}"} for row in range(16)]
    )
    graded = Dataset.from_list(
        [{"sentence1": f"d {row}", "sentence2": "e f", "score": row / 16} for row in range(16)]
    )
    kinds = {"beta": get_task("sts"), "alpha": get_task("retrieval")}
    write_probe(folder, {"beta": graded, "alpha": pairs}, kinds, {"alpha": "query: "})
    return folder


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_statistics_are_gathered_again(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, method: str
) -> None:
    place = make_probe(tmp_path / "kept" / "set")
    out = merge(
        str(tiny_base),
        tiny_specialists[:2],
        method,
        tmp_path / "run" / "merged",
        probe=read_probe(place),
        weights=[1, 2],
        seed=3,
    )
    with pytest.raises(
        SelfposError,
        match=r"probe set of beta \(16 records\), alpha \(16 records\), which is not at hand .*--probe",
    ) as refused:
        reproduce(str(out))
    assert str(refused.value).count("--probe") == 1
    with pytest.raises(SelfposError, match=r"is not the probe set that .* was merged with"):
        reproduce(str(out), probe=make_probe(tmp_path / "other", first="x"))
    assert reproduce(str(out), probe=place).identical
    shutil.copytree(place, tmp_path / "run" / "probe")  # where a run keeps it
    again = reproduce(str(out), tmp_path / "again")
    assert again.identical and again.files > 3, again.differences
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert not list((tmp_path).glob(".*"))


def test_a_probe_set_is_for_merges_that_looked_at_one(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    out = merge(str(tiny_base), tiny_specialists[:2], "average", tmp_path / "merged")
    with pytest.raises(SelfposError, match="which uses no data"):
        reproduce(str(out), probe=tmp_path)
