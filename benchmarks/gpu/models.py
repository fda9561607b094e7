"""Base, specialists and adapters of random weights, of the shapes that the parts measure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from merging_inputs import BASE as BERT_BASE
from merging_inputs import QWEN3
from safetensors.torch import load_file, save_file

BERT_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
QWEN3_4B = QWEN3 | {
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "intermediate_size": 9728,
}
QWEN3_TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": 2000,
    "tie_word_embeddings": True,
}
WORDS = 2000
RANK = 16


def words() -> list[str]:
    """The words of which random texts are made."""
    return [f"w{number}" for number in range(WORDS - 5)]


def bert(folder: Path, small: bool, count: int) -> tuple[Path, list[Path]]:
    """A random BERT and `count` specialists around it."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=WORDS, **(BERT_TINY if small else BERT_BASE))
    base = _embedder(folder, BertModel(config), config.hidden_size)
    start = load_file(base / "model.safetensors")
    sources = []
    for number in range(count):
        sources.append(Path(shutil.copytree(base, folder / f"v{number}")))
        generator = torch.Generator().manual_seed(number)
        moved = {
            key: value + 2e-3 * torch.randn(value.shape, generator=generator) for key, value in start.items()
        }
        save_file(moved, sources[-1] / "model.safetensors", metadata={"format": "pt"})
    return base, sources


def qwen(folder: Path, small: bool, count: int) -> tuple[Path, list[Path]]:
    """A random Qwen3 in bf16, of 4 B parameters unless `small`, and `count` LoRA adapters."""
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = Qwen3Config(**(QWEN3_TINY if small else QWEN3_4B))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = Qwen3Model(config)
    torch.set_default_dtype(torch.float32)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    shapes = {name: (module.out_features, module.in_features) for name, module in linear.items()}
    base = _embedder(folder, model.cpu(), config.hidden_size)
    return base, [_adapter(folder / f"a{number}", shapes, number) for number in range(count)]


def _embedder(folder: Path, network: torch.nn.Module, width: int) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertTokenizerFast

    raw = folder / "raw"
    raw.mkdir(parents=True)
    (raw / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words()]))
    BertTokenizerFast(vocab=str(raw / "vocab.txt")).save_pretrained(raw)
    network.save_pretrained(raw)  # type: ignore[operator]
    parts = [modules.Transformer(str(raw), max_seq_length=128), modules.Pooling(width), modules.Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(folder / "base"))
    shutil.rmtree(raw)
    return folder / "base"


def _adapter(folder: Path, shapes: dict[str, tuple[int, int]], seed: int) -> Path:
    """LoRA over all linear layers, as PEFT writes it."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (rows, columns) in shapes.items():
        key = f"base_model.model.{name}"
        tensors[f"{key}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator) / columns**0.5
        tensors[f"{key}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator) * 0.02
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "r": RANK,
        "lora_alpha": 32,
        "target_modules": sorted({name.rpartition(".")[2] for name in shapes}),
        "bias": "none",
        "base_model_name_or_path": str(folder.parent / "base"),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
