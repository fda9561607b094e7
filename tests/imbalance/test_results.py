"""Files of results: damaged ones, those of other data, and two processes at one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from selfpos.errors import SelfposError
from selfpos.imbalance.grid import run_grid
from selfpos.imbalance.recipe import ImbalanceRecipe
from selfpos.imbalance.report import write_report
from selfpos.imbalance.results import data_of, read_results
from selfpos.storage.atomic import locked_file
from tests.imbalance.conftest import make_images
from tests.imbalance.test_grid import tiny


@pytest.fixture
def kept(archive: Path, tmp_path: Path) -> Path:
    """Results of the smallest grid."""
    recipe = ImbalanceRecipe.model_validate(tiny(archive, seeds=1, methods=["baseline"]))
    assert run_grid(recipe, tmp_path / "r.parquet", device="cpu") == 1
    return tmp_path / "r.parquet"


def test_results_of_other_images_are_not_gone_on_with(archive: Path, tmp_path: Path, kept: Path) -> None:
    recipe = ImbalanceRecipe.model_validate(tiny(archive, seeds=1, methods=["baseline"]))
    facts = data_of(kept)
    assert facts is not None and facts.description == f"{archive.name}, 600 examples for training and 200 for testing"
    other = tmp_path / "other"
    other.mkdir()
    (x_train, y_train), (x_test, y_test) = make_images(60, 5), make_images(20, 6)
    np.savez(other / "images.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    with pytest.raises(SelfposError, match="are of other data"):
        run_grid(recipe, kept, data=str(other), device="cpu")
    assert run_grid(recipe, kept, data=str(archive), device="cpu") == 0
    write_report(kept, tmp_path / "report")
    assert f"lenet on {facts.description}" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_a_second_process_at_one_file_is_refused(archive: Path, kept: Path) -> None:
    recipe = ImbalanceRecipe.model_validate(tiny(archive))
    with locked_file(kept), pytest.raises(SelfposError, match="another process is writing"):
        run_grid(recipe, kept, device="cpu")
    assert not list(kept.parent.glob(".*.lock"))


def test_damaged_files_and_those_of_other_versions_are_one_sentence(kept: Path) -> None:
    whole = kept.read_bytes()
    table = pyarrow.parquet.read_table(kept)
    recipe = json.loads(table.schema.metadata[b"recipe"])
    later = table.replace_schema_metadata({"recipe": json.dumps(recipe | {"later": 1})})
    pyarrow.parquet.write_table(later, kept)
    with pytest.raises(SelfposError, match="made by another version"):
        read_results(kept)
    kept.write_bytes(whole[:40] + bytes(len(whole) // 2 - 40) + whole[len(whole) // 2 :])
    with pytest.raises(SelfposError, match="damaged"):
        read_results(kept)


def test_images_in_folders_are_not_scaled_silently(tmp_path: Path) -> None:
    from selfpos.imbalance.sources import read_images

    (tmp_path / "train").mkdir()
    with pytest.raises(SelfposError, match="set 'preprocessing: raw', found scale"):
        read_images(str(tmp_path), preprocessing="scale")


def test_tokens_are_not_mixed(archive: Path, tmp_path: Path) -> None:
    from selfpos.imbalance.sources import read_images

    recipe = ImbalanceRecipe.model_validate(tiny(archive, network="encoder", encoder="all-MiniLM-L6-v2", methods=["mixup"]))
    with pytest.raises(SelfposError, match="method mixup mixes inputs"):
        run_grid(recipe, tmp_path / "m.parquet", images=read_images(str(archive), preprocessing="scale"), device="cpu")
    assert not (tmp_path / "m.parquet").exists()
