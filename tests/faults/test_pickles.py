"""Pickled weights are refused by every verb that would load them, whether they hold code or not."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfpos.errors import SelfposError
from selfpos.evaluation.load import load_model
from selfpos.evaluation.run import check_tasks
from selfpos.storage.file_kinds import INDEX, PICKLED_INDEX, WEIGHTS
from selfpos.storage.locate import locate_model
from selfpos.storage.model_folder import open_model, refuse_pickles
from selfpos.storage.pickles import without_pickles
from selfpos.training.models import check_trainable
from tests.helpers.adapters import in_shards
from tests.helpers.command import CommandLine, said
from tests.helpers.models import make_specialist


class Planted:
    """What a pickle with code in it holds."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


@pytest.fixture(params=["honest", "code"])
def pickled(request: pytest.FixtureRequest, tiny_base: Path, tmp_path: Path) -> Path:
    """A model whose root or Dense module has a pickle for its weights."""
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    if request.param == "honest":
        weights = model / "2_Dense" / WEIGHTS
        torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    else:
        weights = model / WEIGHTS
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    weights.unlink()
    return model


@pytest.mark.parametrize(
    "opened", [check_trainable, load_model, open_model, lambda model: check_tasks(model, [], model)]
)
def test_a_pickle_is_refused_with_the_way_out(opened: object, pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match=r"pytorch_model\.bin.*save it again"):
        opened(pickled)  # type: ignore[operator]
    assert not (tmp_path / "ran").exists()


def test_verbs_refuse_a_pickle(selfpos: CommandLine, pickled: Path, tmp_path: Path) -> None:
    data = tmp_path / "x.jsonl"
    data.write_text('{"sentence1": "a", "sentence2": "b", "score": 1}\n' * 4)
    out = ("--out", tmp_path / "out")
    told = said(selfpos("finetune", "--base", pickled, "--task", "sts", "--data", data, "--probe", 0, *out))
    assert "pickle" in told
    assert "pickle" in said(selfpos("eval-mteb", pickled, "--tasks", "corpus", *out))
    assert not (tmp_path / "out").exists() and not (tmp_path / "ran").exists()


def test_an_adapters_pickle_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(SelfposError, match=r"adapter_model\.bin is a pickle"):
        check_trainable(model)


@pytest.mark.parametrize("pickled", ["code"], indirect=True)
def test_code_in_an_allowed_pickle_is_not_run(
    selfpos: CommandLine, pickled: Path, tiny_base: Path, tmp_path: Path
) -> None:
    words = ("--method", "average", "--allow-pickle", "--out", tmp_path / "out")
    done = selfpos(
        "merge", "--base", tiny_base, "--vectors", pickled, *words, XDG_CACHE_HOME=str(tmp_path / "c")
    )
    assert "holds more than tensors" in said(done) and not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def as_pickles(model: Path, folder: Path) -> Path:
    """A copy of the model with all its weights as pickles, and with weights of formats that are not read."""
    shutil.copytree(model, folder)
    for weights in folder.rglob(WEIGHTS):
        torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
        weights.unlink()
    for name in ("tf_model.h5", "flax_model.msgpack", "rust_model.ot"):
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize("by_recipe", [False, True])
def test_allowed_pickles_are_read_as_tensors(
    by_recipe: bool, selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    pickled = as_pickles(tiny_specialists[0], tmp_path / "model")
    words = ["--base", tiny_base, "--vectors", pickled, "--method", "task-arithmetic", "--weights", "1"]
    if by_recipe:
        models = f"models: [{{model: {pickled}, parameters: {{weight: 1}}}}]"
        (tmp_path / "r.yml").write_text(f"merge_method: task_arithmetic\nbase_model: {tiny_base}\n{models}\n")
        words = [tmp_path / "r.yml"]
        assert "--allow-pickle" in said(selfpos("merge", *words, "--out", tmp_path / "out"))
    cache = tmp_path / "c"
    done = selfpos("merge", *words, "--allow-pickle", "--out", tmp_path / "out", XDG_CACHE_HOME=str(cache))
    assert done.returncode == 0, done.stderr
    for file in tiny_base.rglob("*.safetensors"):
        place = file.relative_to(tiny_base)
        moved, merged = load_file(tiny_specialists[0] / place), load_file(tmp_path / "out" / place)
        torch.testing.assert_close(merged, moved, atol=1e-6, rtol=0)
    assert not [file for name in ("*.h5", "*.msgpack", "*.ot", "*.bin") for file in cache.rglob(name)]


def test_a_merge_of_allowed_pickles_is_made_again_from_the_originals(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    pickled, cache, out = (
        as_pickles(tiny_specialists[0], tmp_path / "model"),
        tmp_path / "c",
        tmp_path / "out",
    )
    env = {"XDG_CACHE_HOME": str(cache)}
    words = ("--vectors", pickled, tiny_specialists[1], "--method", "average", "--out", out)
    done = selfpos("merge", "--base", tiny_base, *words, "--allow-pickle", **env)
    assert done.returncode == 0, done.stderr
    sources = json.loads((out / "selfpos.json").read_text())["merge"]["sources"]
    assert [(source["name"], source["path"]) for source in sources] == [
        ("model", str(pickled)), (tiny_specialists[1].name, str(tiny_specialists[1])),
    ]  # fmt: skip
    shutil.rmtree(cache)
    assert "--allow-pickle" in said(selfpos("reproduce", out, **env))
    for more in ((), ("--parent", f"model={pickled}")):
        again = selfpos("reproduce", out, "--allow-pickle", *more, **env)
        assert again.returncode == 0 and "made again byte for byte" in again.stdout, again.stderr


def test_retain_reads_allowed_pickles(selfpos: CommandLine, tiny_base: Path, tmp_path: Path) -> None:
    tuned = as_pickles(make_specialist(tiny_base, tmp_path / "tuned", seed=5, size=0.006), tmp_path / "model")
    texts = [f"{a} {b} {c}" for a in "abcd" for b in "efgh" for c in "ijkl"]
    for name, part in (("mine", texts[::2]), ("other", texts[1::2])):
        (tmp_path / f"{name}.txt").write_text("\n".join(part * 2))
    sides = ("--domain", tmp_path / "mine.txt", "--general", tmp_path / "other.txt", "--alpha", "0.5")
    words = ("retain", tiny_base, tuned, *sides, "--device", "cpu", "--out", tmp_path / "out")
    assert "--allow-pickle" in said(selfpos(*words))
    done = selfpos(*words, "--allow-pickle", XDG_CACHE_HOME=str(tmp_path / "c"))
    assert done.returncode == 0, done.stderr
    (source,) = json.loads((tmp_path / "out" / "selfpos.json").read_text())["merge"]["sources"]
    assert source["path"] == str(tuned)


@pytest.mark.parametrize("index", [False, True])
def test_a_pickle_beside_safetensors_in_shards_is_not_read(
    index: bool, tiny_base: Path, tmp_path: Path
) -> None:
    weight_map = in_shards(tiny_base, tmp_path / "model")
    if index:
        (tmp_path / "model" / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    assert without_pickles(tmp_path / "model") == tmp_path / "model"
    assert not (tmp_path / "ran").exists()


SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")


@pytest.mark.parametrize("indexed", [False, True])
def test_pickled_shards_are_read_when_all_are_there(
    indexed: bool, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    weights = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    halves = [sorted(weights)[::2], sorted(weights)[1::2]]
    twice = halves[0] + halves[1][:1]  # the index decides where this tensor is
    for name, half in zip(SHARDS, halves, strict=True):
        torch.save({tensor: weights[tensor] for tensor in half}, model / name)
    torch.save(weights, model / "pytorch_model.fp16.bin")
    if indexed:
        torch.save({name: weights[name] + (name == twice[-1]) for name in twice}, model / SHARDS[0])
        places = {tensor: name for name, half in zip(SHARDS, halves, strict=True) for tensor in half}
        (model / PICKLED_INDEX).write_text(json.dumps({"weight_map": places}))
    read = load_file(without_pickles(model) / WEIGHTS)
    torch.testing.assert_close(read, weights, atol=0, rtol=0)
    if indexed:
        own = {name: weights[name] for name in halves[1]}
        torch.save(own | {twice[0]: weights[twice[0]] + 1}, model / SHARDS[1])
        with pytest.raises(SelfposError, match=rf"with other values in {SHARDS[1]}, from which transformers"):
            without_pickles(model)
        torch.save({name: weights[name] for name in halves[1][1:]}, model / SHARDS[1])
        with pytest.raises(SelfposError, match=r"says that .* holds the tensor"):
            without_pickles(model)
    (model / SHARDS[1]).unlink()
    with pytest.raises(SelfposError, match="does not exist" if indexed else "are not all there"):
        without_pickles(model)


def test_a_variant_beside_the_whole_pickle_is_not_read(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    model = as_pickles(tiny_base, tmp_path / "model")
    weights = load_file(tiny_base / WEIGHTS)
    torch.save({name: tensor.half() for name, tensor in weights.items()}, model / "pytorch_model.fp16.bin")
    torch.testing.assert_close(load_file(without_pickles(model) / WEIGHTS), weights, atol=0, rtol=0)
    (model / "pytorch_model.bin").unlink()
    with pytest.raises(
        SelfposError, match=r"has pytorch_model\.fp16\.bin, but neither pytorch_model\.bin nor"
    ):
        without_pickles(model)


def test_a_tensor_in_two_shards_without_an_index_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    weights = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    for name in SHARDS:
        torch.save(weights, model / name)
    with pytest.raises(SelfposError, match="as another shard does; fetch the model again"):
        without_pickles(model)


def test_pickles_are_fetched_only_where_a_module_has_no_others(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    shutil.copytree(tiny_base, snapshot)
    asked: list[tuple[str | None, list[str]]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str], **_: object) -> str:
        asked.append((revision, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert locate_model("owner/name@main", pickles=True) == snapshot
    (snapshot / "2_Dense" / WEIGHTS).unlink()
    assert locate_model("owner/name@main", pickles=True) == snapshot
    first, again, second = asked[0], asked[-2], asked[-1]
    assert first == again and first[0] == "main" and not any(".bin" in pattern for pattern in first[1])
    assert second[0] == "abc" and "2_Dense/pytorch_model*.bin" in second[1]
    assert "pytorch_model*.bin" not in second[1]


def test_what_lies_aside_is_neither_read_nor_refused(tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (tmp_path / "outside").write_bytes(b"x")
    for name in ("runs", "eval", "checkpoint-500", "onnx"):
        (model / name).mkdir()
        (model / name / "pytorch_model.bin").write_bytes(b"x")
        (model / name / "adapter_model.bin").write_bytes(b"x")
    (model / "logs").mkdir()
    (model / "logs" / WEIGHTS).symlink_to(tmp_path / "outside")
    refuse_pickles(model)
    assert open_model(model).tensors.keys() == open_model(tiny_base).tensors.keys()
