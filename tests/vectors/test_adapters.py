"""What PEFT stores beside the factors of an adapter: heads, embeddings, trained tokens."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.merging import merge, plan
from selfpos.storage.model_folder import open_model
from selfpos.vectors import open_vectors
from tests.helpers.adapters import edit_json, make_adapter, state
from tests.helpers.families import DECODER, FAMILIES, SMALL, make_family, splade

TABLE = "embed_tokens.weight"
MASKED = "AutoModelForMaskedLM"
DECODER_KEY = "cls.predictions.decoder.weight"
TOKENS = {"word_embeddings": [5, 6]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3."""
    return make_family(tmp_path_factory.mktemp("adapters") / "base", "Qwen3Config", DECODER)


def tune(
    base: Path, folder: Path, kind: str = "AutoModel", save: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Save a random adapter; returns PEFT's model."""
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = getattr(transformers, kind).from_pretrained(base)
    options = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False} | options
    tuned = get_peft_model(model, LoraConfig(**options))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    tuned.save_pretrained(folder, **(save or {}))
    return tuned


def store_decoder(base: Path, key: str = DECODER_KEY) -> None:
    """Store the table of words a second time, as its decoder."""
    tensors = load_file(base / "model.safetensors")
    (table,) = (value for name, value in tensors.items() if name.endswith("word_embeddings.weight"))
    save_file(tensors | {key: table.clone()}, base / "model.safetensors", {"format": "pt"})


def differing(base: Path, adapter: Path, tuned: Any, out: Path) -> list[str]:
    """The tensors in which the merge of the adapter alone is not what PEFT's own merge makes."""
    merged = tuned.double().merge_and_unload().state_dict()
    found = state(merge(base, [adapter], "average", out, dtype="float32").out)
    return [
        key
        for key, value in found.items()
        if "/" not in key
        and not np.allclose(value, merged.get(key, merged.get(f"model.{key}")).numpy(), rtol=1e-7, atol=2e-6)
    ]


@pytest.mark.parametrize(
    ("save", "options"),
    [
        ({}, {"modules_to_save": ["embed_tokens"]}),
        ({"save_embedding_layers": True}, {"modules_to_save": ["embed_tokens"]}),
        ({"save_embedding_layers": True}, {}),
        ({}, {"target_modules": ["q_proj", "embed_tokens"]}),
        ({}, {"trainable_token_indices": [5, 7, 30]}),
        ({}, {"trainable_token_indices": {"embed_tokens": [0, 59]}}),
    ],
)
def test_embeddings_move_as_in_peft(
    save: dict[str, Any], options: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    tuned = tune(base, tmp_path / "adapter", save=save, **options)
    assert differing(base, tmp_path / "adapter", tuned, tmp_path / "out") == []


def test_factors_on_the_embeddings_of_a_half_precision_base(base: Path, tmp_path: Path) -> None:
    """The base's table is stored beside float32 factors, and after them: it is no new table."""
    half = tmp_path / "half"
    shutil.copytree(base, half)
    tensors = {name: value.bfloat16() for name, value in load_file(base / "model.safetensors").items()}
    save_file(tensors, half / "model.safetensors", {"format": "pt"})
    tuned = tune(half, tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    stored = list(load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert any("base_layer" in name for name in stored)
    assert differing(half, tmp_path / "adapter", tuned.float(), tmp_path / "out") == []
    (vector,) = open_vectors(open_model(half), [tmp_path / "adapter"])
    assert np.abs(vector.values(TABLE)).max() > 1e-3


def test_a_stored_table_that_is_not_the_bases_counts_too(base: Path, tmp_path: Path) -> None:
    tune(base, tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    (before,) = open_vectors(open_model(base), [tmp_path / "adapter"])
    factors = before.values(TABLE)
    tensors = load_file(file)
    name = next(name for name in tensors if "base_layer" in name)
    save_file(tensors | {name: tensors[name] + 1}, file, {"format": "pt"})
    (vector,) = open_vectors(open_model(base), [tmp_path / "adapter"])
    np.testing.assert_allclose(vector.values(TABLE), factors + 1, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "head"),
    [
        ("AutoModelForCausalLM", {"modules_to_save": ["lm_head"]}, "lm_head"),
        ("AutoModelForCausalLM", {"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ("AutoModelForSequenceClassification", {"task_type": "SEQ_CLS"}, "score"),
    ],
)
def test_heads_that_the_base_has_not_are_left_out_and_said(
    kind: str, options: dict[str, Any], head: str, base: Path, tmp_path: Path
) -> None:
    tuned = tune(base, tmp_path / "adapter", kind, **options)
    (vector,) = open_vectors(open_model(base), [tmp_path / "adapter"])
    assert any(f"also trains {head}" in note for note in vector.notes)
    assert differing(base, tmp_path / "adapter", tuned, tmp_path / "out") == []


def test_an_adapter_in_a_modules_folder_is_pointed_to(base: Path, tmp_path: Path) -> None:
    tune(base, tmp_path / "one" / "0_Transformer")
    shutil.copy(base / "modules.json", tmp_path / "one")
    with pytest.raises(
        SelfposError, match=r"adapter in 0_Transformer; give that folder, .*one/0_Transformer"
    ):
        open_vectors(open_model(base), [tmp_path / "one"])
    assert open_vectors(open_model(base), [tmp_path / "one" / "0_Transformer"])[0].parts


def test_an_adapter_in_a_folder_of_its_name_is_pointed_to(base: Path, tmp_path: Path) -> None:
    tune(base, tmp_path / "law")
    with pytest.raises(SelfposError, match=r"holds a PEFT adapter in law; give that folder"):
        open_vectors(open_model(base), [tmp_path])


def test_trained_tokens_must_be_those_of_the_configuration(base: Path, tmp_path: Path) -> None:
    from tests.helpers.adapters import edit_json

    tune(base, tmp_path / "adapter", trainable_token_indices=[5, 7])
    for wrong in ([5], [5, 60], None):
        edit_json(tmp_path / "adapter" / "adapter_config.json", trainable_token_indices=wrong)
        with pytest.raises(SelfposError, match=r"shape \[2, 16\] for \d trained tokens"):
            open_vectors(open_model(base), [tmp_path / "adapter"])


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("owner/base", None),
        ("/cache/models--owner--Base/snapshots/abc", None),
        (None, None),
        ("owner/base-bnb-4bit", "owner/base-bnb-4bit"),
        ("/cache/models--owner--other/snapshots/abc", "owner/other"),
        ("/home/me/other", "…/other"),
    ],
)
def test_an_adapter_of_a_base_of_another_name_is_taken_and_said(
    named: str | None, said: str | None, base: Path, tmp_path: Path
) -> None:
    """Whose factors they are is written nowhere else."""
    tuned = tune(base, tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=named)
    assert differing(base, tmp_path / "adapter", tuned, tmp_path / "out") == []
    (vector,) = open_vectors(open_model(base), [tmp_path / "adapter"])
    assert [note for note in vector.notes if "trained over" in note] == [
        f"its adapter_config.json says that it was trained over {said}, and the base is base: the merge is "
        "right only where both have the same weights"
    ] * bool(said)


@pytest.mark.parametrize("init", ["mica", "orthogonal", "eva"])
def test_starts_that_leave_the_base_as_it_is_are_taken(init: str, base: Path, tmp_path: Path) -> None:
    tuned = tune(base, tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", init_lora_weights=init)
    assert differing(base, tmp_path / "adapter", tuned, tmp_path / "out") == []


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_quantised_weights_are_refused(dtype: torch.dtype, base: Path, tmp_path: Path) -> None:
    tune(base, tmp_path / "adapter")
    small = tmp_path / "small"
    shutil.copytree(base, small)
    tensors = load_file(base / "model.safetensors")
    quantised = {
        name: (50 * value).to(dtype) if "q_proj" in name else value for name, value in tensors.items()
    }
    save_file(quantised, small / "model.safetensors", {"format": "pt"})
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        SelfposError, match=rf"q_proj\.weight, which is {name} in the base and cannot be merged"
    ):
        open_vectors(open_model(small), [tmp_path / "adapter"])
    with pytest.raises(SelfposError, match=rf"as {name}, expected floats: give the model as it was before"):
        open_vectors(open_model(base), [small])
    with pytest.raises(SelfposError, match=rf"the base has 2 tensors .* as {name}, expected floats"):
        open_vectors(open_model(small), [base])


@pytest.mark.parametrize("stated", [True, False])
def test_packed_weights_are_refused_with_the_way_out(stated: bool, base: Path, tmp_path: Path) -> None:
    """As GPTQ and AWQ store a layer: under other names, and all as int32 but its scales."""
    tune(base, tmp_path / "adapter")
    packed = Path(shutil.copytree(base, tmp_path / "packed"))
    tensors = load_file(base / "model.safetensors")
    for name in [name for name in tensors if "q_proj" in name]:
        rows, columns = tensors.pop(name).shape
        layer = name.removesuffix(".weight")
        tensors[f"{layer}.qweight"] = torch.zeros(columns // 8, rows, dtype=torch.int32)
        tensors[f"{layer}.scales"] = torch.ones(1, rows)
    save_file(tensors, packed / "model.safetensors", {"format": "pt"})
    if stated:
        edit_json(packed / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    for start, vector in ((packed, tmp_path / "adapter"), (packed, base), (base, packed)):
        with pytest.raises(
            SelfposError, match=r"packed is quantised \(.*give (it|the base) as it was before$"
        ):
            open_vectors(open_model(start), [vector])


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["query", "word_embeddings"]},
        {"trainable_token_indices": {"word_embeddings": [3, 7]}},
    ],
)
def test_a_decoder_stored_beside_its_table_moves_with_it(options: dict[str, Any], tmp_path: Path) -> None:
    base = splade(tmp_path)
    store_decoder(base)
    tuned = tune(
        base, tmp_path / "adapter", "AutoModelForMaskedLM", **{"target_modules": ["query"]} | options
    )
    assert differing(base, tmp_path / "adapter", tuned, tmp_path / "out") == []


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("targets", [["query", "decoder"], ["query", "decoder", "word_embeddings"]])
def test_factors_of_a_tied_decoder_move_the_table_as_in_pefts_merge(
    targets: list[str], stored: bool, tmp_path: Path
) -> None:
    base = splade(tmp_path)
    if stored:
        store_decoder(base)
    tuned = tune(base, tmp_path / "adapter", MASKED, target_modules=targets)
    assert differing(base, tmp_path / "adapter", tuned, tmp_path / "out") == []
    (vector,) = open_vectors(open_model(base), [tmp_path / "adapter"])
    assert any("both move, as in PEFT's merge" in note for note in vector.notes) != stored


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [("DistilBertForMaskedLM", "vocab_projector"), ("ElectraForMaskedLM", "generator_lm_head")],
)
def test_a_decoder_of_any_name_is_one_with_its_table(kind: str, decoder: str, tmp_path: Path) -> None:
    base = splade(tmp_path, kind)
    store_decoder(base, f"{decoder}.weight")
    for targets in ([decoder], ["word_embeddings"]):
        adapter = tmp_path / targets[0]
        tuned = tune(base, adapter, MASKED, target_modules=targets)
        assert differing(base, adapter, tuned, tmp_path / f"{targets[0]}-out") == []


@pytest.mark.parametrize("stored", [False, True])
def test_trained_tokens_beside_factors_of_the_decoder_are_refused(stored: bool, tmp_path: Path) -> None:
    """PEFT's own merge drops the factors."""
    base = splade(tmp_path)
    if stored:
        store_decoder(base)
    tune(base, tmp_path / "a", MASKED, target_modules=["decoder"], trainable_token_indices=TOKENS)
    with pytest.raises(SelfposError, match="trained tokens of a table and factors"):
        open_vectors(open_model(base), [tmp_path / "a"])


@pytest.mark.parametrize("module", ["decoder", "word_embeddings"])
def test_a_table_trained_apart_from_its_decoder_is_refused_where_the_base_has_one_tensor(
    module: str, tmp_path: Path
) -> None:
    base = splade(tmp_path)
    tune(base, tmp_path / "apart", MASKED, target_modules=["query"], modules_to_save=[module])
    with pytest.raises(SelfposError, match=r"apart from what it is tied to.*ensure_weight_tying"):
        open_vectors(open_model(base), [tmp_path / "apart"])
    together = {"modules_to_save": ["word_embeddings"], "ensure_weight_tying": True}
    tuned = tune(base, tmp_path / "together", MASKED, target_modules=["query"], **together)
    assert differing(base, tmp_path / "together", tuned, tmp_path / "out") == []


def test_the_table_of_t5s_encoder_may_be_trained_whole(tmp_path: Path) -> None:
    """It is tied to a shared one, which the encoder alone does not read."""
    base = make_family(tmp_path / "base", *FAMILIES["T5 encoder"])
    options = {"target_modules": ["q"], "modules_to_save": ["embed_tokens"]}
    tuned = tune(base, tmp_path / "adapter", "T5EncoderModel", **options)
    out = merge(base, [tmp_path / "adapter"], "average", tmp_path / "out", dtype="float32").out
    merged = tuned.merge_and_unload().state_dict()
    table = merged["encoder.embed_tokens.weight"].double().numpy()
    np.testing.assert_allclose(state(out)["shared.weight"], table, atol=1e-6)


def test_a_head_stored_whole_moves_its_bias_once(tmp_path: Path) -> None:
    """PEFT stores the bias of the head and of its decoder, which are one."""
    base = splade(tmp_path)
    store_decoder(base)
    options = {"target_modules": ["query"], "modules_to_save": ["cls"]}
    tuned = tune(base, tmp_path / "adapter", MASKED, **options)
    assert differing(base, tmp_path / "adapter", tuned, tmp_path / "out") == []
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    (name,) = (name for name in stored if name.endswith("decoder.bias"))
    save_file(stored | {name: stored[name] + 1}, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(SelfposError, match=r"bias.*which differ and are one tensor"):
        open_vectors(open_model(base), [tmp_path / "adapter"])


def test_what_is_read_and_held_counts_rows_and_factors_within_other_parts(base: Path, tmp_path: Path) -> None:
    tune(base, tmp_path / "rows", trainable_token_indices=[5, 7, 30])
    whole = sum(entry.nbytes for entry in open_model(base).tensors.values())
    rows = 3 * DECODER["hidden_size"] * 4
    assert plan(base, [tmp_path / "rows"], "average", tmp_path / "out").bytes_read == whole + rows
    memory = {}
    for name, options in {"lora": {}, "dora": {"use_dora": True}}.items():
        tune(base, tmp_path / name, r=8, **options)
        memory[name] = plan(base, [tmp_path / name], "average", tmp_path / "out", threads=1).memory
    assert memory["dora"] == memory["lora"]


def test_a_bias_beside_factors_of_an_embedding_is_scaled_by_their_rank(
    tiny_base: Path, tmp_path: Path
) -> None:
    make_adapter(tiny_base, tmp_path / "adapter", plain=True)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    module = "base_model.model.encoder.layer.0.attention.output.dense"
    tensors = {
        f"{module}.lora_embedding_A": torch.ones(2, 32),
        f"{module}.lora_embedding_B": torch.ones(32, 2),
        f"{module}.lora_B.bias": torch.ones(32),
    }
    save_file(tensors, file, {"format": "pt"})
    (vector,) = open_vectors(open_model(tiny_base), [tmp_path / "adapter"])
    np.testing.assert_allclose(vector.values("encoder.layer.0.attention.output.dense.bias"), 8 / 2)


def test_an_adapter_without_a_configuration_of_its_own_has_its_bases(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    edit_json(base / "config.json", is_decoder=True)
    expected = make_adapter(base, tmp_path / "adapter", seed=1)
    (vector,) = open_vectors(open_model(base), [tmp_path / "adapter"])
    for key, value in expected.items():
        np.testing.assert_allclose(vector.values(key), value, atol=1e-6, err_msg=key)
    program = (
        "import sys; from pathlib import Path; from selfpos.storage.model_folder import open_model\n"
        "from selfpos.vectors import open_vectors\n"
        "open_vectors(open_model(Path(sys.argv[1])), [Path(sys.argv[2])])\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, str(base), str(tmp_path / "adapter")], check=True)


def test_a_head_within_the_network_is_left_out_too(tmp_path: Path) -> None:
    """An adapter of a classifier, whose network has a pooler, over an embedder that has none."""
    base = make_family(tmp_path / "base", "BertConfig", SMALL)
    tensors = load_file(base / "model.safetensors")
    rest = {name: value for name, value in tensors.items() if not name.startswith("pooler.")}
    save_file(rest, base / "model.safetensors", {"format": "pt"})
    options = {"target_modules": "all-linear", "task_type": "SEQ_CLS"}
    tune(base, tmp_path / "adapter", "AutoModelForSequenceClassification", **options)
    (vector,) = open_vectors(open_model(base), [tmp_path / "adapter"])
    assert vector.notes == ("it also trains classifier and pooler, which the base has not: left out",)
    assert len(vector.parts) == 12
