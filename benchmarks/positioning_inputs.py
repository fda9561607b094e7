"""What benchmarks/positioning.py measures on: models of random weights for the steps, real or random
specialists and a probe set for the searches."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

SHAPES = {
    "tiny": {
        "vocab_size": 2000,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    },
    "mini": {
        "vocab_size": 30522,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "base": {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
}
WORDS = 30  # of a random text
ADAPTERS = 4
RANK = 16


def make_models(folder: Path, shape: dict[str, int], count: int) -> None:
    """A random base, `count` specialists around it, and four adapters, deterministic."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as st
    from transformers import AutoModel, BertConfig, BertModel, BertTokenizerFast

    raw = folder / "raw"
    raw.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(shape["vocab_size"] - 5))]
    (raw / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(raw / "vocab.txt")).save_pretrained(raw)
    torch.manual_seed(0)
    BertModel(BertConfig(**shape)).save_pretrained(raw)
    parts = [st.Transformer(str(raw), max_seq_length=128), st.Pooling(shape["hidden_size"]), st.Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(folder / "base"))
    start = load_file(folder / "base" / "model.safetensors")
    for number in range(count):
        shutil.copytree(folder / "base", folder / f"v{number}")
        generator = torch.Generator().manual_seed(number)
        moved = {
            key: value + 2e-3 * torch.randn(value.shape, generator=generator) for key, value in start.items()
        }
        save_file(moved, folder / f"v{number}" / "model.safetensors", metadata={"format": "pt"})
    for number in range(ADAPTERS):
        torch.manual_seed(number)
        config = LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear")
        adapted = get_peft_model(AutoModel.from_pretrained(folder / "base"), config)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.02)
        adapted.save_pretrained(folder / f"a{number}")


def texts(folder: Path, count: int, seed: int) -> list[str]:
    """`count` texts of random words that the model in `folder` knows."""
    words = (folder / "raw" / "vocab.txt").read_text(encoding="utf-8").split()[5:]
    chance = random.Random(seed)
    return [" ".join(chance.choices(words, k=WORDS)) for _ in range(count)]


def make_random_probe(folder: Path, out: Path, records: int) -> None:
    """A probe set of random pairs, for a try."""
    from datasets import Dataset

    from selfpos.data.probe import write_probe
    from selfpos.tasks import get_task

    pairs = {
        name: Dataset.from_dict(
            {"anchor": texts(folder, records, seed), "positive": texts(folder, records, seed + 1)}
        )
        for seed, name in ((2, "one"), (4, "two"))
    }
    write_probe(out, pairs, dict.fromkeys(pairs, get_task("retrieval")))


def make_specialists(folder: Path, steps: int, probe: int) -> list[Path]:
    """Specialists of all-MiniLM-L6-v2 on the embedded corpus, of unlike lengths of training, and their probe
    set in `folder`/probe."""
    from selfpos import TaskSource, TrainingSettings, finetune, get_task, probe_of, write_probe

    found = []
    for number, kind in enumerate(("retrieval", "classification", "pair-classification")):
        out = folder / kind
        settings = TrainingSettings(
            steps=steps * (number + 1) // 2, batch_size=32, learning_rate=5e-5, max_length=32
        )
        if not out.exists():
            finetune(
                "all-MiniLM-L6-v2",
                TaskSource(type=kind, data="corpus", limit=3000),
                out,
                settings,
                probe=probe,
                say=lambda text: None,
            )
        found.append(out)
    if (folder / "probe").exists():
        return found
    tasks = probe_of(found)
    write_probe(
        folder / "probe",
        {name: task.records for name, task in tasks.items()},
        {name: get_task(task.type.name) for name, task in tasks.items()},
    )
    return found
