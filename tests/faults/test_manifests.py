"""Manifests, classes of modules and tokens of wrong types, which fuzzers found to end in tracebacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from selfpos.errors import SelfposError
from selfpos.publishing.facts import read_facts
from selfpos.publishing.plan import plan_push
from selfpos.storage.manifest import read_manifest
from selfpos.storage.model_folder import open_model
from selfpos.vectors.task_vector import open_vectors


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"base": 5}, "base"),
        ({"base": {"name": 5}}, "base.name"),
        ({"merge": 5}, "merge"),
        ({"merge": {"sources": 3.5}}, "merge.sources"),
        ({"merge": {"sources": [{"name": "a", "path": ["b"]}]}}, "merge.sources.0.path"),
        ({"merge": {"sources": [{"name": "a", "hash": 237}]}}, "merge.sources.0.hash"),
        ({"merge": {"sources": [{"path": "a"}]}}, "merge.sources.0.name"),
        ({"merge": {"params": [1]}}, "merge.params"),
        ({"finetune": "x"}, "finetune"),
        ({"finetune": {"source": "x"}}, "finetune.source"),
        ({"tasks": {"a": "b"}}, "tasks.a"),
        ({"positioning": 5}, "positioning"),
        ({"positioning": {"tensors": {"a": None}}}, "positioning.tensors.a"),
        ({"positioning": {"tensors": {"a": [1], "b": [1, 2]}}}, "positioning.tensors"),
        ({"positioning": {"coefficients": ["a"]}}, "positioning.coefficients.0"),
        ({"positioning": {"intervals": [[1, 2, 3]]}}, "positioning.intervals.0"),
        ({"positioning": {"probe": {"a": {"type": []}}}}, "positioning.probe.a.type"),
        ({"positioning": {"seconds": "x"}}, "positioning.seconds"),
        ({"merge": {"coefficients": {"a": None}}}, "merge.coefficients"),
        ({"merge": {"coefficients": {"a": []}}}, "merge.coefficients"),
        ({"merge": {"sources": [{"name": ""}]}}, "merge.sources.0.name"),
        ({"finetune": {"source": {"data": 5}}}, "finetune.source.data"),
        ({"tasks": {"a": {"type": ["sts"]}}}, "tasks.a.type"),
        ({"published": 5}, "published"),
        ({"retain": {"front": []}}, "retain.base"),
        ({"settings": 5}, "settings"),
        ({"seconds": "x"}, "seconds"),
    ],
)
def test_a_field_of_a_wrong_type_is_named(
    change: dict[str, Any], field: str, tiny_base: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / "selfpos.json").write_text(json.dumps({"kind": "merge", "name": "m"} | change))
    with pytest.raises(SelfposError, match=f"field '{field}"):
        read_manifest(model)
    with pytest.raises(SelfposError, match=f"field '{field}"):
        plan_push(model, "alice/x", licence="mit", lookup=None)
    with pytest.raises(SelfposError, match=f"field '{field}"):
        open_vectors(open_model(tiny_base), [model])


@pytest.mark.parametrize(
    "line",
    ["5", "[]", '{"coefficients": ["a"]}', '{"validation": 5}', '{"losses": {"a": {}}}', "[" * 100_000],
)
def test_a_step_that_no_search_writes_is_left_out(line: str, tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / "selfpos.json").write_text(json.dumps({"kind": "merge", "name": "m"}))
    steps = [json.dumps({"step": step, "losses": {"a": 1.0}, "coefficients": [step]}) for step in range(5)]
    (model / "trajectory.jsonl").write_text("\n".join([line, *steps, '{"step": null}']))
    assert [row.get("step") for row in read_facts(model).trajectory] == [0, 1, 2, 3, 4, None]
    plan_push(model, "alice/x", licence="mit", lookup=None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("recipe.yaml", "["),
        ("recipe.yaml", "a: *x"),
        ("overlap.yaml", "sources: {a: 5}"),
        ("overlap.yaml", "sources: {a: {tasks: {x: {exact: 1}}}}"),
        ("overlap.yaml", "{sources: {}, settings: 5}"),
    ],
)
def test_a_file_beside_the_manifest_that_selfpos_did_not_write_is_named(
    name: str, text: str, tiny_base: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / name).write_text(text)
    with pytest.raises(SelfposError, match=name):
        plan_push(model, "alice/x", licence="mit", lookup=None)


def test_several_sources_of_records_are_as_finetune_writes_them(tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    record = {"kind": "specialist", "name": "m", "tasks": {"sts": {"type": "sts", "records": 8}}}
    source = {"type": "sts", "data": ["a.csv", "hub:owner/b"]}
    (model / "selfpos.json").write_text(json.dumps(record | {"finetune": {"source": source}}))
    (data,) = read_facts(model).data
    assert data.source == "a.csv, hub:owner/b"


@pytest.mark.parametrize("field", ["base", "merge", "finetune", "tasks", "positioning", "versions"])
def test_a_field_that_is_null_is_as_one_that_is_missing(
    field: str, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_specialists[0], tmp_path / "model"))
    (model / "selfpos.json").write_text(json.dumps({"kind": "finetune", "name": "m", field: None}))
    assert read_manifest(model) == open_model(model).manifest == {"kind": "finetune", "name": "m"}
    plan_push(model, "alice/x", licence="mit", lookup=None)
    assert len(open_vectors(open_model(tiny_base), [model])) == 1


@pytest.mark.parametrize("kind", ["(a+)+$", ".", "a..", "x" * 5000 + ".A", "a/\x1b.A", "Normalize"])
def test_a_module_without_the_name_of_a_class_is_refused(kind: str, tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    modules = json.loads((model / "modules.json").read_text())
    modules[1]["type"] = kind
    (model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SelfposError, match=r"modules\.json does not list modules"):
        open_model(model)


@pytest.mark.parametrize(
    "change", [{"cls_token": {}}, {"model_max_length": [[False]]}, {"model_max_length": ""}]
)
def test_settings_of_a_tokenizer_of_wrong_types(
    change: dict[str, Any], tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_specialists[0], tmp_path / "model"))
    file = model / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(SelfposError):
        open_vectors(open_model(tiny_base), [model])
