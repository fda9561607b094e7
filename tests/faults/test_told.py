"""What cards and reports hold of paths and of others' words; and large files, read where memory is short."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from selfpos.errors import printable_page
from selfpos.operations import merge
from selfpos.recipe.recipe import recipe_for_others
from selfpos.storage import model_folder
from selfpos.storage.locate import without_folders
from selfpos.storage.model_folder import open_model
from selfpos.storage.tensor_file import TensorFileWriter, read_header


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/me/a b/base", "…/base"),
        ("~/d/sts.jsonl", "…/sts.jsonl"),
        ("sts=/d/sts.jsonl", "sts=…/sts.jsonl"),
        (["C:\\me\\x.json", "/a/b/", {"data": "/a/c"}], ["…/x.json", "…/b", {"data": "…/c"}]),
        ("https://huggingface.co/a/b", "https://huggingface.co/a/b"),
        ("hub:a/b", "hub:a/b"),
        ("../x", "../x"),
        ("*/embeddings*", "*/embeddings*"),
        ("good (and /or) bad", "good (and /or) bad"),
        ("Frage: über\nAntwort: ", "Frage: über\nAntwort: "),
    ],
)
def test_only_the_end_of_a_path_is_shown(value: object, shown: object) -> None:
    assert without_folders(value) == shown


def test_a_recipe_for_others_says_the_same_but_for_paths(tmp_path: Path) -> None:
    prompts = {"query": "为这个句子生成表示：", "document": "a\tb\nAntwort: /or "}
    recipe = {
        "name": "x",
        "base": "/home/me/base",
        "tasks": {"a": {"prompts": prompts, "data": ["/d/a.csv"]}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    text = recipe_for_others(tmp_path / "recipe.yaml")
    tasks = {"a": {"prompts": prompts, "data": ["…/a.csv"]}}
    assert yaml.safe_load(text) == {"name": "x", "base": "…/base", "tasks": tasks} and "为这个" in text


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
