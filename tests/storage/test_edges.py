"""Edges of files and folders: what surviving mutants asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.storage.atomic import fresh_folder
from selfpos.storage.hashing import compare_models, content_hash
from selfpos.storage.model_folder import check_tokenizer, open_model
from selfpos.storage.run_folder import RunFolder
from selfpos.storage.tensor_file import TensorEntry, TensorFileWriter


def test_tensor_data_begin_at_a_multiple_of_eight_and_the_size_is_known(tmp_path: Path) -> None:
    for length in range(1, 10):  # headers of all remainders
        file = tmp_path / f"{length}.safetensors"
        writer = TensorFileWriter(file, {"x" * length: ("F32", (3,))}, {})
        writer.write("x" * length, np.arange(3, dtype=np.float32))
        writer.close()
        raw = file.read_bytes()
        assert int.from_bytes(raw[:8], "little") % 8 == 0
        assert writer.nbytes == len(raw)
        assert load_file(file)["x" * length].tolist() == [0, 1, 2]


def test_an_output_may_lie_in_folders_that_do_not_exist(tmp_path: Path) -> None:
    with fresh_folder(tmp_path / "a" / "b" / "out") as folder:
        (folder / "file").write_text("x")
    assert (tmp_path / "a" / "b" / "out" / "file").is_file()


def test_a_tensor_is_cut_into_equal_parts_or_refused() -> None:
    def parts(shape: tuple[int, ...]) -> dict[str, TensorEntry]:
        entry = TensorEntry("w", "w", Path("f"), "F32", shape, 100, 4 * int(np.prod(shape)))
        return entry.parts(["a", "b", "c"])

    assert [(part.shape, part.offset, part.nbytes, part.first) for part in parts((6, 2)).values()] == [
        ((2, 2), 100, 16, 0),
        ((2, 2), 116, 16, 4),
        ((2, 2), 132, 16, 8),
    ]
    for shape in ((7, 2), (2,), ()):
        with pytest.raises(SelfposError, match=r"tensor w of shape .* cannot be cut into 3 equal parts"):
            parts(shape)


def test_files_about_the_training_do_not_count_as_content(tiny_base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    for name in ("README.md", "selfpos.json", "trainer_state.json", "training_args.bin"):
        (copy / name).write_text("{}")
    assert content_hash(copy) == content_hash(tiny_base)
    (copy / "tokenizer_config.json").write_text("{}")
    assert content_hash(copy) != content_hash(tiny_base)


def test_an_empty_tensor_is_read(tiny_base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    tensors = load_file(copy / "model.safetensors")
    save_file({**tensors, "empty": torch.zeros(0, 4)}, copy / "model.safetensors", metadata={"format": "pt"})
    assert tuple(open_model(copy).read("empty").shape) == (0, 4)


def test_a_model_compared_with_itself_is_equal_and_changes_are_named(tiny_base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    assert compare_models(tiny_base, copy)[1] == []
    tensors = load_file(copy / "model.safetensors")
    changed = sorted(name for name in tensors if name.endswith("bias"))[:2]
    for name in changed:
        tensors[name] = tensors[name] + 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    (sentence,) = compare_models(tiny_base, copy)[1]
    assert f"2 of {len(tensors)} tensors" in sentence and f"the first {changed[0]}" in sentence


def test_a_transformer_behind_another_module_needs_a_tokenizer_too(tiny_base: Path, tmp_path: Path) -> None:
    import json

    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    modules = json.loads((copy / "modules.json").read_text())
    modules = [*modules[1:], modules[0]]
    for index, module in enumerate(modules):
        module["idx"] = index
    (copy / "modules.json").write_text(json.dumps(modules))
    for file in [*copy.glob("tokenizer*"), *copy.glob("vocab*")]:
        file.unlink()
    with pytest.raises(SelfposError, match="has no tokenizer"):
        check_tokenizer(copy)


def test_a_run_folder_has_its_parts_where_its_page_says(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    expected = {
        run.lock: "run.lock",
        run.log: "run.log",
        run.rival("joint"): "joint",
        run.rival("equal"): "joints/equal",
        run.rival("a"): "joints/a",
        run.bag("bagging-1"): "bagging/bagging-1",
        run.merged("ties"): "merged/ties",
        run.scores("base"): "scores/base",
        run.trajectory("found"): "positions/found.trajectory.jsonl",
        run.overlap_section: "overlap/section.html",
    }
    assert {path.relative_to(tmp_path).as_posix(): name for path, name in expected.items()} == {
        name: name for name in expected.values()
    }
