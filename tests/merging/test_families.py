"""Encoder families: tiny random models of each, merged over all their modules and reloaded with sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.merging import merge
from selfpos.storage import open_model
from tests.conftest import make_specialist
from tests.merging import reference as ref

SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
DECODER = {
    **SMALL,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "eos_token_id": 3,
    "bos_token_id": 2,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("BertConfig", SMALL),
    "RoBERTa": ("RobertaConfig", {**SMALL, "pad_token_id": 0}),
    "DistilBERT": (
        "DistilBertConfig",
        {
            "vocab_size": 60,
            "dim": 16,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 24,
            "max_position_embeddings": 40,
        },
    ),
    "MPNet": ("MPNetConfig", {**SMALL, "pad_token_id": 0}),
    "XLM-R": ("XLMRobertaConfig", {**SMALL, "pad_token_id": 0}),
    "ModernBERT": (
        "ModernBertConfig",
        {
            **SMALL,
            "pad_token_id": 0,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    ),
    "DeBERTa-v2": (
        "DebertaV2Config",
        {**SMALL, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    ),
    "ELECTRA": ("ElectraConfig", {**SMALL, "embedding_size": 8}),
    "Qwen3": ("Qwen3Config", DECODER),
    "Gemma3 text": ("Gemma3TextConfig", {**DECODER, "sliding_window": 8}),
    "Mistral": ("MistralConfig", DECODER),
    "T5 encoder": (
        "T5Config",
        {
            "vocab_size": 60,
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 24,
            "num_layers": 2,
            "num_heads": 2,
            "pad_token_id": 0,
        },
    ),
}
QUICK = {"DistilBERT", "Qwen3", "T5 encoder"}


def make_family(folder: Path, config_class: str, fields: dict[str, Any]) -> Path:
    """A tiny random [Transformer, Pooling, Dense, Normalize] model with prompts, saved by sentence-transformers."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as st
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    raw = folder.with_name(folder.name + "-raw")
    config = getattr(transformers, config_class)(**fields)
    model = (
        transformers.T5EncoderModel(config)
        if config_class == "T5Config"
        else transformers.AutoModel.from_config(config)
    )
    model.save_pretrained(raw)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, **special
    ).save_pretrained(raw)
    parts = [st.Transformer(str(raw), max_seq_length=32), st.Pooling(16), st.Dense(16, 4), st.Normalize()]
    SentenceTransformer(modules=parts, prompts={"query": "q "}, device="cpu").save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_families_merge_and_reload(tmp_path: Path, family: str) -> None:
    from sentence_transformers import SentenceTransformer

    base = make_family(tmp_path / "base", *FAMILIES[family])
    sources = [make_specialist(base, tmp_path / name, seed=seed) for seed, name in enumerate(["one", "two"])]
    if family == "Qwen3":  # large models come in shards
        sources[0] = merge(base, sources[:1], "average", tmp_path / "shards", shard_size=8000).out
        assert (sources[0] / "model.safetensors.index.json").is_file()
    out = merge(base, sources, "average", tmp_path / "out").out
    states = [ref.load(source) for source in sources]
    for key, value in ref.load(out).items():
        np.testing.assert_allclose(
            value, np.mean([state[key] for state in states], axis=0), atol=1e-6, err_msg=key
        )
    assert any(key.startswith("2_Dense/") for key in open_model(out).tensors)
    start, merged = (SentenceTransformer(str(folder), device="cpu") for folder in (base, out))
    assert [type(module) for module in merged] == [
        type(module) for module in start
    ] and merged.prompts == start.prompts
    vectors = [model.encode(["a b c", "d e"], prompt_name="query") for model in (start, merged)]
    assert (
        vectors[1].shape == (2, 4)
        and np.isfinite(vectors[1]).all()
        and np.abs(vectors[0] - vectors[1]).max() > 1e-5
    )
    # what sentence-transformers loads is what was written: no tensor was passed over
    again = merged.state_dict()
    for key, value in ref.load(out).items():
        if not key.startswith("2_Dense/"):
            name = min((name for name in again if name.endswith(f".{key}")), key=len)
            np.testing.assert_array_equal(again[name].double().numpy(), value, err_msg=key)


def test_code_of_the_models_own_is_refused_unless_allowed(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    import shutil

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    (base / "modeling_nomic.py").write_text("class NomicBert: ...\n")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(
        json.dumps(config | {"auto_map": {"AutoModel": "modeling_nomic.NomicBert"}})
    )
    with pytest.raises(SelfposError, match="Python code of the model's own"):
        merge(base, tiny_specialists, "average", tmp_path / "out")
    out = merge(base, tiny_specialists, "average", tmp_path / "out", allow_code=True).out
    assert (out / "modeling_nomic.py").is_file()
