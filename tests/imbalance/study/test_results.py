"""The file of results, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.imbalance.command import _study
from selfpos.imbalance.study import grid
from selfpos.imbalance.study.results import data_of, read_results, write_results
from selfpos.storage.atomic import locked
from tests.helpers.companion import imbalance, make_images, run_study, tiny_recipe, write_tiny


def test_reports_of_one_folder_are_apart_and_tell_all_rates(archive: Path, tmp_path: Path) -> None:
    def report(name: str, **changes: object) -> str:
        training = {"iterations": 2, "batch_size": 8} | changes
        recipe = tiny_recipe(archive, methods=["baseline", "adamw"], seeds=1, training=training)
        run_study(recipe, tmp_path / f"{name}.parquet")
        imbalance("report", str(tmp_path / f"{name}.parquet"))
        return (tmp_path / name / "report.md").read_text(encoding="utf-8")

    assert "Learning rate 0.01; of adamw 0.001 and 0.01, chosen on validation. " in report(
        "one", learning_rates=[0.01], adamw_rates=[0.001, 0.01]
    )
    assert "Learning rates 0.1 and 0.01, chosen on validation; of adamw 0.002. " in report(
        "two", learning_rates=[0.1, 0.01], adamw_rates=[0.002]
    )
    (tmp_path / "two.parquet").rename(tmp_path / "bare")
    with pytest.raises(SelfposError, match="bare is a file, and the report a folder; name that with --out"):
        imbalance("report", str(tmp_path / "bare"))


def test_other_settings_do_not_join_a_results_file(archive: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(archive, methods=["baseline"], seeds=1)
    run_study(recipe, tmp_path / "r.parquet")
    more_seeds = recipe.model_copy(update={"seeds": 2})
    assert run_study(more_seeds, tmp_path / "r.parquet") == 1
    with pytest.raises(SelfposError, match="made with other settings: n_max \\(40 before, 30 now\\)"):
        run_study(recipe.model_copy(update={"n_max": 30}), tmp_path / "r.parquet")


def test_other_data_do_not_join_a_results_file(archive: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(archive, methods=["baseline"], seeds=1)
    other = tmp_path / "other"
    other.mkdir()
    (x_train, y_train), (x_test, y_test) = make_images(60, 2), make_images(20, 1)
    np.savez(other / "images.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    out = tmp_path / "r.parquet"
    run_study(recipe, out)
    for wanted in (recipe, recipe.model_copy(update={"seeds": 2})):
        with pytest.raises(SelfposError, match=r"made with other data than .*other"):
            run_study(wanted, out, data=other)
    records, _ = read_results(out)
    write_results(out, records, recipe)  # as of a version that noted no data
    assert run_study(recipe.model_copy(update={"seeds": 2}), out, data=other) == 1
    assert data_of(out) is None


def test_one_process_writes_a_results_file(archive: Path, tmp_path: Path) -> None:
    recipe, out = (tiny_recipe(archive, methods=["baseline"], seeds=1), tmp_path / "r.parquet")
    out.with_suffix(".log").touch()
    with (
        locked(out.with_suffix(".log")),
        pytest.raises(SelfposError, match=r"another process is writing .*r\.log"),
    ):
        run_study(recipe, out)
    assert run_study(recipe, out) == 1
    with locked(out.with_suffix(".log")):
        assert run_study(recipe, out) == 0  # nothing is left to do, so no lock is needed


def test_a_refused_run_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    out, nowhere = tmp_path / "new" / "r.parquet", tmp_path / "nowhere"
    for n_max, data, message in (
        (40, nowhere, "there are no images at"),
        (55, archive, "has 60 training examples, but needs 55"),
    ):
        write_tiny(tmp_path / "r.yaml", archive, n_max=n_max)
        with pytest.raises(SelfposError, match=message):
            imbalance("run", tmp_path / "r.yaml", "--out", out, "--data", data, "--device", "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_what_another_process_added_is_not_trained_again(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = tiny_recipe(archive, methods=["baseline"], seeds=1), tmp_path / "r.parquet"
    check_study = grid.check_study

    def check_while_another_runs(*arguments: object) -> None:
        monkeypatch.setattr(grid, "check_study", check_study)
        assert run_study(recipe, out) == 1

    monkeypatch.setattr(grid, "check_study", check_while_another_runs)
    assert run_study(recipe, out) == 0


def test_results_that_cannot_be_read_are_named(archive: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    recipe, out = (tiny_recipe(archive, methods=["baseline"], seeds=1), tmp_path / "r.parquet")
    run_study(recipe, out)
    table = pyarrow.parquet.read_table(out)
    content = bytearray(out.read_bytes())
    content[4:200] = b"\xff" * 196
    out.write_bytes(content)
    with pytest.raises(SelfposError, match=r"r\.parquet is no Parquet file, or a damaged one"):
        read_results(out)
    for name in ("auc", "seed"):
        pyarrow.parquet.write_table(table.drop_columns([name]), out)
        with pytest.raises(SelfposError, match=rf"r\.parquet holds no results: columns {name} are absent"):
            read_results(out)
    index = table.schema.get_field_index("auc")
    pyarrow.parquet.write_table(table.set_column(index, "auc", table["auc"].cast("string")), out)
    with pytest.raises(SelfposError, match="columns auc are absent or of another type"):
        read_results(out)
    for name, value, message in (
        ("auc", None, "values of auc are absent, or no finite numbers"),
        ("auc", float("nan"), "values of auc are absent"),
        ("rule", None, "values of rule are absent"),
        ("method", "ros:abc", r"method 'ros:abc': only ros:R and rus:R take a ratio"),
        ("method", "rox", "no imbalance method named 'rox'"),
    ):
        column = pyarrow.array([value, *table[name].to_pylist()[1:]], table.schema.field(name).type)
        pyarrow.parquet.write_table(
            table.set_column(table.schema.get_field_index(name), table.schema.field(name), column), out
        )
        with pytest.raises(SelfposError, match=rf"r\.parquet.*{message}"):
            read_results(out)
    for settings in (b"{", b"\xff\xfe"):
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"recipe": settings}), out)
        with pytest.raises(
            SelfposError,
            match=r"r\.parquet holds no results of selfpos imbalance: its schema has no recipe in JSON",
        ):
            read_results(out)
    foreign = {b"recipe": recipe.model_dump_json().replace('"n_max"', '"largest"').encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(foreign), out)
    with pytest.raises(SelfposError, match=r"r\.parquet, the recipe of its results: .*no field 'largest'"):
        read_results(out)


def test_methods_that_are_level_have_no_order(archive: Path, tmp_path: Path) -> None:
    recipe, out = (tiny_recipe(archive, methods=["baseline", "ros"], seeds=1), tmp_path / "r.parquet")
    run_study(recipe, out)
    write_results(out, [record | {"auc": 0.5} for record in read_results(out)[0]], recipe)
    message = imbalance("ordering", str(out), str(out))
    assert "–" in message
    assert "nan" not in message


def test_a_results_file_is_read_with_its_recipes_choice_of_rates(archive: Path, tmp_path: Path) -> None:
    rates = {"iterations": 2, "batch_size": 8, "learning_rates": [1e-5, 0.02]}
    recipe = tiny_recipe(
        archive, validation=0, select="test", seeds=1, methods=["baseline"], curve_every=1, training=rates
    )
    out = tmp_path / "r.parquet"
    run_study(recipe, out)
    aucs = [100 * record["auc"] for record in read_results(out)[0] if record["rule"] == "plain"]
    assert _study(out).get("step", 10.0, 0.5, "baseline") == {0: max(aucs)}
