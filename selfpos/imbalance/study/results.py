"""The results of a study: one Parquet file, replaced as a whole, so that it is always readable."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.lib
import pyarrow.parquet

from selfpos.errors import SelfposError
from selfpos.imbalance.study.data import ImageData
from selfpos.imbalance.study.methods import get_method
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.recipe import validate
from selfpos.storage.atomic import write_bytes

Record = dict[str, Any]
# What may change between two runs into one file: everything else changes what a record means.
FREE = {"name", "data", "grid", "methods", "seeds", "select", "networks_at_once"}
# Columns without a value where a profile has no μ, or a recipe no validation images.
OPTIONAL = ("mu", "validation_auc", "validation_accuracy")
COLUMNS = (
    *("profile", "rho", "mu", "minority_rule", "method", "rule", "rate", "seed", "iterations", "seconds"),
    *("total", "sizes", "minority_classes", "tau", "auc", "accuracy", "balanced_accuracy", "minority"),
    *("majority", "recalls", "validation_auc", "validation_accuracy", "train_balanced", "train_minority"),
    *("train_majority", "curve"),
)


def _schema() -> Any:
    number, text, count = pa.float64(), pa.string(), pa.int64()
    groups = ("balanced", "minority", "majority")
    point = {f"{split}_{group}": number for split in ("test", "train") for group in groups}
    types = dict.fromkeys(("profile", "minority_rule", "method", "rule"), text)
    types |= dict.fromkeys(("seed", "iterations", "total"), count)
    types |= {"sizes": pa.list_(count), "minority_classes": pa.list_(count), "recalls": pa.list_(number)}
    types["curve"] = pa.list_(pa.struct({"iteration": count, "test_accuracy": number, **point}))
    return pa.schema({name: types.get(name, number) for name in COLUMNS})


def key(record: Record) -> tuple[Any, ...]:
    """What identifies a record, whatever its decision rule; as of `Unit.result_keys`."""
    return tuple(record[field] for field in ("profile", "rho", "mu", "method", "rate", "seed"))


def read_results(path: Path) -> tuple[list[Record], ImbalanceRecipe]:
    """All records of the results file and the recipe that made them."""
    if not path.is_file():
        raise SelfposError(f"there are no results at {path}; run `selfpos imbalance run RECIPE` first")
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise SelfposError(f"{path} is no Parquet file, or a damaged one: {error}") from None
    try:
        settings = json.loads((table.schema.metadata or {})[b"recipe"])
    except (KeyError, ValueError) as error:
        raise SelfposError(
            f"{path} holds no results of selfpos imbalance: its schema has no recipe in JSON ({error})"
        ) from None
    stored = {field.name: field.type for field in table.schema}
    if missing := [field.name for field in _schema() if stored.get(field.name) != field.type]:
        raise SelfposError(
            f"{path} holds no results: columns {', '.join(missing[:5])} are absent or of another type"
        )
    recipe = validate(ImbalanceRecipe, settings, f"{path}, the recipe of its results")
    required = [name for name in COLUMNS if name not in OPTIONAL]
    if broken := [name for name in required if not _is_complete(table[name])]:
        raise SelfposError(
            f"{path} holds no results: values of {', '.join(broken[:5])} are absent, or no finite numbers"
        )
    for name in table["method"].unique().to_pylist():
        try:
            get_method(name)
        except SelfposError as error:
            raise SelfposError(f"{path}: {error}") from None
    return table.to_pylist(), recipe


def _is_complete(column: Any) -> bool:
    if column.null_count or not pa.types.is_floating(column.type):
        return not column.null_count
    return bool(pa.compute.all(pa.compute.is_finite(column), min_count=0).as_py())


def read_same(path: Path, recipe: ImbalanceRecipe, data: ImageData) -> list[Record]:
    """The records of the results file, which those of `recipe` on `data` may join.

    Raises SelfposError where other settings or other data made them.
    """
    records, before = read_results(path)
    old, new = before.model_dump(exclude=FREE), recipe.model_dump(exclude=FREE)
    if changed := [
        f"{name} ({old[name]!r} before, {new[name]!r} now)" for name in old if old[name] != new[name]
    ]:
        raise SelfposError(
            f"{path} was made with other settings: {'; '.join(changed)}; name another file with --out"
        )
    if data_of(path) not in (None, data.fingerprint):
        other = f"other data than {data.description}"
        if data.network is not None:
            other = f"other texts than {data.description}, or another encoder of that name"
        raise SelfposError(f"the results in {path} were made with {other}; name another file with --out")
    return records


def data_of(path: Path) -> str | None:
    """The fingerprint of the data that made the results in the file; None where it has none."""
    return pyarrow.parquet.read_schema(path).metadata.get(b"data", b"").decode() or None


def write_results(
    path: Path, records: list[Record], recipe: ImbalanceRecipe, data: str | None = None
) -> None:
    """Replace the file by one with these records; `data` is the fingerprint of the data that made them."""
    schema = _schema().with_metadata({"recipe": recipe.model_dump_json(), "data": data or ""})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(records, schema=schema), buffer, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
