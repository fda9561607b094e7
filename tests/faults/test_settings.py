"""Settings of a stranger's model, and what users write, beyond what any has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selfpos.commands.options import parse_params
from selfpos.commands.overlap import read_sources
from selfpos.data.files import read_records
from selfpos.errors import SelfposError, told
from selfpos.evaluation.load import load_model
from selfpos.mergekit.recipe import translate_recipes
from selfpos.publishing.plan import plan_push
from selfpos.storage.inside import inside
from selfpos.storage.loading import loading
from selfpos.storage.model_folder import open_model
from selfpos.training.models import check_trainable

PROMPTS = "config_sentence_transformers.json"


@pytest.mark.parametrize("opened", [check_trainable, open_model, load_model])
@pytest.mark.parametrize(
    ("name", "change", "refusal"),
    [
        ("config.json", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ("config.json", {"encoder_layers": -1}, "encoder_layers"),
        ("config.json", {"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers"),
        ("config.json", {"parts": [{"n_layer": 1.5}]}, "n_layer"),
        ("sentence_bert_config.json", {"max_seq_length": "many"}, "max_seq_length"),
        ("sentence_bert_config.json", {"max_seq_length": 10**30}, "max_seq_length"),
        ("sentence_bert_config.json", {"max_seq_length": 32.0}, "max_seq_length '32.0'; expected an integer"),
        ("sentence_roberta_config.json", {"max_seq_length": "x"}, "sentence_roberta_config.* max_seq_length"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 10**12}}}, "max_length"),
        ("sentence_bert_config.json", {"x": [{"pad_to_multiple_of": 10**12}]}, "pad_to_multiple_of"),
        (PROMPTS, {"prompts": 5}, "prompts"),
        (PROMPTS, {"prompts": {"query": 5}}, "no text"),
    ],
)
def test_every_verb_refuses_settings_that_no_model_has(
    opened: Callable[[Path], object],
    name: str,
    change: dict[str, Any],
    refusal: str,
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    kept = json.loads((model / name).read_text()) if (model / name).exists() else {}
    (model / name).write_text(json.dumps(kept | change))
    with pytest.raises(SelfposError, match=refusal):
        opened(model)


@pytest.mark.parametrize("number", ["Infinity", "1e999", "NaN", '"x"', "[1]"])
def test_a_module_has_a_number(number: str, tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    listed = (model / "modules.json").read_text()
    (model / "modules.json").write_text(listed.replace('"idx": 0', f'"idx": {number}'))
    for opened in (check_trainable, open_model, load_model):
        with pytest.raises(SelfposError, match="does not list modules with idx"):
            opened(model)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"num_unfrozen_layers": -1, "layers": [2, 3], "vision_feature_layer": -2}),
        ("sentence_bert_config.json", {"max_seq_length": None}),
    ],
)
def test_settings_that_models_have_are_read(
    name: str, change: dict[str, Any], tiny_base: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / name).write_text(json.dumps(json.loads((model / name).read_text()) | change))
    check_trainable(model)
    assert open_model(model).tensors.keys() == open_model(tiny_base).tensors.keys()
    assert load_model(model).encode("a").shape == (16,)


def test_the_settings_of_an_adapters_base_are_checked(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    adapter = Path(shutil.copytree(tiny_base, tmp_path / "adapter"))
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    kept = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(kept | {"num_hidden_layers": 10**9}))
    with pytest.raises(SelfposError, match=r"base/config\.json has num_hidden_layers '1000000000'"):
        load_model(adapter)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", PROMPTS])
def test_every_verb_refuses_settings_nested_without_end(name: str, tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / name).write_text("[" * 200_000)
    for opened in (check_trainable, open_model, load_model):
        with pytest.raises(SelfposError, match="is not JSON"):
            opened(model)


def test_what_a_library_raises_on_loading_is_one_sentence(tiny_base: Path, tmp_path: Path) -> None:
    from selfpos.recipe import TrainingSettings
    from selfpos.training.models import load_trainable

    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / "1_Pooling" / "config.json").write_text('{"nothing": 1}')
    with pytest.raises(SelfposError, match="does not load as a sentence-transformers model: TypeError"):
        load_trainable(model, TrainingSettings())


def test_an_index_may_not_name_what_no_file_system_takes(tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / "model.safetensors").rename(model / "other.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x" * 5000}}))
    with pytest.raises(SelfposError, match="expected a short text"):
        open_model(model)


def test_a_name_is_bounded_part_by_part(tmp_path: Path) -> None:
    for name in ("x" * 255, f"{'x' * 200}/{'y' * 200}", "ü" * 127):
        assert inside(tmp_path, name, tmp_path / "modules.json") == tmp_path / name
        assert not (tmp_path / name).is_file()
    for name in ("x" * 256, f"a/{'y' * 256}", "ü" * 128, "ab/" * 1000, "\ud800" * 100):
        with pytest.raises(SelfposError, match="expected a short text"):
            inside(tmp_path, name, tmp_path / "modules.json")


@pytest.mark.parametrize("value", ["~", "null"])
def test_a_parameter_that_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(SelfposError, match="no value"):
        parse_params((f"density={value}",))


def test_models_beside_slices_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yml"
    recipe.write_text(f"merge_method: ties\nbase_model: {tiny_base}\nmodels: [{{model: a}}]\nslices: 5\n")
    with pytest.raises(SelfposError, match="models and slices"):
        translate_recipes(recipe)


def test_data_of_one_name_are_tasks_of_several() -> None:
    words = ("sts=a/same.jsonl", "sts=b/same.jsonl", "sts=c/same.jsonl", "sts=größe é.jsonl")
    assert list(read_sources(words)[0]) == ["same", "same-2", "same-3", "gr-e"]


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [
        ("x.csv", "," * 100_000 + "\n", "100,001 columns"),
        ("x.tsv", "\t" * 100_000 + "\n", "100,001 columns"),
        ("x.json", "[" + " " * 100_000_001, "JSON Lines"),
    ],
)
def test_data_without_bounds(name: str, content: str, refusal: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SelfposError, match=refusal):
        read_records(tmp_path / name)


def test_a_push_without_safetensors_says_why(tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    problems = plan_push(model, "alice/x", licence="mit", lookup=None).problems
    assert any("pickle" in problem for problem in problems)


def test_a_sentence_is_one_line_of_bounded_length() -> None:
    assert told("a\nb " + "x" * 10_000 + " end") == f"a\\nb {'x' * 200}…{'x' * 100} end"
    assert len(told("word " * 100_000)) < 5000 and told("größe [x]") == "größe [x]"


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), SelfposError("x")]
)
def test_too_little_memory_is_no_fault_of_the_model(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as raised, loading(tmp_path):
        raise error
    assert raised.value is error
