"""Model folders of real shapes and deterministic random weights, for benchmarks/merging.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.storage.numbers import from_float32
from selfpos.storage.tensor_file import TensorFileWriter

STEP = 1e-3  # scale of the task vectors, beside weights of scale 0.05


@dataclass(frozen=True)
class Shape:
    """An architecture, and how its weights are stored."""

    config_class: str
    fields: dict[str, Any]
    dtype: str = "F32"
    shards: int = 1
    kind: str = "SentenceTransformer"


BERT = {"vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2}
XLMR = {
    "vocab_size": 250002,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
QWEN3 = {
    "vocab_size": 151669,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
SHAPES = {
    "tiny": Shape(
        "BertConfig",
        {
            "vocab_size": 500,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
    ),
    "minilm": Shape("BertConfig", {**BERT, **MINILM}),
    "bert-base": Shape("BertConfig", {**BERT, **BASE}),
    "xlmr-110m": Shape("XLMRobertaConfig", {**XLMR, **BASE, "vocab_size": 30522}),
    "xlmr-base": Shape("XLMRobertaConfig", {**XLMR, **BASE}),
    "qwen3-0.6b": Shape("Qwen3Config", QWEN3, "BF16", 2),
    # as cross-encoder/ms-marco-MiniLM-L6-v2, naver/splade-v3 and colbert-ir/colbertv2.0
    "reranker-minilm": Shape("BertConfig", {**BERT, **MINILM, "num_labels": 1}, kind="CrossEncoder"),
    "splade-base": Shape("BertConfig", {**BERT, **BASE}, kind="SparseEncoder"),
    "colbert-base": Shape("BertConfig", {**BERT, **BASE}, kind="MultiVectorEncoder"),
}
TOKENS = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
"""Of modules that work on each token's vector."""


@dataclass(frozen=True)
class Layout:
    """What a class has beside its transformer: module → its config, and what its own files say."""

    network: str
    modules: dict[str, dict[str, Any]]
    transformer: dict[str, Any]
    model: dict[str, Any]


def _dense(size: int, width: int, bias: bool) -> dict[str, Any]:
    identity = "torch.nn.modules.linear.Identity"
    return {"in_features": size, "out_features": width, "bias": bias, "activation_function": identity}


def _reads(task: str, output: str, name: str) -> dict[str, Any]:
    method = {"method": "forward", "method_output_name": output}
    return {
        "transformer_task": task,
        "modality_config": {"text": method},
        "module_output_name": name,
        "max_seq_length": 128,
    }


def layout_of(shape: Shape) -> Layout:
    """The layout of the class of `shape`, as sentence-transformers saves it."""
    size = shape.fields["hidden_size"]
    prompts = {"query": "query: ", "document": ""}
    if shape.kind == "CrossEncoder":
        reads = _reads("sequence-classification", "logits", "scores")
        activation = "torch.nn.modules.linear.Identity"
        return Layout("AutoModelForSequenceClassification", {}, reads, {"activation_fn": activation})
    if shape.kind == "SparseEncoder":
        pooling = {"pooling_strategy": "max", "activation_function": "relu", "embedding_dimension": None}
        reads = _reads("fill-mask", "logits", "token_embeddings")
        modules = {"sparse_encoder.modules.splade_pooling.SpladePooling": pooling}
        return Layout("AutoModelForMaskedLM", modules, reads, {"prompts": prompts})
    if shape.kind == "MultiVectorEncoder":
        mask = {"skiplist_words": [], "skiplist_tasks": ["document"], "keep_only_token_ids": None}
        modules = {
            "base.modules.dense.Dense": _dense(size, 128, bias=False) | TOKENS,
            "multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask": mask,
            "base.modules.normalize.Normalize": TOKENS,
        }
        reads = _reads("feature-extraction", "last_hidden_state", "token_embeddings")
        return Layout("AutoModel", modules, reads, {"prompts": prompts, "similarity_fn_name": "maxsim"})
    pooling = {
        "word_embedding_dimension": size,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
    }
    modules = {"models.Pooling": pooling, "models.Dense": _dense(size, 64, bias=True), "models.Normalize": {}}
    reads = {"max_seq_length": 128, "do_lower_case": False}
    return Layout("AutoModel", modules, reads, {"prompts": prompts})


def make_inputs(folder: Path, name: str, count: int) -> tuple[Path, list[Path]]:
    """The base and `count` fine-tuned models of a shape below `folder`, made where they are not there yet."""
    base, sources = folder / name / "base", [folder / name / f"v{index}" for index in range(1, count + 1)]
    for seed, place in enumerate([base, *sources]):
        if not (place / "modules.json").exists():
            _make(place, SHAPES[name], seed)
    return base, sources


def _make(folder: Path, shape: Shape, seed: int) -> None:
    """One model: seed 0 is the base, the others are it plus a random step of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = _side_files(folder, shape)
    names = sorted(shapes)
    cut = -(-len(names) // shape.shards)
    weight_map = {}
    for number in range(shape.shards):
        part = names[number * cut : (number + 1) * cut]
        file = (
            "model.safetensors"
            if shape.shards == 1
            else f"model-{number + 1:05d}-of-{shape.shards:05d}.safetensors"
        )
        weight_map |= dict.fromkeys(part, file)
        _write(folder / file, {key: shapes[key] for key in part}, shape.dtype, seed)
    if shape.shards > 1:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": weight_map})
        )
    layout = layout_of(shape)
    first = "base.modules.transformer" if shape.kind != "SentenceTransformer" else "models"
    modules = [{"idx": 0, "name": "0", "path": "", "type": f"sentence_transformers.{first}.Transformer"}]
    for number, (kind, config) in enumerate(layout.modules.items(), start=1):
        path = f"{number}_{kind.split('.')[-1]}"
        modules.append(
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.{kind}"}
        )
        if not config:
            continue
        (folder / path).mkdir(exist_ok=True)
        (folder / path / "config.json").write_text(json.dumps(config))
        if "in_features" not in config:
            continue
        weight = {"linear.weight": (config["out_features"], config["in_features"])}
        bias = {"linear.bias": (config["out_features"],)} if config["bias"] else {}
        _write(folder / path / "model.safetensors", weight | bias, "F32", seed)
    (folder / "modules.json").write_text(json.dumps(modules, indent=1))


def _write(file: Path, shapes: dict[str, tuple[int, ...]], dtype: str, seed: int) -> None:
    writer = TensorFileWriter(file, {key: (dtype, shape) for key, shape in shapes.items()}, {})
    for key, shape in shapes.items():
        words = [ord(letter) for letter in key]
        values = np.random.Generator(np.random.SFC64([0, *words])).standard_normal(
            shape, np.float32
        ) * np.float32(0.05)
        if seed:
            values += np.random.Generator(np.random.SFC64([seed, *words])).standard_normal(
                shape, np.float32
            ) * np.float32(STEP)
        writer.write(key, from_float32(values, dtype))
    writer.close()


def _side_files(folder: Path, shape: Shape) -> dict[str, tuple[int, ...]]:
    """Write configs and a small tokenizer; the transformer's tensors by name."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    layout = layout_of(shape)
    config = getattr(transformers, shape.config_class)(**shape.fields)
    with torch.device("meta"):
        model = getattr(transformers, layout.network).from_config(config)
    config.architectures = [type(model).__name__]
    config.dtype = {"F32": "float32", "BF16": "bfloat16"}[shape.dtype]
    config.save_pretrained(folder)
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
        tokenizer_object=tokenizer, model_max_length=128, **special
    ).save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps(layout.transformer))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": shape.kind} | layout.model)
    )
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    stored = {key: value for key, value in model.state_dict().items() if key not in tied}
    return {key: tuple(value.shape) for key, value in stored.items() if value.is_floating_point()}
