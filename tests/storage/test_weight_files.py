"""Where the weights of a model are: one file, or shards with and without an index; and what is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.storage.model_class import check_embeds
from selfpos.storage.model_folder import Module, open_model, read_modules
from selfpos.storage.networks import networks
from tests.helpers.adapters import SHARDS, edit_json, in_shards, state


def test_shards_without_an_index_are_read_when_all_are_there(tiny_base: Path, tmp_path: Path) -> None:
    in_shards(tiny_base, tmp_path / "shards")
    model = open_model(tmp_path / "shards")
    for key, value in state(tiny_base).items():
        np.testing.assert_array_equal(model.read_float32(key), value)
    (tmp_path / "shards" / SHARDS[1]).unlink()
    with pytest.raises(SelfposError, match=r"its shards model-00001-of-00002\.safetensors are not all there"):
        open_model(tmp_path / "shards")


def test_the_index_decides_between_two_copies(tiny_base: Path, tmp_path: Path) -> None:
    weight_map = in_shards(tiny_base, tmp_path / "shards", twice=True)
    with pytest.raises(SelfposError, match="is in both"):
        open_model(tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    model = open_model(tmp_path / "shards")
    for key, value in state(tiny_base).items():
        np.testing.assert_array_equal(model.read_float32(key), value)


def test_unlike_copies_of_which_transformers_loads_another_than_the_index_says_are_refused(
    tiny_base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel

    folder = tmp_path / "shards"
    weight_map = in_shards(tiny_base, folder)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    name = next(name for name in weight_map if weight_map[name] == SHARDS[0])
    first, second = (load_file(folder / shard) for shard in SHARDS)
    save_file(second | {name: first[name]}, folder / SHARDS[1], {"format": "pt"})
    np.testing.assert_array_equal(open_model(folder).read_float32(name), first[name])  # one tensor, twice
    save_file(second | {name: first[name] + 1}, folder / SHARDS[1], {"format": "pt"})
    assert torch.equal(AutoModel.from_pretrained(folder).state_dict()[name], first[name] + 1)
    with pytest.raises(
        SelfposError, match=rf"tensor {name} is in {SHARDS[0]}, .*other values in {SHARDS[1]}"
    ):
        open_model(folder)


def test_other_names_and_pickles_are_refused_in_true_words(tiny_base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_base, tmp_path / "other")
    (other / "2_Dense" / "model.safetensors").unlink()
    (other / "model.safetensors").rename(other / "weights.safetensors")
    with pytest.raises(
        SelfposError, match=r"it has weights\.safetensors, of which none is model\.safetensors"
    ):
        open_model(other)
    torch.save({}, other / "pytorch_model.bin")
    with pytest.raises(SelfposError, match=r"pickle \(pytorch_model\.bin\), .* save it again, which writes"):
        open_model(other)


def test_a_plain_folder_is_one_transformer(tiny_base: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(tiny_base, tmp_path / "plain")
    (plain / "modules.json").unlink()
    assert [module.kind for module in open_model(plain).modules] == ["Transformer"]
    with pytest.raises(SelfposError, match=r"plain transformers model, .* --pooling mean"):
        read_modules(plain)
    (plain / "config.json").unlink()
    with pytest.raises(SelfposError, match=r"no modules\.json$"):
        open_model(plain)


def test_the_root_may_be_called_dot(tiny_base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    modules = json.loads((copy / "modules.json").read_text())
    modules[0]["path"], modules[2]["path"] = ".", "./2_Dense/"
    (copy / "modules.json").write_text(json.dumps(modules))
    assert [module.path for module in read_modules(copy)][:3] == ["", "1_Pooling", "2_Dense"]


def test_only_embedders_are_trained_and_searched_on(tiny_base: Path, tmp_path: Path) -> None:
    check_embeds(tiny_base)
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    edit_json(copy / "config_sentence_transformers.json", model_type="CrossEncoder")
    with pytest.raises(SelfposError, match="is a CrossEncoder"):
        check_embeds(copy)


@pytest.mark.parametrize(("kind", "file"), [("Router", "router_config.json"), ("Asym", "config.json")])
def test_the_modules_within_a_router_are_networks(kind: str, file: str, tmp_path: Path) -> None:
    types = {"query_0_StaticEmbedding": "a.b.StaticEmbedding", "document_0_Transformer": "a.Transformer"}
    (tmp_path / "0_R").mkdir()
    (tmp_path / "0_R" / file).write_text(json.dumps({"types": types}))
    found = networks(tmp_path, [Module(0, "0", "0_R", f"x.{kind}"), Module(1, "1", "", "x.Normalize")])
    assert [(network.kind, network.prefix) for network in found] == [
        ("Transformer", "0_R/document_0_Transformer/"),
        ("StaticEmbedding", "0_R/query_0_StaticEmbedding/"),
        ("Normalize", ""),
    ]
