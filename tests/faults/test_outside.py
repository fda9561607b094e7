"""Files outside a model's folder: what names them is refused, what links to them is not copied or sent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from selfpos.errors import SelfposError
from selfpos.merging.output.layout import side_files
from selfpos.operations import finetune
from selfpos.publishing.plan import files_of, plan_push
from selfpos.recipe import TaskSource, TrainingSettings
from selfpos.storage.file_kinds import INDEX, MODULES, WEIGHTS
from selfpos.storage.model_folder import open_model, read_modules
from selfpos.vectors.task_vector import open_vectors

SECRET = "kept by another"


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> Path:
    """A model in a folder of its own, beside which lies a secret."""
    (tmp_path / "secret.json").write_text(json.dumps({"secret": SECRET}))
    return Path(shutil.copytree(tiny_base, tmp_path / "models" / "model"))


def sharded(model: Path, place: Callable[[Path], object]) -> Path:
    """Move the weights to where `place` says, as the shard of an index."""
    weights = model / WEIGHTS
    names = list(load_file(weights))
    target = place(model)
    shard = (model / str(target)).resolve() if isinstance(target, str) else model / "one.safetensors"
    shard.parent.mkdir(exist_ok=True)
    weights.rename(shard)
    (model / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, target)}))
    return model


@pytest.mark.parametrize(
    "place",
    [
        lambda model: "../shard.safetensors",
        lambda model: "../../shard.safetensors",
        lambda model: "x/../../shard.safetensors",
        lambda model: "./1_Pooling/../shard.safetensors",
        lambda model: str(model.parent / "shard.safetensors"),
    ],
)
def test_an_index_that_leads_out_is_refused(model: Path, place: Callable[[Path], object]) -> None:
    with pytest.raises(SelfposError, match="lies outside"):
        open_model(sharded(model, place))


@pytest.mark.parametrize("place", [7, None, ["one.safetensors"], {"file": "one"}])
def test_a_shard_that_is_no_name_is_refused(model: Path, place: object) -> None:
    with pytest.raises(SelfposError, match="no weight_map"):
        open_model(sharded(model, lambda _: place))


def test_an_index_may_name_a_folder_of_the_model(model: Path) -> None:
    names = set(open_model(model).tensors)
    assert set(open_model(sharded(model, lambda _: "weights/one.safetensors")).tensors) == names


def test_an_index_of_tensors_that_are_not_there_is_refused(model: Path) -> None:
    index = sharded(model, lambda _: "one.safetensors") / INDEX
    listed = json.loads(index.read_text())["weight_map"] | {"ghost.weight": "one.safetensors"}
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(SelfposError, match=r"holds the tensor ghost\.weight, which it does not"):
        open_model(model)


@pytest.mark.parametrize("path", ["../other", "x/../../other", "/etc", "C:/other", r"..\other", 5, None])
def test_a_module_outside_is_refused(model: Path, path: object) -> None:
    modules = json.loads((model / MODULES).read_text())
    modules[1]["path"] = path
    (model / MODULES).write_text(json.dumps(modules))
    with pytest.raises(SelfposError, match=r"modules\.json"):
        read_modules(model)


def test_a_module_behind_a_link_outside_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "1_Pooling").rename(tmp_path / "pooling")
    (model / "1_Pooling").symlink_to(tmp_path / "pooling")
    with pytest.raises(SelfposError, match="lies outside"):
        open_model(model)


@pytest.mark.parametrize("name", ["notes.txt", "vocab.json", WEIGHTS, "2_Dense/config.json", "selfpos.json"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_to_what_lies_outside_is_refused(
    model: Path, tmp_path: Path, name: str, relative: bool
) -> None:
    link = model / name
    link.unlink(missing_ok=True)
    secret = tmp_path / "secret.json"
    link.symlink_to(os.path.relpath(secret, link.parent) if relative else secret)
    with pytest.raises(SelfposError, match="outside"):
        open_model(model)


def test_a_link_of_a_vector_is_refused(tiny_base: Path, model: Path, tmp_path: Path) -> None:
    (model / "extra.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(SelfposError, match="is a link to what lies outside"):
        open_vectors(open_model(tiny_base), [model])


def hub_cache(model: Path, tmp_path: Path) -> Path:
    """The model as the Hub's cache keeps it: links into `blobs`, which no user touches."""
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / "0123abcd"
    (repository / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in model.rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, repository / "blobs" / str(number))
        link.symlink_to(os.path.relpath(repository / "blobs" / str(number), link.parent))
    return snapshot


def test_the_links_of_the_hubs_cache_are_followed(model: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(model, tmp_path)
    opened = open_model(snapshot)
    assert set(opened.tensors) == set(open_model(model).tensors)
    assert side_files(opened, code=False) == side_files(open_model(model), code=False)
    assert files_of(snapshot)[0].keys() == files_of(model)[0].keys()
    (tmp_path / "short").symlink_to(snapshot)
    assert open_model(tmp_path / "short").tensors.keys() == opened.tensors.keys()


def test_blobs_that_several_repositories_share_are_followed(model: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(model, tmp_path)
    blob = (snapshot / WEIGHTS).resolve()
    shared = tmp_path / "hub" / "blobs" / "78" / ("78" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert open_model(snapshot).tensors
    shared.rename(tmp_path / "hub" / "blobs" / "78" / "other")
    blob.unlink()
    blob.symlink_to(tmp_path / "hub" / "blobs" / "78" / "other")
    with pytest.raises(SelfposError, match="outside"):
        open_model(snapshot)


def test_a_cache_with_a_link_past_its_blobs_is_refused(model: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(model, tmp_path)
    (snapshot.parent.parent / "blobs" / "0").unlink()
    (snapshot.parent.parent / "blobs" / "0").symlink_to(tmp_path / "secret.json")
    with pytest.raises(SelfposError, match="outside"):
        open_model(snapshot)


def test_push_sends_what_lies_inside_and_says_what_it_leaves(model: Path, tmp_path: Path) -> None:
    (model / "notes.txt").symlink_to(tmp_path / "secret.json")
    (model / "recipe.yaml").symlink_to(tmp_path / "secret.json")
    (model / "linked").symlink_to(tmp_path)
    (model / "gone.txt").symlink_to(model / "nothing")
    (model / "old.bin").write_bytes(b"x")
    (model / ".cache").mkdir()
    (model / ".cache" / "token").write_text("x")
    os.mkfifo(model / "pipe.json")
    plan = plan_push(model, "owner/name", lookup=None)
    sent = {file.path for file in plan.files}
    left = {"notes.txt", "recipe.yaml", "linked", "gone.txt", "old.bin", ".cache", "pipe.json"}
    assert WEIGHTS in sent and not sent & left
    assert SECRET not in "".join(file.read().decode(errors="replace") for file in plan.files)
    for name in left:
        assert f"note: {name} is left out (" in plan.text()
    (model / "README.md").unlink()
    (model / "README.md").symlink_to(tmp_path / "secret.json")
    kept = plan_push(model, "owner/name", lookup=None, keep_card=True)
    assert any("has no README.md of its own" in problem for problem in kept.problems)
    assert SECRET not in kept.text()


def test_finetune_refuses_an_output_inside_its_base(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"anchor": "a", "positive": "b"}\n' * 8)
    source = TaskSource(type="retrieval", data=str(data))
    with pytest.raises(SelfposError, match="lies within"):
        finetune(str(model), source, model / "out", TrainingSettings(steps=1), say=lambda _: None)
    assert not (model / "out").exists()


def test_a_name_with_dots_in_it_lies_inside(model: Path) -> None:
    modules = json.loads((model / MODULES).read_text())
    modules[1]["path"] = "1_Pooling.."
    (model / "1_Pooling").rename(model / "1_Pooling..")
    (model / MODULES).write_text(json.dumps(modules))
    assert open_model(model).modules[1].path == "1_Pooling.."
