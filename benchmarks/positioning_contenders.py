"""The contenders of benchmarks/positioning.py, each run in a process of its own: `python
positioning_contenders.py NAME OPTIONS` prints JSON."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from positioning_inputs import texts

BATCH = 32


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
    data = Dataset.from_dict({"anchor": texts(folder, BATCH, 0), "positive": texts(folder, BATCH, 1)})
    tasks = {"pairs": TaskProbe("pairs", Pairs(), data, settings.temperature)}
    return Problem(live, tasks, settings), Draws(tasks, BATCH, 0).next()


def anonymous() -> float:
    """Bytes of anonymous pages of this process."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")
    )
    return 1024.0 * int(line.split()[1])


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
        c = problem.start[0].float().clone().requires_grad_(True)
        merged = {
            names[id(live.parameters[k])]: base[k] + sum(c[i] * delta for i, delta in enumerate(deltas[k]))
            for k in live.keys
        }
        embeddings = torch.func.functional_call(live.model, merged, (features,))["sentence_embedding"]
        value = problem.balance(losses_of(problem.tasks, batches, embeddings)) + problem.penalty(
            c.double().unsqueeze(0)
        )
        return torch.autograd.grad(value, c)[0].tolist()

    return idle.measured(step, repeats)


def search(
    base: str, vectors: list[str], probe: str, trajectory: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """A search; the best validation loss of its way, relative to the base's, and when each better one was
    reached."""
    from selfpos.data.probe import read_probe
    from selfpos.positioning.position import position
    from selfpos.recipe import PositioningSettings
    from selfpos.storage.locate import locate_model

    chosen = PositioningSettings(compare=False, select="loss", **settings)
    path = Path(trajectory)
    models = [Path(vector) for vector in vectors]
    state = path.with_suffix(".pt")  # the paper's steps take more than one sitting may
    found = position(
        locate_model(base), models, read_probe(Path(probe)), chosen, seed=0, trajectory=path, state=state
    )
    state.unlink(missing_ok=True)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    way = [(line["seconds"], line["value"]) for line in lines if "validation" in line and line["best"]]
    return {
        "value": way[-1][1],
        "way": way,
        "seconds": found.seconds,
        "texts": found.texts,
        "coefficients": found.coefficients,
    }


def grid(base: str, vectors: list[str], probe: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Five points a vector, one vector after the other, each chosen on the search part, the end measured on
    the validation part."""
    import torch

    from selfpos.data.probe import read_probe
    from selfpos.positioning.draws import Draws, split_probe
    from selfpos.positioning.position import open_live
    from selfpos.positioning.problem import Problem
    from selfpos.positioning.selection import Selection
    from selfpos.recipe import PositioningSettings
    from selfpos.storage.locate import locate_model

    chosen = PositioningSettings(select="loss", **settings)
    records = read_probe(Path(probe))
    started = time.perf_counter()
    parts = split_probe(records, chosen.validation, 0, chosen.temperature)
    problem = Problem(
        open_live(locate_model(base), [Path(vector) for vector in vectors], chosen, None), parts[0], chosen
    )
    selection = Selection(parts[0], parts[1], chosen, 0)
    selection.measure_base(problem.live)
    batches = Draws(problem.tasks, 256, 0, single=True).fixed()
    problem.measure_base(batches)
    point = problem.start.clone()
    for place in range(len(problem.names)):
        tried = {}
        for value in (0.0, 0.5, 1.0, 1.5, 2.0):
            candidate = point.clone()
            candidate[0, place] = value
            tried[value] = problem.value(candidate, problem.losses(candidate, batches))
        point[0, place] = min(tried, key=lambda value: tried[value])
    problem.apply(point)
    value = selection.measure(problem.live).value
    seconds = time.perf_counter() - started
    with torch.no_grad():
        coefficients = problem.mean_coefficients(point).tolist()
    return {
        "value": value,
        "way": [(seconds, value)],
        "seconds": seconds,
        "texts": problem.live.embedded,
        "coefficients": coefficients,
    }


CONTENDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "plain": plain,
    "step": step,
    "graph": graph,
    "search": search,
    "grid": grid,
}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](**json.loads(sys.argv[2]))))
