"""The models and the steps that benchmarks/positioning.py measures.

`python positioning_steps.py NAME ARGUMENTS` measures one step and prints JSON.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 32  # pairs of texts of a step
WORDS = 30  # of a random text
ADAPTERS = 4
RANK = 16
# vocabulary, width, layers, attention heads, inner width
SHAPES = {
    "tiny": (2000, 64, 2, 2, 128),
    "mini": (30522, 384, 6, 12, 1536),
    "base": (30522, 768, 12, 12, 3072),
}


def models_of(work: Path, shape: str, count: int) -> Path:
    """The folder of a random base, `count` specialists around it, and four adapters; made once."""
    folder = work / f"{shape}-{count}"
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        make_models(folder, shape, count)
        (folder / "made").touch()
    return folder


def make_models(folder: Path, shape: str, count: int) -> None:
    """Make the models of `models_of`. The same arguments give the same weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as st
    from transformers import AutoModel, BertConfig, BertModel, BertTokenizerFast

    vocabulary, width, layers, heads, inner = SHAPES[shape]
    raw = folder / "raw"
    raw.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(vocabulary - 5))]
    (raw / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(raw / "vocab.txt")).save_pretrained(raw)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
    )
    BertModel(config).save_pretrained(raw)
    modules = [st.Transformer(str(raw), max_seq_length=128), st.Pooling(width), st.Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "base"))
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
        lora = LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear")
        adapted = get_peft_model(AutoModel.from_pretrained(folder / "base"), lora)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.02)
        adapted.save_pretrained(folder / f"a{number}")


def texts(folder: Path, count: int, seed: int) -> list[str]:
    """`count` texts of random words that the model in `folder` knows."""
    words = (folder / "raw" / "vocab.txt").read_text(encoding="utf-8").split()[5:]
    generator = random.Random(seed)
    return [" ".join(generator.choices(words, k=WORDS)) for _ in range(count)]


class Pairs:
    """A probe task of random texts, InfoNCE."""

    target = None

    def loss(self, model: Any, temperature: float) -> Any:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        return MultipleNegativesRankingLoss(model, scale=1 / temperature)

    def draw(self, dataset: Any, batch_size: int, generator: Any) -> dict[str, list[str]]:
        return dict(dataset[:batch_size])


def problem_of(folder: Path, sources: list[Path], **options: Any) -> tuple[Any, list]:
    """The problem over `sources`, and one batch of its single task."""
    from datasets import Dataset

    from selfpos.positioning.draws import Draws
    from selfpos.positioning.objective import TaskProbe
    from selfpos.positioning.position import open_live
    from selfpos.positioning.problem import Problem
    from selfpos.recipe import PositioningSettings

    settings = PositioningSettings(search="sgd", normalise="none", precision="float32", **options)
    live = open_live(folder / "base", sources, settings, "cpu")
    pairs = Dataset.from_dict({"anchor": texts(folder, BATCH, 0), "positive": texts(folder, BATCH, 1)})
    tasks = {"pairs": TaskProbe("pairs", Pairs(), pairs, settings.temperature)}
    return Problem(live, tasks, settings), Draws(tasks, BATCH, 0).next()


def anonymous() -> float:
    """Bytes of anonymous pages of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024.0 * int(status.split("RssAnon:")[1].split()[0])


class Idle:
    """The process before the measurement, with all that it needs imported."""

    def __init__(self) -> None:
        import datasets  # noqa: F401
        import sentence_transformers  # noqa: F401

        from selfpos.positioning.position import position  # noqa: F401

        self.memory = anonymous()

    def measured(self, step: Callable[[], Any], repeats: int) -> dict[str, Any]:
        """Median seconds of `step`, and the peak of anonymous memory above the idle process's, in MB, both
        after one step to warm up."""
        step()
        peak, stop = [anonymous()], threading.Event()

        def watch() -> None:
            while not stop.wait(0.003):
                peak[0] = max(peak[0], anonymous())

        watcher = threading.Thread(target=watch)
        watcher.start()
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            result = step()
            seconds.append(time.perf_counter() - started)
        stop.set()
        watcher.join()
        return {
            "seconds": statistics.median(seconds),
            "megabytes": max(1.0, (peak[0] - self.memory) / 1e6),
            "result": result,
        }


def plain(folder: str, repeats: int, *, adam: bool) -> dict[str, Any]:
    """Forward and backward of fine-tuning as a trainer makes them, in training mode, texts tokenised each
    time; with `adam`, AdamW's step too."""
    idle = Idle()
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(f"{folder}/base", device="cpu").train()
    loss = Pairs().loss(model, 0.05)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    columns = [texts(Path(folder), BATCH, seed) for seed in (0, 1)]

    def step() -> None:
        loss([model.preprocess(column) for column in columns], None).backward()
        if adam:
            optimizer.step()
        optimizer.zero_grad()

    return idle.measured(step, repeats)


def step(folder: str, repeats: int, sources: list[str], **options: Any) -> dict[str, Any]:
    """A step of positioning over `sources`."""
    idle = Idle()
    problem, batches = problem_of(Path(folder), [Path(folder, name) for name in sources], **options)
    return idle.measured(lambda: problem.gradient(problem.start, batches)[1].flatten().tolist(), repeats)


def graph(folder: str, repeats: int, sources: list[str]) -> dict[str, Any]:
    """The same gradient with a graph through the merge (torch.func.functional_call over θ0 + Σ c_i V_i, all
    vectors in memory)."""
    idle = Idle()
    import torch

    from selfpos.positioning.objective import losses_of, texts_of

    problem, batches = problem_of(Path(folder), [Path(folder, name) for name in sources])
    live = problem.live
    names = {id(parameter): name for name, parameter in live.model.named_parameters()}
    base = {key: live.base.read(key).clone() for key in live.keys}
    deltas = {key: [vector.delta(key) for vector in live.vectors] for key in live.keys}

    def step() -> list[float]:
        features = live.model.preprocess(texts_of(batches))
        coefficients = problem.start[0].float().clone().requires_grad_(True)
        merged = {}
        for key in live.keys:
            shift = sum(c * delta for c, delta in zip(coefficients, deltas[key], strict=True))
            merged[names[id(live.parameters[key])]] = base[key] + shift
        embeddings = torch.func.functional_call(live.model, merged, (features,))["sentence_embedding"]
        loss = problem.balance(losses_of(problem.tasks, batches, embeddings))
        return torch.autograd.grad(loss, coefficients)[0].tolist()

    return idle.measured(step, repeats)


STEPS: dict[str, Callable[..., dict[str, Any]]] = {"plain": plain, "step": step, "graph": graph}

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](**json.loads(sys.argv[2]))))
