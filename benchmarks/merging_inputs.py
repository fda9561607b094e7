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


BERT = {"vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2}
XLMR = {
    "vocab_size": 250002,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
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
    "minilm": Shape(
        "BertConfig",
        {
            **BERT,
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
        },
    ),
    "bert-base": Shape("BertConfig", {**BERT, **BASE}),
    "xlmr-110m": Shape("XLMRobertaConfig", {**XLMR, **BASE, "vocab_size": 30522}),
    "xlmr-base": Shape("XLMRobertaConfig", {**XLMR, **BASE}),
    "qwen3-0.6b": Shape("Qwen3Config", QWEN3, "BF16", 2),
}


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
    width = 64
    size = shape.fields["hidden_size"]
    (folder / "2_Dense").mkdir(exist_ok=True)
    _write(
        folder / "2_Dense" / "model.safetensors",
        {"linear.weight": (width, size), "linear.bias": (width,)},
        "F32",
        seed,
    )
    dense = {
        "in_features": size,
        "out_features": width,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    paths = ["", "1_Pooling", "2_Dense", "3_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
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

    config = getattr(transformers, shape.config_class)(**shape.fields)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
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
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": shape.fields["hidden_size"],
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 128, "do_lower_case": False})
    )
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "query: ", "document": ""}})
    )
    return {key: tuple(value.shape) for key, value in model.state_dict().items() if value.is_floating_point()}
