"""Fixtures shared by all rooms: a tiny real sentence-transformers model, and the optional folder of real data
sets beside the checkout.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.command import CommandLine

pytest_plugins = ["tests.helpers.budget"]

# The suite never touches a network: set before any library reads them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run in two workers: more threads than cores only slow each other down.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell starts what it puts in the background with Ctrl-C ignored, which children inherit; tests of Ctrl-C
# need it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files of tests need not outlive a failing machine, and a disk takes 5 ms to say that they would.
os.fsync = lambda _: None

ROOT = Path(__file__).parent.parent
SHARED_DATA = Path(os.environ.get("SELFPOS_TEST_DATA", ROOT.parent / "shared" / "data"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Garbage collections leave the libraries out, also while these are imported: every training forces some,
    .3 s each.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session")
def text_data() -> Path:
    """The folder of real text data sets; tests that need it are skipped where it is absent."""
    folder = SHARED_DATA / "text"
    if not folder.is_dir():
        pytest.skip(f"no real data sets at {folder} (set SELFPOS_TEST_DATA)")
    return folder


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


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random sentence-transformers folder, the θ0 of tests. Read-only: copy before changing it."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_specialists(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models of the same architecture around `tiny_base`, each moved in a random direction."""
    folder = tmp_path_factory.mktemp("specialists")
    return [
        make_specialist(tiny_base, folder / name, seed=seed)
        for seed, name in enumerate(["alpha", "beta", "gamma"], start=1)
    ]


@pytest.fixture(scope="session")
def selfpos() -> Iterator[CommandLine]:
    """The command line in a process that stays warm: `selfpos("merge", …)` gives exit status and output."""
    running = CommandLine()
    # At set-up, not in the first test; garbage collections leave the libraries out, as above.
    libraries = "import mteb, peft, sentence_transformers, torch"
    running.python(f"import gc; gc.disable(); {libraries}; gc.enable(); gc.freeze()")
    yield running
    running.close()
