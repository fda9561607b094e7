"""Which fields of a configuration stand against a merge, and which do no harm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.merging import merge, plan
from selfpos.merging.plan import check_base
from selfpos.storage.model_folder import open_model
from selfpos.storage.networks import loaded
from selfpos.vectors import open_vectors
from selfpos.vectors.check import pooling_mode
from selfpos.vectors.config_fields import HARMLESS, TOKEN_IDS, field_differences
from tests.helpers.adapters import edit_json
from tests.helpers.families import DECODER, SMALL, make_family
from tests.helpers.models import make_specialist

GEMMA = {"model_type": "gemma3_text", "use_bidirectional_attention": True}


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"reference_compile": None}, {"reference_compile": False}),
        (
            {"sentence_transformers": {"version": "4.0.1", "a": 1}},
            {"sentence_transformers": {"version": "5", "a": 1}},
        ),
        ({"embedding_dimension": 100}, {"embedding_dimension": None}),
        ({"in_features": 8, "bias": None}, {"in_features": 8, "bias": True}),
        ({"skiplist_words": ["!", "."]}, {"skiplist_words": [".", "!"]}),
        ({"id2label": {0: "LABEL_0", 1: "LABEL_1"}}, {"id2label": {0: "no", 1: "yes"}}),
        ({"id2label": {"0": 0, "1": 1}}, {"id2label": {"0": 2, "1": 3}}),
        ({"model_type": "t5", "is_encoder_decoder": True}, {"model_type": "t5", "is_encoder_decoder": False}),
        ({"eos_token_id": 1}, {"eos_token_id": 2, "pad_token_id": 4}),
        ({**GEMMA, "sliding_window": 512}, {**GEMMA, "sliding_window": 257}),
        ({"text_config": {"dtype": "float32", "hidden_size": 8}}, {"text_config": {"hidden_size": 8}}),
    ],
)
def test_fields_that_change_nothing(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert field_differences(mine, theirs) == [] == field_differences(theirs, mine)


@pytest.mark.parametrize(
    ("mine", "theirs", "name"),
    [
        ({"hidden_act": "gelu"}, {"hidden_act": "gelu_new"}, "hidden_act"),
        ({**GEMMA, "sliding_window": 512}, {**GEMMA, "sliding_window": 256}, "sliding_window"),
        ({"sliding_window": 512}, {"sliding_window": 257}, "sliding_window"),
        (
            {"model_type": "xlm-roberta", "pad_token_id": 1},
            {"model_type": "xlm-roberta", "pad_token_id": 0},
            "pad_token_id",
        ),
        ({"model_type": "clip_text_model", "eos_token_id": 2}, {"eos_token_id": 3}, "eos_token_id"),
        ({"model_type": "luke", "pad_token_id": 1}, {"pad_token_id": 0}, "pad_token_id"),
        (
            {"model_type": "t5", "architectures": ["T5ForSequenceClassification"], "eos_token_id": 1},
            {"eos_token_id": 3},
            "eos_token_id",
        ),
        (
            {"text_config": {"rope_theta": 1e4}},
            {"text_config": {"rope_theta": 1e6}},
            "text_config.rope_theta",
        ),
        ({"is_decoder": False}, {"is_decoder": True}, "is_decoder"),
        ({"id2label": ["no"]}, {"id2label": ["yes"]}, "id2label"),
        ({"id2label": {"0": 0}}, {"id2label": "yes"}, "id2label"),
        ({**GEMMA, "sliding_window": 512}, {**GEMMA, "sliding_window": "257"}, "sliding_window"),
        ({"model_type": ["t5"], "is_encoder_decoder": 1}, {"is_encoder_decoder": 0}, "is_encoder_decoder"),
        ({}, {"is_causal": False}, "is_causal"),
        ({"bias": True}, {"bias": True, "use_residual": True}, "use_residual"),
    ],
)
def test_fields_that_count(mine: dict[str, Any], theirs: dict[str, Any], name: str) -> None:
    (found,) = field_differences(mine, theirs)
    assert found[0] == name


def test_the_same_classes_in_another_order_count() -> None:
    classes = ({"id2label": {0: "no", 1: "yes"}}, {"id2label": {0: "Yes", 1: "No"}})
    assert [name for name, *_ in field_differences(*classes)] == ["id2label.0", "id2label.1"]


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("config.json", "is_causal", False),
        ("1_Pooling/config.json", "include_prompt", False),
        ("2_Dense/config.json", "use_residual", True),
        ("sentence_bert_config.json", "modality_config", {"text": {"method_output_name": "pooler_output"}}),
    ],
)
def test_fields_that_one_side_does_not_write(file: str, field: str, value: Any, tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", "Qwen3Config", DECODER)
    one = make_specialist(base, tmp_path / "one", seed=1)
    edit_json(one / file, **{field: value})
    with pytest.raises(SelfposError, match=f"{field}.* is .*, expected .*, which changes what is"):
        open_vectors(open_model(base), [one])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "384"),
        ("hidden_size", -4),
        ("num_attention_heads", 0),
        ("model_type", ["bert"]),
        ("architectures", 5),
        ("pad_token_id", 10_000),
    ],
)
def test_a_configuration_that_transformers_refuses_is_no_traceback(
    field: str, value: Any, tiny_base: Path, tmp_path: Path
) -> None:
    one = make_specialist(tiny_base, tmp_path / "one", seed=1)
    edit_json(one / "config.json", **{field: value})
    names = [entry.name for entry in open_model(one).tensors.values()]
    if field != "architectures":
        assert loaded(one, names, "feature-extraction") is None
    if field in ("architectures", "pad_token_id"):  # which a BERT without a head does not use
        assert open_vectors(open_model(tiny_base), [one])
        return
    with pytest.raises(SelfposError, match=f"its Transformer {field} is"):
        open_vectors(open_model(tiny_base), [one])


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("config_sentence_transformers.json", "prompts", ["query: "]),
        ("config.json", "quantization_config", "x"),
        ("config.json", "auto_map", ["x.Y"]),
        ("config.json", "sentence_transformers", "5"),
        ("1_Pooling/config.json", "pooling_mode", 5),
        ("1_Pooling/config.json", "pooling_mode", [5]),
        ("sentence_bert_config.json", "modality_config", "text"),
        ("modules.json", "type", 5),
        ("modules.json", "type", ""),
    ],
)
def test_a_field_of_a_wrong_type_is_named(
    file: str, field: str, value: Any, tiny_base: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    if file == "modules.json":
        modules = json.loads((base / file).read_text())
        (base / file).write_text(json.dumps([module | {field: value} for module in modules]))
    else:
        edit_json(base / file, **{field: value})
    expected = rf"{file} (has {field} .*; expected an object|does not list modules with .* type)|{field} \[?5"
    with pytest.raises(SelfposError, match=expected):
        check_base(base, allow_code=True)
        plan(base, [make_specialist(base, tmp_path / "one", seed=1)], "average", tmp_path / "out")


def test_every_harmless_field_has_a_reason() -> None:
    assert all(reason and not reason[0].isupper() for reason in {**HARMLESS, **TOKEN_IDS}.values())


def test_fields_that_are_not_written_have_the_value_of_their_type(tmp_path: Path) -> None:
    """transformers writes other fields in other versions; what one leaves out has the default of its type."""
    base = make_family(tmp_path / "base", "Qwen3Config", DECODER)
    one = make_specialist(base, tmp_path / "one", seed=1)
    file = one / "config.json"
    config = json.loads(file.read_text())
    old = {name: value for name, value in config.items() if name not in ("rope_parameters", "hidden_act")}
    theta = config["rope_parameters"]["rope_theta"]
    file.write_text(json.dumps(old | {"rope_theta": theta, "unsloth_fixed": True, "use_cache": False}))
    assert open_vectors(open_model(base), [one])
    file.write_text(json.dumps(old | {"rope_theta": 7 * theta}))
    with pytest.raises(SelfposError, match=r"rope_theta is .*, expected .*, which changes what is computed"):
        open_vectors(open_model(base), [one])


def test_a_refusal_names_field_values_and_the_way_on(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    import shutil

    one = shutil.copytree(tiny_specialists[0], tmp_path / "one")
    edit_json(one / "config.json", layer_norm_eps=1e-3)
    with pytest.raises(SelfposError) as refused:
        open_vectors(open_model(tiny_base), [one])
    assert (
        "its Transformer layer_norm_eps is 0.001, expected 1e-12, which changes what is computed; to go on "
        "with what the base has, which merges all tensors, say --take-from base"
    ) in str(refused.value)
    (vector,) = open_vectors(open_model(tiny_base), [one], tolerate=True)
    assert vector.differences and not vector.misfits
    # what a search, which takes no --take-from, is told to do first
    made = merge(tiny_base, [one], "average", tmp_path / "made", take_from="base").out
    (again,) = open_vectors(open_model(tiny_base), [made])
    for key in again.keys:
        np.testing.assert_allclose(again.values(key), vector.values(key), atol=1e-7)


def test_a_padding_token_counts_where_positions_are_counted_from_it(tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", "RobertaConfig", {**SMALL, "pad_token_id": 0})
    one = make_specialist(base, tmp_path / "one", seed=1)
    edit_json(one / "config.json", bos_token_id=2, pad_token_id=1)
    with pytest.raises(SelfposError, match="pad_token_id is 1, expected 0"):
        open_vectors(open_model(base), [one])


def test_which_tokens_a_mask_keeps_counts_also_where_one_keeps_all() -> None:
    all_kept, some = {"keep_only_token_ids": None}, {"keep_only_token_ids": [5, 6]}
    assert field_differences(all_kept, some) == [("keep_only_token_ids", None, [5, 6])]
    assert field_differences(some, all_kept) == [("keep_only_token_ids", [5, 6], None)]
    assert field_differences(some, {"keep_only_token_ids": [6, 5]}) == []


@pytest.mark.parametrize("mode", ["cls", "lasttoken", "max", "mean", "mean_sqrt_len_tokens", "weightedmean"])
def test_a_pooling_in_the_older_form_is_the_same(mode: str) -> None:
    flag = {
        "max": "max_tokens",
        "mean": "mean_tokens",
        "cls": "cls_token",
        "weightedmean": "weightedmean_tokens",
    }
    older = {f"pooling_mode_{flag.get(mode, mode)}": True, "pooling_mode_other": False}
    assert (
        pooling_mode(older) == pooling_mode({"pooling_mode": mode}) == pooling_mode({"pooling_mode": [mode]})
    )


def test_the_order_of_several_poolings_counts() -> None:
    older = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    assert pooling_mode(older) == pooling_mode({"pooling_mode": ["cls", "mean"]}) == "cls+mean"
    assert pooling_mode({"pooling_mode": ["mean", "cls"]}) == "mean+cls"
    assert pooling_mode({}) == "mean"
