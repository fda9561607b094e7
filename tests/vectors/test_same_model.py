"""One model stored in other words: prefixes, heads, old names, folders, copies, padding, cut matrices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.merging import merge, plan
from selfpos.storage.model_folder import open_model
from selfpos.storage.networks import SPLIT_ON_LOADING
from selfpos.vectors import TaskVector, open_vectors
from tests.helpers.adapters import edit_json, make_adapter, state
from tests.helpers.families import DECODER, SMALL, make_family
from tests.helpers.models import make_specialist

Rename = Callable[[str], str | None]


def restored(source: Path, folder: Path, rename: Rename, **more: torch.Tensor) -> Path:
    """A copy of a model whose tensors have other names (None: none at all), and more of them."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    named = {new: value for name, value in tensors.items() if (new := rename(name)) is not None}
    save_file(named | more, folder / "model.safetensors", {"format": "pt"})
    return folder


def in_old_layout(source: Path, folder: Path) -> Path:
    """A copy with the transformer in a folder of its own, as before sentence-transformers 5."""
    shutil.copytree(source, folder)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in list(folder.iterdir()):
        if file.is_file() and file.name not in ("modules.json", "config_sentence_transformers.json"):
            file.rename(inner / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0] |= {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def as_masked_language_model(name: str) -> str | None:
    return None if name.startswith("pooler.") else f"bert.{name}"


def with_old_norms(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


HEAD = {"cls.predictions.bias": torch.ones(57), "cls.predictions.transform.dense.weight": torch.ones(32, 32)}
WORDS: dict[str, Callable[[Path, Path], Path]] = {
    "masked language model": lambda source, folder: restored(
        source, folder, as_masked_language_model, **HEAD
    ),
    "prefix": lambda source, folder: restored(source, folder, lambda name: f"bert.{name}"),
    "old norms": lambda source, folder: restored(source, folder, with_old_norms),
    "without a pooler": lambda source, folder: restored(
        source, folder, lambda name: None if name.startswith("pooler.") else name
    ),
    "a head nobody uses": lambda source, folder: restored(source, folder, lambda name: name, **HEAD),
    "old layout": in_old_layout,
}


def plainly(key: str) -> str:
    """The key that the parameter has in a model saved today."""
    key = key.removeprefix("0_Transformer/").removeprefix("bert.")
    return key.replace("gamma", "weight").replace("beta", "bias")


@pytest.mark.parametrize("side", ["base", "vector", "adapter"])
@pytest.mark.parametrize("words", list(WORDS))
def test_a_model_in_other_words_is_the_same(
    words: str, side: str, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    restore = WORDS[words]
    base, source = tiny_base, tiny_specialists[0]
    start = state(base)
    expected = {key: value - start[key] for key, value in state(source).items()}
    if side == "vector":
        source = restore(source, tmp_path / "vector")
    else:
        base = restore(base, tmp_path / "base")
    if side == "adapter":
        source = tmp_path / "adapter"
        expected = make_adapter(
            tiny_base, source, plain=True, target_modules="all-linear", modules_to_save=["LayerNorm"]
        )
    (vector,) = open_vectors(open_model(base), [source])
    moved = [key for key in vector.keys if key in vector.parts]
    for key in moved:
        np.testing.assert_allclose(vector.values(key), expected[plainly(key)], atol=2e-6, err_msg=key)
    unused = {"pooler.dense.weight", "pooler.dense.bias"}
    changed = {key for key, value in expected.items() if np.abs(value).max() > 1e-6}
    assert {plainly(key) for key in moved} >= changed - unused
    out = merge(base, [source], "average", tmp_path / "out").out
    assert {file.name for file in out.iterdir()} >= {"modules.json"} and state(out).keys() == state(
        base
    ).keys()


def test_an_adapter_saved_with_its_modules_fits_a_base_in_the_old_layout(
    tiny_base: Path, tmp_path: Path
) -> None:
    base = in_old_layout(tiny_base, tmp_path / "base")
    expected = make_adapter(tiny_base, tmp_path / "adapter")
    (vector,) = open_vectors(open_model(base), [tmp_path / "adapter"])
    for key in vector.keys:
        moved = expected.get(plainly(key), np.zeros(base_shape := vector.base.tensors[key].shape))
        assert moved.shape == base_shape
        np.testing.assert_allclose(vector.values(key), moved, atol=2e-6, err_msg=key)


def test_weights_outside_all_modules_stand_against_nothing(tiny_base: Path, tmp_path: Path) -> None:
    """The base has its modules in folders; weights at its root are from before, which no library reads."""
    base = in_old_layout(tiny_base, tmp_path / "base")
    stale = {name: value + 1 for name, value in load_file(tiny_base / "model.safetensors").items()}
    save_file(stale, base / "model.safetensors", {"format": "pt"})
    tuned = make_specialist(tiny_base, tmp_path / "tuned", seed=1)
    (vector,) = open_vectors(open_model(base), [tuned])
    assert any("it lacks" in note and "at which it does not move" in note for note in vector.notes)
    found, expected = state(merge(base, [tuned], "average", tmp_path / "out").out), state(tuned)
    for key, value in expected.items():
        inside = key if "/" in key else f"0_Transformer/{key}"
        np.testing.assert_allclose(found[inside], value, atol=1e-6, err_msg=key)


def test_what_only_one_side_has_is_said_and_a_missing_layer_is_refused(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    masked = WORDS["masked language model"](tiny_base, tmp_path / "masked")
    (vector,) = open_vectors(open_model(masked), tiny_specialists[:1])
    assert any("cls.predictions" in note for note in vector.notes)
    assert any("pooler.dense.bias" in note and "left out" in note for note in vector.notes)
    torn = restored(
        tiny_specialists[0],
        tmp_path / "torn",
        lambda name: None if "layer.1.output" in name else f"bert.{name}",
    )
    with pytest.raises(SelfposError, match=r"it lacks 4 tensors \(encoder\.layer\.1\.output\.LayerNorm"):
        open_vectors(open_model(tiny_base), [torn])


MOE = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}


@pytest.mark.parametrize(
    ("config", "fields", "head"),
    [
        ("BertConfig", SMALL, "MaskedLM"),
        ("Qwen2Config", {**DECODER, "tie_word_embeddings": False}, "CausalLM"),
        ("Qwen3MoeConfig", {**DECODER, **MOE}, "CausalLM"),
    ],
)
def test_a_plain_base_with_the_head_of_its_pretraining(
    config: str, fields: dict[str, Any], head: str, tmp_path: Path
) -> None:
    """As bert-base-uncased is stored; models fine-tuned from it have no such head, plain ones too."""
    import transformers

    place = make_family(tmp_path / "tuned", config, fields)
    plain = tmp_path / "tuned-raw"
    model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(place)
    model.save_pretrained(tmp_path / "base")
    for file in plain.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "base")
    one = make_specialist(plain, tmp_path / "one", seed=1)
    out = merge(tmp_path / "base", [one], "average", tmp_path / "out", pooling="mean").out
    merged = getattr(transformers, f"AutoModelFor{head}").from_pretrained(out).base_model.state_dict()
    expected = transformers.AutoModel.from_pretrained(one).state_dict()
    assert merged.keys() >= {name for name in expected if not name.startswith("pooler.")}
    for name, value in merged.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=0)


def test_a_model_of_its_own_code_is_matched_by_names_alone(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    """The type is BERT's, but the tensors are another model's: transformers' BERT would use none of them."""

    def renamed(source: Path, folder: Path, gone: str = "?") -> Path:
        return restored(source, folder, lambda name: None if gone in name else f"own.code_{name}")

    base = renamed(tiny_base, tmp_path / "base")
    assert open_vectors(open_model(base), [renamed(tiny_specialists[0], tmp_path / "one")])
    with pytest.raises(SelfposError, match=r"it lacks 16 tensors"):
        open_vectors(open_model(base), [renamed(tiny_specialists[0], tmp_path / "torn", "layer.1")])


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny T5 encoder and a specialist."""
    place = tmp_path_factory.mktemp("t5")
    fields = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    base = make_family(place / "base", "T5Config", {**fields, "pad_token_id": 0})
    return base, make_specialist(base, place / "one", seed=1)


TABLE, OTHER = "shared.weight", "encoder.embed_tokens.weight"


@pytest.mark.parametrize("method", ["average", "dare-linear"])
@pytest.mark.parametrize("names", [(TABLE, OTHER), (OTHER,)])
def test_the_two_names_of_a_table_are_one_tensor(
    names: tuple[str, ...], method: str, t5: tuple[Path, Path], tmp_path: Path
) -> None:
    base, one = t5

    def stored(source: Path, folder: Path) -> Path:
        table = load_file(source / "model.safetensors")[TABLE]
        copies = {name: table.clone() for name in names}
        return restored(source, folder, lambda name: None if name == TABLE else name, **copies)

    right = state(merge(base, [one], method, tmp_path / "right").out)[TABLE]
    other_base, other = stored(base, tmp_path / "base"), stored(one, tmp_path / "one")
    for number, (start, source) in enumerate([(other_base, one), (base, other), (other_base, other)]):
        found = state(merge(start, [source], method, tmp_path / f"m{number}", take_from="base").out)
        tables = [found[name] for name in (TABLE, OTHER) if name in found]
        assert len(tables) == (1 if start == base else len(names))
        for table in tables:  # whose masks are drawn by the name that comes first
            np.testing.assert_array_equal(table, right if method == "average" else tables[0])


def test_of_copies_the_one_that_others_are_tied_to_is_taken(t5: tuple[Path, Path], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    base, one = t5
    table = load_file(one / "model.safetensors")[TABLE]
    both = restored(one, tmp_path / "both", lambda name: name, **{OTHER: table.clone()})
    out = merge(base, [both], "average", tmp_path / "out", take_from="both").out
    assert TABLE in state(out) and OTHER not in state(out)
    vectors = [SentenceTransformer(str(folder), device="cpu").encode(["a b"]) for folder in (one, out)]
    np.testing.assert_allclose(*vectors, atol=1e-5)


def test_copies_that_differ_are_two_tensors(t5: tuple[Path, Path], tmp_path: Path) -> None:
    base, one = t5
    table = load_file(one / "model.safetensors")[TABLE]
    unlike = restored(one, tmp_path / "unlike", lambda name: name, **{OTHER: table + 1})
    with pytest.raises(SelfposError, match=r"encoder\.embed_tokens\.weight that the base has not"):
        open_vectors(open_model(base), [unlike])


def test_matrices_that_are_cut_on_loading_are_merged_in_parts(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    base = make_family(tmp_path / "base", "NomicBertConfig", {**SMALL, "pad_token_id": 0})
    one = make_specialist(base, tmp_path / "one", seed=1)
    stored = "encoder.layers.0.attn.Wqkv.weight"
    adapted = get_peft_model(
        AutoModel.from_pretrained(base), LoraConfig(r=2, target_modules=["k_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload().state_dict()["layers.0.self_attn.k_proj.weight"].double().numpy()
    start, moved = state(base)[stored], state(one)[stored]
    expected = 0.5 * (start + moved)
    expected[16:32] += 0.5 * (merged - start[16:32])
    out = merge(base, [one, tmp_path / "adapter"], "average", tmp_path / "out").out
    np.testing.assert_allclose(state(out)[stored], expected, atol=1e-6)
    assert state(out).keys() == state(base).keys()
    sharded = merge(base, [one], "average", tmp_path / "shards", shard_size=9000, dtype="bfloat16").out
    np.testing.assert_allclose(state(sharded)[stored], moved, atol=0.01)
    assert len(list(sharded.glob("model-*.safetensors"))) > 1


@pytest.mark.slow
def test_the_types_that_are_cut_are_those_of_transformers() -> None:
    from transformers import conversion_mapping
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    cut = set()
    for kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        steps = [
            (type(step).__name__, getattr(step, "dim", None))
            for transform in conversion_mapping.get_checkpoint_conversion_mapping(kind) or []
            for step in getattr(transform, "operations", [])
        ]
        if ("Chunk", 0) in steps:
            cut.add(kind)
    assert cut <= set(SPLIT_ON_LOADING)


def padded(source: Path, folder: Path, rows: int) -> Path:
    """A copy whose table of tokens has so many rows."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    table = tensors["embed_tokens.weight"]
    new = torch.zeros(rows, table.shape[1])
    new[: min(rows, len(table))] = table[:rows]
    save_file(tensors | {"embed_tokens.weight": new}, folder / "model.safetensors", {"format": "pt"})
    edit_json(folder / "config.json", vocab_size=rows)
    return folder


@pytest.mark.parametrize("rows", [31, 64])
def test_rows_that_pad_a_vocabulary_may_be_more_or_fewer(rows: int, tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", "Qwen3Config", DECODER)  # 31 tokens in 60 rows
    one = make_specialist(base, tmp_path / "one", seed=1)
    other = padded(one, tmp_path / "other", rows)
    planned = plan(base, [other], "average", tmp_path / "out")
    assert any(f"has {rows} rows, and the base's 60" in warning for warning in planned.warnings)
    found = state(merge(base, [other], "average", tmp_path / "out").out)["embed_tokens.weight"]
    start, moved = (state(folder)["embed_tokens.weight"] for folder in (base, one))
    common = min(rows, 60)
    np.testing.assert_allclose(found[:common], moved[:common], atol=1e-6)
    np.testing.assert_array_equal(found[common:], start[common:])
    with pytest.raises(SelfposError, match=r"embed_tokens\.weight has shape"):
        open_vectors(open_model(base), [padded(one, tmp_path / "torn", 20)])


def values_of(vector: TaskVector, key: str) -> Any:
    """V at `key`, read in small ranges."""
    entry = vector.base.tensors[key]
    start = vector.base.read_float32(key).reshape(-1)
    reader = vector.reader(key)
    parts = [reader(i, min(i + 7, entry.numel), start[i : i + 7]) for i in range(0, entry.numel, 7)]
    return np.concatenate(parts).reshape(entry.shape)


def test_rows_of_other_tokenizers_are_found_by_their_tokens(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    key = "embeddings.word_embeddings.weight"
    order = list(range(57))
    order[5:31] = order[5:31][::-1]  # the letters the other way round
    other = tmp_path / "other"
    shutil.copytree(tiny_specialists[0], other)
    data = json.loads((other / "tokenizer.json").read_text())
    words = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    data["model"]["vocab"] = {words[j]: i for i, j in enumerate(order)}
    (other / "tokenizer.json").write_text(json.dumps(data))
    (other / "vocab.txt").unlink(missing_ok=True)
    tensors = load_file(other / "model.safetensors")
    save_file(
        tensors | {key: tensors[key][order].contiguous()}, other / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(SelfposError, match=r"finds the rows of tensor embeddings.* say --take-from base"):
        open_vectors(open_model(tiny_base), [other])
    expected = state(tiny_specialists[0])[key] - state(tiny_base)[key]
    (vector,) = open_vectors(open_model(tiny_base), [other], tolerate=True)
    np.testing.assert_allclose(values_of(vector, key), expected, atol=1e-6)
    # taken from the other, whose order the base's rows do not have, the table stays whole
    out = merge(tiny_base, [other], "average", tmp_path / "out", take_from="other").out
    np.testing.assert_array_equal(state(out)[key], state(other)[key])


def test_matrices_as_tall_as_the_vocabulary_are_no_tables(tmp_path: Path) -> None:
    fields = {**SMALL, "intermediate_size": 60, "max_position_embeddings": 60}
    base = make_family(tmp_path / "base", "BertConfig", fields)
    one = make_specialist(base, tmp_path / "one", seed=1)
    data = json.loads((one / "tokenizer.json").read_text())
    words = data["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    (one / "tokenizer.json").write_text(json.dumps(data))
    (vector,) = open_vectors(open_model(base), [one], tolerate=True)
    assert vector.by_token == {"embeddings.word_embeddings.weight"}
    moved, start = state(one), state(base)
    for key in start.keys() - vector.by_token:
        np.testing.assert_allclose(vector.values(key), moved[key] - start[key], atol=1e-6, err_msg=key)
