"""Speed and memory of positioning, ratios in one run; each measurement in a process of its own. Results go to benchmarks/results/positioning.json.

    python benchmarks/positioning.py                      # the steps, on a random model of MiniLM's shape
    python benchmarks/positioning.py --shape tiny         # a try in seconds
    python benchmarks/positioning.py --vectors A B C --probe PROBE   # and the searches, on real specialists

1. one step against a plain fine-tuning step (forward, backward, AdamW), for N = 2, 4, 8, 16 vectors;
2. against a graph through the merge (torch.func.functional_call over θ0 + Σ c_i V_i, all vectors in memory), the form of FusionBench's
   layer-wise wrapper: same gradients, time, memory;
3. the low-rank step against the dense step on the same LoRA vectors;
4. what searches cost to reach a validation loss: the paper's Adam, the linearised search, CMA-ES, loss softmax, and a grid of five points
   a vector (one vector after the other).
Memory is the peak of anonymous pages (what really costs; pages of mapped files can be dropped), above that of the idle process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES = {
    "tiny": {"vocab_size": 2000, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
    "mini": {"vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
COUNTS = (2, 4, 8, 16)
BATCH, WORDS, REPEATS = 32, 30, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--vectors", nargs="*", type=Path, default=[])
    parser.add_argument("--base", default="all-MiniLM-L6-v2")
    parser.add_argument("--probe", type=Path)
    parser.add_argument("--steps", type=int, default=1000, help="of the paper's search")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "positioning.json")
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, _, count = options.one[0].partition(":")
        print(json.dumps(MEASUREMENTS[what](Path(options.one[1]), int(count or 0))))
        return
    results: dict[str, Any] = {"shape": options.shape, "batch": BATCH, "words": WORDS}
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder), SHAPES[options.shape])
        jobs = ["plain", *(f"step:{n}" for n in COUNTS), *(f"graph:{n}" for n in COUNTS[:3]), "adapters-dense:4", "adapters-beside:4"]
        for job in jobs:
            done = subprocess.run([sys.executable, __file__, "--one", job, folder], capture_output=True, text=True, check=True)
            results[job] = json.loads(done.stdout.splitlines()[-1])
            print(job, {name: value for name, value in results[job].items() if name != "gradient"}, flush=True)
    results["ratios"] = ratios(results)
    if options.probe:
        results["searches"] = searches(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results["ratios"], indent=1))


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """The numbers that the targets are about."""
    import numpy as np

    def of(first: str, second: str, what: str) -> float:
        return round(results[first][what] / results[second][what], 3)

    memory = [results[f"step:{n}"]["megabytes"] for n in COUNTS]
    ours, graph = (np.array(results[f"{kind}:4"]["gradient"]) for kind in ("step", "graph"))
    return {
        "step / plain step, time, N=4 (target 1.15)": of("step:4", "plain", "seconds"),
        "step / AdamW step, memory, N=4 (target .6)": of("step:4", "plain", "megabytes"),
        "memory, largest / smallest over N (target 1.1)": round(max(memory) / min(memory), 3),
        "difference of gradients from the graph's (target .001)": float(np.abs(ours - graph).max() / np.abs(graph).max()),
        "step / graph, time, N=4": of("step:4", "graph:4", "seconds"),
        "step / graph, memory, N=2": of("step:2", "graph:2", "megabytes"),
        "step / graph, memory, N=4": of("step:4", "graph:4", "megabytes"),
        "step / graph, memory, N=8": of("step:8", "graph:8", "megabytes"),
        "low rank / dense, time (target .75)": of("adapters-beside:4", "adapters-dense:4", "seconds"),
        "low rank / dense, memory (target .6)": of("adapters-beside:4", "adapters-dense:4", "megabytes"),
    }


def make_models(folder: Path, shape: dict[str, int]) -> None:
    """A random base, 16 specialists around it, and 4 adapters, deterministic."""
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
    for number in range(max(COUNTS)):
        shutil.copytree(folder / "base", folder / f"v{number}")
        generator = torch.Generator().manual_seed(number)
        moved = {key: value + 2e-3 * torch.randn(value.shape, generator=generator) for key, value in start.items()}
        save_file(moved, folder / f"v{number}" / "model.safetensors", metadata={"format": "pt"})
    for number in range(4):
        torch.manual_seed(number)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
        adapted = get_peft_model(AutoModel.from_pretrained(folder / "base"), config)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.02)
        adapted.save_pretrained(folder / f"a{number}")


class Pairs:
    """A probe task of random texts, InfoNCE."""

    target = None

    def loss(self, model: Any, temperature: float) -> Any:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        return MultipleNegativesRankingLoss(model, scale=1 / temperature)

    def draw(self, dataset: Any, batch_size: int, generator: Any) -> dict[str, list[str]]:
        return dict(dataset[:batch_size])


def texts(folder: Path, count: int, seed: int) -> list[str]:
    import random

    words = (folder / "raw" / "vocab.txt").read_text(encoding="utf-8").split()[5:]
    chance = random.Random(seed)
    return [" ".join(chance.choices(words, k=WORDS)) for _ in range(count)]


def problem_of(folder: Path, sources: list[Path], *, low_rank: bool = True) -> tuple[Any, list]:
    """The problem over `sources`, and one batch of its single task."""
    from datasets import Dataset

    from selfpos.positioning.objective import Draws, TaskProbe
    from selfpos.positioning.position import open_live
    from selfpos.positioning.problem import Problem
    from selfpos.recipe import PositioningSettings

    settings = PositioningSettings(search="sgd", normalise="none", low_rank=low_rank, precision="float32")
    live = open_live(folder / "base", sources, settings, "cpu")
    data = Dataset.from_dict({"anchor": texts(folder, BATCH, 0), "positive": texts(folder, BATCH, 1)})
    tasks = {"pairs": TaskProbe("pairs", Pairs(), data, settings.temperature)}
    return Problem(live, tasks, settings), Draws(tasks, BATCH, 0).next()


def measured(step: Callable[[], Any]) -> dict[str, Any]:
    """Median seconds of `step` and the peak of anonymous memory while it runs, in MB, both after one step to warm up."""
    step()
    peak, stop = [anonymous()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        result = step()
        seconds.append(time.perf_counter() - started)
    stop.set()
    watcher.join()
    return {"seconds": statistics.median(seconds), "megabytes": (peak[0] - IDLE[0]) / 1e6, "gradient": result}


IDLE = [0.0]


def anonymous() -> float:
    """Bytes of anonymous pages of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024.0 * int(line.split()[1])


def idle() -> None:
    """Import what every measurement needs, and remember what that takes."""
    import datasets  # noqa: F401
    import sentence_transformers  # noqa: F401

    from selfpos.positioning import position  # noqa: F401

    IDLE[0] = anonymous()


def plain(folder: Path, count: int) -> dict[str, Any]:
    """A fine-tuning step as a trainer makes it."""
    idle()
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / "base"), device="cpu").train()
    loss = Pairs().loss(model, 0.05)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    columns = [model.preprocess(texts(folder, BATCH, seed)) for seed in (0, 1)]

    def step() -> None:
        loss([dict(column) for column in columns], None).backward()
        optimizer.step()
        optimizer.zero_grad()

    return measured(step)


def step(folder: Path, count: int, kind: str = "v", low_rank: bool = True) -> dict[str, Any]:
    """A step of positioning."""
    idle()
    problem, batches = problem_of(folder, [folder / f"{kind}{n}" for n in range(count)], low_rank=low_rank)
    return measured(lambda: problem.gradient(problem.start, batches)[1].flatten().tolist())


def graph(folder: Path, count: int) -> dict[str, Any]:
    """The same gradient with a graph through the merge, all vectors in memory."""
    idle()
    import torch

    from selfpos.positioning.objective import losses_of, texts_of

    problem, batches = problem_of(folder, [folder / f"v{n}" for n in range(count)])
    live = problem.live
    names = {id(parameter): name for name, parameter in live.model.named_parameters()}
    base = {key: live.base.read(key).clone() for key in live.keys}
    deltas = {key: [vector.delta(key) for vector in live.vectors] for key in live.keys}
    features = live.model.preprocess(texts_of(batches))

    def step() -> list[float]:
        c = problem.start[0].float().clone().requires_grad_(True)
        merged = {names[id(live.parameters[k])]: base[k] + sum(c[i] * delta for i, delta in enumerate(deltas[k])) for k in live.keys}
        embeddings = torch.func.functional_call(live.model, merged, (dict(features),))["sentence_embedding"]
        value = problem.balance(losses_of(problem.tasks, batches, embeddings)) + problem.penalty(c.double().unsqueeze(0))
        return torch.autograd.grad(value, c)[0].tolist()

    return measured(step)


MEASUREMENTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "plain": plain,
    "step": step,
    "graph": graph,
    "adapters-dense": lambda folder, count: step(folder, count, "a", low_rank=False),
    "adapters-beside": lambda folder, count: step(folder, count, "a"),
}


def searches(options: argparse.Namespace) -> dict[str, Any]:
    """Each search on real specialists: validation losses relative to the base, texts embedded, seconds."""
    from selfpos.data.probe import read_probe
    from selfpos.positioning import position
    from selfpos.recipe import PositioningSettings
    from selfpos.storage.locate import locate_model

    common: dict[str, Any] = {"compare": False, "intervals": 0, "select": "loss"}
    paper = {"preset": "paper", "steps": options.steps, "validation": 0.5, "normalise": "base", "batches": "mixed", "temperature": 0.05}
    wanted: dict[str, dict[str, Any]] = {
        "paper": {**paper, "penalty": 0.0, "space": "spherical"},
        "linearised": {"extrapolation": 0.0},
        "cma-es": {"search": "cma-es", "extrapolation": 0.0, "evaluations": 100},
        "grid": {"search": "cma-es"},
        "loss-softmax": {"search": "loss-softmax"},
    }
    base, probe, found = locate_model(options.base), read_probe(options.probe), {}
    for name, chosen in wanted.items():
        settings = PositioningSettings(**{**common, **chosen})
        if name == "grid":
            found[name] = grid(base, options.vectors, probe, settings)
        else:
            trajectory = options.out.with_name(f"positioning.{name}.jsonl")
            result = position(base, options.vectors, probe, settings, seed=0, trajectory=trajectory)
            value = min(
                line["value"] for line in map(json.loads, trajectory.read_text().splitlines()) if "value" in line and "validation" in line
            )
            found[name] = {"value": value, "seconds": result.seconds, "texts": result.texts, "coefficients": result.coefficients}
        print(name, found[name], flush=True)
    return found


def grid(base: Path, vectors: list[Path], probe: Any, settings: Any) -> dict[str, Any]:
    """Five points a vector, one vector after the other, each chosen on the search part."""
    import torch

    from selfpos.positioning.judge import Judge
    from selfpos.positioning.objective import Draws, split_probe
    from selfpos.positioning.position import open_live
    from selfpos.positioning.problem import Problem

    started = time.perf_counter()
    parts = split_probe(probe, settings.validation, 0, settings.temperature)
    problem = Problem(open_live(base, vectors, settings, None), parts[0], settings)
    judge = Judge(parts[0], parts[1], settings, 0)
    judge.measure_base(problem.live)
    batches = Draws(problem.tasks, 256, 0, single=True).fixed()
    problem.measure_references(batches)
    point = problem.start.clone()
    for place in range(len(problem.names)):
        tried = {}
        for value in (0.0, 0.5, 1.0, 1.5, 2.0):
            candidate = point.clone()
            candidate[0, place] = value
            tried[value] = problem.value(candidate, problem.losses(candidate, batches))
        point[0, place] = min(tried, key=lambda value: tried[value])
    problem.live.place(problem.table(point))
    value = judge.measure(problem.live).value
    with torch.no_grad():
        coefficients = problem.mean_coefficients(point).tolist()
    return {"value": value, "seconds": time.perf_counter() - started, "texts": problem.live.embedded, "coefficients": coefficients}


if __name__ == "__main__":
    main()
