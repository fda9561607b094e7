"""A tiny real sentence-transformers model, and specialists of it."""

from __future__ import annotations

from pathlib import Path


def make_tiny_model(
    folder: Path, *, seed: int = 0, dense: bool = True, hidden: int = 32, layers: int = 2
) -> Path:
    """Save a random BERT sentence-transformers model (Transformer, Pooling[, Dense], Normalize; prompts) of
    about 20k weights.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as st
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    raw = folder.with_name(folder.name + "-raw")
    raw.mkdir(parents=True)
    (raw / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(raw / "vocab.txt")).save_pretrained(raw)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(raw)
    parts = [st.Transformer(str(raw), max_seq_length=32), st.Pooling(hidden)]
    if dense:
        parts.append(st.Dense(hidden, 16))
    parts.append(st.Normalize())
    model = SentenceTransformer(modules=parts, prompts={"query": "query: ", "document": ""}, device="cpu")
    model.save_pretrained(str(folder))
    return folder


def make_specialist(base: Path, folder: Path, *, seed: int, size: float = 0.02) -> Path:
    """Copy the model at `base` to `folder` with every float tensor moved by a random step of scale `size`."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    generator = torch.Generator().manual_seed(seed)
    for file in sorted(folder.rglob("*.safetensors")):
        tensors = load_file(file)
        moved = {
            k: (v + size * torch.randn(v.shape, generator=generator)).to(v.dtype)
            if v.is_floating_point()
            else v
            for k, v in tensors.items()
        }
        save_file(moved, file, metadata={"format": "pt"})
    return folder
