"""What cards and reports hold of paths and of others' words; and large files, read where memory is short."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from selfpos.errors import printable_page
from selfpos.operations import merge
from selfpos.storage import model_folder
from selfpos.storage.locate import without_folders
from selfpos.storage.model_folder import open_model
from selfpos.storage.tensor_file import TensorFileWriter, read_header


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base: /home/me/a b/base\nseed: 1", "base: …/base\nseed: 1"),
        ("data: ~/d/sts.jsonl", "data: …/sts.jsonl"),
        ("data: …/sts.jsonl", "data: …/sts.jsonl"),
        ("['C:\\\\me\\\\x.json', '/a/b']", "['…/x.json', '…/b']"),
        ("https://huggingface.co/a/b", "https://huggingface.co/a/b"),
        ("hub:a/b ./x/y ../x or a / b", "hub:a/b ./x/y ../x or a / b"),
        ("exclude: '*/embeddings*'", "exclude: '*/embeddings*'"),
    ],
)
def test_only_the_end_of_a_path_is_told(text: str, told: str) -> None:
    assert without_folders(text) == told


def test_a_page_keeps_its_lines() -> None:
    assert printable_page("a\n\tb\x1b[2J\u202e é") == "a\n\tb\\x1b[2J\\u202e é"


def test_no_card_holds_what_a_terminal_obeys(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    vector = Path(shutil.copytree(tiny_specialists[0], tmp_path / "v\x1b[2J<script>"))
    out = merge(str(tiny_base), [vector], "average", tmp_path / "out")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "\x1b" not in card and "<script>" not in card and "script" in card


def test_large_files_are_mapped_tensor_by_tensor(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_model(tiny_base)
    monkeypatch.setattr(model_folder, "LARGEST_MAP", 0)
    parts = open_model(tiny_base)
    for key in whole.tensors:
        np.testing.assert_array_equal(parts.raw(key), whole.raw(key))
        assert parts.read(key).equal(whole.read(key))
    assert parts._maps == {}


def test_a_file_larger_than_the_address_space_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    TensorFileWriter(file, {"a": ("F32", (2, 2)), "b": ("F32", (2**28,))}, {}).close()  # sparse
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 500_000_000, before[1]))
    try:
        entries, _ = read_header(file)
        assert model_folder.raw_tensor(entries["a"], {}).tolist() == [0.0] * 4
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
