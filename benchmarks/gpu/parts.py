"""What is measured on a GPU: each part yields its rows, `value` beside `other` in one unit."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models

Row = dict[str, Any]
GIGABYTE = 1 << 30


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def seconds_of(work: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of `work` after one call to warm up, with what it left running on the GPU."""
    import torch

    seconds = []
    for turn in range(repeats + 1):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if turn:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def precisions() -> dict[str, str]:
    """Name of a column → precision: a CPU trains and searches in float32 alone."""
    return {"bf16": "bf16" if device() == "cuda" else "float32", "float32": "float32"}


def train(folder: Path, small: bool) -> Iterator[Row]:
    """Fine-tuning: samples a second in bf16 beside float32, and what the specialists score."""
    from selfpos.evaluation import evaluate, select_tasks
    from selfpos.operations import finetune
    from selfpos.recipe import TaskSource, TrainingSettings

    source = TaskSource(type="retrieval", data="corpus", limit=100 if small else 6000)
    speed, score = {}, {}
    for name, precision in precisions().items():
        steps, batch = (2, 8) if small else (100, 64)
        settings = TrainingSettings(steps=steps, batch_size=batch, max_length=64, precision=precision)
        out = folder / name
        result = finetune("all-MiniLM-L6-v2", source, out, settings, probe=16, say=lambda line: None)
        speed[name] = result.samples / result.seconds
        if not small:
            scores = evaluate(out, select_tasks(["PythonDocsRetrieval"]), folder / "scores")
            score[name] = next(iter(scores.values())).score
    yield _row("MiniLM, 64 tokens, bf16", "samples/s", speed["bf16"], "float32", speed["float32"])
    if score:
        yield _row(
            "its score trained in bf16", "points", 100 * score["bf16"], "float32", 100 * score["float32"]
        )


def search(folder: Path, small: bool) -> Iterator[Row]:
    """The default search and a step of gradient descent: bf16 beside float32, the GPU beside the CPU."""
    base, sources = models.bert(folder, small, 4)
    count = 64 if small else 256
    seconds: dict[str, dict[str, float]] = {"linearised": {}, "sgd": {}}
    for kind, found in seconds.items():
        for name, precision in precisions().items():
            found[name] = _search_seconds(base, sources, kind, precision, device(), count)
    yield _row("BERT-base, 4 vectors, default search, bf16", "s", *_pair(seconds["linearised"]))
    yield _row("20 steps of gradient descent, bf16", "s", *_pair(seconds["sgd"]))
    if device() == "cuda":
        on_cpu = _search_seconds(base, sources, "linearised", "float32", "cpu", 32)
        on_gpu = _search_seconds(base, sources, "linearised", "float32", "cuda", 32)
        yield _row("default search of 32 records, GPU", "s", on_gpu, "CPU", on_cpu)


def _pair(found: dict[str, float]) -> tuple[float, str, float]:
    return found["bf16"], "float32", found["float32"]


def _search_seconds(
    base: Path, sources: list[Path], search: str, precision: str, place: str, count: int
) -> float:
    from datasets import Dataset

    from selfpos.data.probe import ProbeTask
    from selfpos.positioning.position import position
    from selfpos.recipe import PositioningSettings, validate
    from selfpos.tasks import get_task

    columns = {"anchor": texts(count, 0), "positive": texts(count, 1)}
    probe = {"pairs": ProbeTask("pairs", get_task("retrieval"), Dataset.from_dict(columns))}
    given: dict[str, Any] = (
        {"steps": 20, "batch_size": 32} if search == "sgd" else {"rounds": 1, "separate": False}
    )
    given |= {"search": search, "precision": precision, "compare": False}
    settings = validate(PositioningSettings, given, "the search")
    started = time.perf_counter()
    position(base, sources, probe, settings, seed=0, device=place)
    return time.perf_counter() - started


def texts(count: int, seed: int, length: int = 30) -> list[str]:
    """Texts of random words of the random models."""
    generator = random.Random(seed)
    return [" ".join(generator.choices(models.words(), k=length)) for _ in range(count)]


def merge(folder: Path, small: bool) -> Iterator[Row]:
    """Merging with the arithmetic on the GPU, beside the CPU."""
    from selfpos.merging import merge as merge_folders

    base, sources = models.bert(folder, small, 4)
    turn = iter(range(1000))
    for method in ("linear", "ties", "tsv-m"):
        found = {
            place: seconds_of(
                lambda place=place, method=method: merge_folders(  # type: ignore[misc]
                    base, sources, method, folder / f"out{next(turn)}", device=place, show=False
                ),
                repeats=1,
            )
            for place in (device(), "cpu")
        }
        yield _row(f"{method} of 4 BERT-base, {device()}", "s", found[device()], "CPU", found["cpu"])


def evaluation(folder: Path, small: bool) -> Iterator[Row]:
    """Texts a second of scoring's encoder beside plain `encode` of sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    from selfpos.evaluation.load import load_model

    base, _ = models.bert(folder, small, 0)
    count = 100 if small else 8000
    lengths = random.Random(0).choices([5, 10, 20, 60, 110], k=count)
    sentences = [texts(1, number, length)[0] for number, length in enumerate(lengths)]
    ours, plain = load_model(base), SentenceTransformer(str(base), device=device())
    speed = [
        count / seconds_of(lambda model=model: model.encode(sentences, batch_size=64), repeats=1)  # type: ignore[misc]
        for model in (ours, plain)
    ]
    yield _row("BERT-base, texts of 5 to 110 words", "texts/s", speed[0], "sentence-transformers", speed[1])


def grid(folder: Path, small: bool) -> Iterator[Row]:
    """The companion's trainer, many networks as one, beside a loop over them."""
    import imbalance
    import torch

    ways = {"wide": imbalance.wide, "plain": imbalance.plain}
    count, steps = (2, 2) if small else (20, 50)
    speed = imbalance.measure("lenet", ways, count, 64, steps, 2, torch.device(device()))
    yield _row(f"{count} LeNets as one", "images/s", speed["wide"], "a loop", speed["plain"])


def big(folder: Path, small: bool) -> Iterator[Row]:
    """A search over eight LoRA vectors of a 4 B model: memory beside that on paper."""
    import torch

    base, sources = models.qwen(folder, small, 8)
    on_paper = 4 * sum(
        torch.Size(entry.shape).numel() for entry in _opened(base).tensors.values()
    )  # float32 weights; the factors of the adapters are below a hundredth
    if device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _search_seconds(base, sources, "sgd", precisions()["bf16"], device(), 32)
    yield _row("4 B, 8 LoRA vectors, 20 steps", "s", seconds)
    if device() == "cuda":
        peak = torch.cuda.max_memory_allocated() / GIGABYTE
        yield _row("its peak memory", "GB", peak, "float32 weights alone", on_paper / GIGABYTE)


def _opened(folder: Path) -> Any:
    from selfpos.storage.model_folder import open_model

    return open_model(folder)


def _row(what: str, unit: str, value: float, beside: str = "", other: float | None = None) -> Row:
    row: Row = {"what": what, "unit": unit, "value": value}
    return row if other is None else row | {"beside": beside, "other": other}


PARTS: dict[str, Callable[[Path, bool], Iterator[Row]]] = {
    "train": train,
    "search": search,
    "merge": merge,
    "evaluation": evaluation,
    "grid": grid,
    "big": big,
}
