"""Tiny random models of the architectures that people use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def make_family(folder: Path, config_class: str, fields: dict[str, Any]) -> Path:
    """A tiny random [Transformer, Pooling, Dense, Normalize] model with prompts, saved by
    sentence-transformers.
    """
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


def plain_bert(folder: Path, kind: str = "BertModel", **fields: Any) -> Path:
    """A tiny random BERT, or a model of another `kind` with its vocabulary, as transformers saves it."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, kind)
    model(model.config_class(**SMALL, **fields)).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def colbert(place: Path, **fields: Any) -> Path:
    """A tiny random MultiVectorEncoder."""
    from sentence_transformers import MultiVectorEncoder

    plain = plain_bert(place / "plain", **fields)
    MultiVectorEncoder(str(plain), device="cpu", prompts={"query": "ask "}).save_pretrained(
        str(place / "base")
    )
    return place / "base"


def splade(place: Path, kind: str = "BertForMaskedLM", **fields: Any) -> Path:
    """A tiny random SparseEncoder of a masked language model."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    body = Transformer(str(plain_bert(place / "plain", kind, **fields)), transformer_task="fill-mask")
    model = SparseEncoder(modules=[body, SpladePooling()], device="cpu", prompts={"query": "ask "})
    model.save_pretrained(str(place / "base"))
    return place / "base"


def cross_encoder(place: Path) -> Path:
    """A tiny random CrossEncoder."""
    import torch
    from sentence_transformers import CrossEncoder

    plain = plain_bert(place / "plain", "BertForSequenceClassification", num_labels=1)
    model = CrossEncoder(str(plain), device="cpu", activation_fn=torch.nn.Identity(), prompts={"q": "ask "})
    model.save_pretrained(str(place / "base"))
    return place / "base"


KINDS = {"CrossEncoder": cross_encoder, "SparseEncoder": splade, "MultiVectorEncoder": colbert}
"""What makes a tiny model of each class of sentence-transformers that is not SentenceTransformer."""


def pylate(today: Path, folder: Path, **fields: Any) -> Path:
    """The MultiVectorEncoder `today` as PyLate stores it, with its markers as tokens; `fields` of its
    config_sentence_transformers.json replace the usual ones, and those that are None are left out.
    """
    import shutil

    from transformers import AutoTokenizer

    shutil.copytree(today, folder, ignore=shutil.ignore_patterns("2_*", "3_*"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    tokenizer.pad_token = tokenizer.mask_token
    tokenizer.save_pretrained(folder)
    classes = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"]
    modules = [
        {"idx": index, "name": str(index), "path": ["", "1_Dense"][index], "type": kind}
        for index, kind in enumerate(classes)
    ]
    dense = json.loads((folder / "1_Dense" / "config.json").read_text())
    named = {name: value for name, value in dense.items() if not name.startswith("module_")}
    config = {
        "model_type": "ColBERT", "prompts": {}, "default_prompt_name": None, "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 8, "document_length": 20,
        "attend_to_expansion_tokens": False, "skiplist_words": ["a", "b"],
    } | fields  # fmt: skip
    for file, content in {
        "modules.json": modules,
        "1_Dense/config.json": named,
        "sentence_bert_config.json": {"max_seq_length": 19, "do_lower_case": False},
        "config_sentence_transformers.json": {k: v for k, v in config.items() if v is not None},
    }.items():
        (folder / file).write_text(json.dumps(content))
    return folder


def saved_today(source: Path, folder: Path) -> Path:
    """The MultiVectorEncoder in `source`, of any layout, as sentence-transformers saves it."""
    from sentence_transformers import MultiVectorEncoder

    MultiVectorEncoder(str(source), device="cpu").save_pretrained(str(folder))
    return folder
