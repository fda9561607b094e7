"""What `selfpos retain` keeps of a fine-tune, beside rivals that train otherwise or choose α by hand.

    python benchmarks/retain.py --data ../shared/data/text --domains stackoverflow --seeds 1

Each domain and seed is a fine-tune of all-MiniLM-L6-v2, at 1e-4 or at one of RATES, which we raised where an
earlier run showed less than a point of loss on the test. `retain_rates.py` has the losses on validation
records: there CLINC150 and MedQuAD lose more than a point at 1e-4 already.
Points are chosen on validation records and judged on test records, by each task's own measure. So are fronts.
That of `retain` has the points that it shows. A rival's has all its points that no other of them beats on the
test, in its favour.
Every training and every judgement is a piece with a file of its own, so that a run started again continues;
with another rate or other numbers of records it judges again. `--report` alone writes the table of what is
there. A domain and seed takes half an hour of one slow core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from retain_report import report

#: domain → (type, folder, split to train on, split to test on)
DOMAINS = {
    "stackoverflow": ("clustering", "stackoverflow_short", "test", "test"),
    "banking77": ("classification", "banking77", "train", "test"),
    "medquad": ("retrieval", "medquad", "train", "train"),
    "scifact": ("retrieval", "scifact", "train", "test"),
    "feedbackqa": ("retrieval", "feedbackqa", "train", "test"),
    "clinc150": ("classification", "clinc150", "train", "test"),
}
RATES = {"banking77": 4e-4, "clinc150": 2e-4, "medquad": 2e-4}  # of the fine-tunes, where not RATE
#: general task → (type, folder, split to choose on, split to test on)
GENERAL = {
    "sts": ("sts", "stsbenchmark", "validation", "test"),
    "intents": ("classification", "banking77", "train", "test"),
    "emotion": ("classification", "emotion", "validation", "test"),
    "paraphrases": ("pair-classification", "mrpc", "train", "test"),
    "answers": ("reranking", "wikiqa", "validation", "test"),
    "questions": ("retrieval", "mlquestions", "validation", "test"),
}
STEPS, BATCH, RATE, LENGTH = 80, 32, 1e-4, 64
HELD_OUT, PLAIN = 1500, 200  # where training and test are one split
FEW = 300  # records of a split for training that are only chosen by
SWEEP = [0.125 * step for step in range(9)]
ANCHOR = 10.0  # λ of the anchor loss λ·|f_θ − f_θ0|²
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), choices=DOMAINS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--validation", type=int, default=300, help="records of a task to choose by, at most 300"
    )
    parser.add_argument("--records", type=int, default=500, help="records of a task to judge by")
    parser.add_argument("--models", type=Path, default=Path("checkpoints/retain"))
    parser.add_argument("--out", type=Path, default=RESULTS / "retain", help="folder of the pieces")
    parser.add_argument("--trainings", nargs="*", default=list(TRAININGS), choices=TRAININGS)
    parser.add_argument("--report", action="store_true", help="write the table of the pieces that are there")
    options = parser.parse_args()
    for domain in [] if options.report else options.domains:
        for seed in range(options.seeds):
            measure(domain, seed, options)
    report(options.out, list(DOMAINS))


@cache
def records(
    kind: str, folder: str, split: str, data: Path, skip: int = 0, limit: int | None = None, seed: int = 0
) -> Any:
    """Records in an order of their own, without the first `skip`."""
    from selfpos.data.sources import load_source
    from selfpos.tasks import get_task

    loaded = load_source(str(data / folder), get_task(kind), split=split).dataset.shuffle(seed=seed)
    end = len(loaded) if limit is None else min(len(loaded), skip + limit)
    return loaded.select(range(skip, end))


def domain_parts(domain: str, data: Path, choosing: int = 0, judging: int = 0) -> tuple[Any, Any, Any]:
    """(training, validation, test) records of a domain, the same for every seed."""
    kind, folder, train, test = DOMAINS[domain]
    validation = records(kind, folder, train, data, 0, choosing)
    tested = records(kind, folder, test, data, HELD_OUT // 2 if train == test else 0, judging)
    training = records(kind, folder, train, data, HELD_OUT if train == test else FEW)
    return training, validation, tested


def general_tasks(domain: str, data: Path, count: int, *, test: bool) -> dict[str, Any]:
    from selfpos.data.probe import ProbeTask
    from selfpos.tasks import get_task

    tasks = {}
    for name, (kind, folder, choose, final) in GENERAL.items():
        if folder != DOMAINS[domain][1]:
            chosen = records(kind, folder, final if test else choose, data, 0, count)
            tasks[name] = ProbeTask(name, get_task(kind), chosen)
    return tasks


# Trainings: the fine-tune, and rivals that train otherwise


def fine_tuned(domain: str, seed: int, data: Path, out: Path, **changed: Any) -> None:
    from selfpos.recipe import TrainingSettings
    from selfpos.storage.locate import locate_model
    from selfpos.tasks import get_task
    from selfpos.training import train

    rate = changed.pop("rate", 1.0) * RATES.get(domain, RATE)
    chosen = {"steps": STEPS, "batch_size": BATCH, "learning_rate": rate, "max_length": LENGTH, **changed}
    source = {domain: (get_task(DOMAINS[domain][0]), domain_parts(domain, data)[0])}
    train(locate_model("all-MiniLM-L6-v2"), source, out, TrainingSettings(**chosen), seed=seed, name=domain)


def anchored(domain: str, seed: int, data: Path, out: Path) -> None:
    """The fine-tune with λ·|f_θ(x) − f_θ0(x)|² on general text, a batch of it to each of the domain."""
    import random

    import torch
    from sentence_transformers import SentenceTransformer

    from selfpos.data.texts import read_texts
    from selfpos.storage.locate import locate_model
    from selfpos.tasks import get_task

    model, base = (SentenceTransformer(str(locate_model("all-MiniLM-L6-v2")), device="cpu") for _ in range(2))
    model.max_seq_length = base.max_seq_length = LENGTH
    kind = get_task(DOMAINS[domain][0])
    dataset = kind.prepare(domain_parts(domain, data)[0], seed=seed)
    general = read_texts("corpus", most=2000).texts
    loss, generator, rng = kind.loss(model, 0.05), torch.Generator().manual_seed(seed), random.Random(seed)
    rate = RATES.get(domain, RATE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 8, (STEPS - step) / (STEPS - 8))
        batch = kind.draw(dataset, BATCH, generator)
        columns = [model.preprocess(batch[name]) for name in kind.texts_of(batch)]
        labels = torch.tensor(batch[kind.target]) if kind.target in batch else None
        texts = rng.sample(general, BATCH)
        with torch.no_grad():
            before = base(base.preprocess(texts))["sentence_embedding"]
        now = model(model.preprocess(texts))["sentence_embedding"]
        value = loss(columns, labels) + ANCHOR * (now - before).square().sum(1).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    model.max_seq_length = 256
    model.save_pretrained(str(out))


TRAININGS: dict[str, Callable[..., None]] = {
    "a tenth of the rate": partial(fine_tuned, rate=0.1),
    "half the steps": partial(fine_tuned, steps=STEPS // 2),
    "a quarter of the steps": partial(fine_tuned, steps=STEPS // 4),
    "LoRA": partial(fine_tuned, lora={"rank": 16, "alpha": 32}),
    "anchor loss": anchored,
}


# Pieces


def measure(domain: str, seed: int, options: argparse.Namespace) -> None:
    """All pieces of one domain and seed."""
    folder = options.models / f"{domain}-seed{seed}"
    models = {"fine-tune": fine_tuned, **{name: TRAININGS[name] for name in options.trainings}}
    for name, make in models.items():
        if not (folder / name.replace(" ", "-")).exists():
            make(domain, seed, options.data, folder / name.replace(" ", "-"))
    options.out.mkdir(parents=True, exist_ok=True)
    piece = options.out / f"{domain}-seed{seed}.json"
    known = json.loads(piece.read_text()) if piece.is_file() else {}
    same = known.items() >= terms(domain, options).items()
    if same and set(models) <= set(known["arms"]):
        return
    known = judged(domain, seed, options, folder, list(models)[1:])
    piece.write_text(json.dumps(known, indent=1) + "\n")


def judged(
    domain: str, seed: int, options: argparse.Namespace, folder: Path, rivals: Sequence[str]
) -> dict[str, Any]:
    """Every arm on the test records: shares of the gain kept and of the loss undone, and promises broken."""
    from selfpos.errors import SelfposError
    from selfpos.retention.front import Point, Scale, choose
    from selfpos.retention.search import GRID

    live = opened(folder / "fine-tune")
    found, seconds = searched(domain, seed, options, live)
    test = Test(domain, seed, options, live)
    sweep = {alpha: test.at(alpha, exact=False) for alpha in SWEEP}
    scale = Scale(test.judge, sweep[0.0], sweep[1.0])
    tolerant = Scale(test.tolerant, scale.base, scale.tuned)
    result = found["retain"]
    taken = {name: other.chosen for name, other in found.items()}
    with suppress(SelfposError):  # a gain that the records do not show is no gain to keep
        taken["retain, --keep .95"] = choose(result.scale, result.points, 0.95)
    taken["best on the domain"] = max(result.points, key=lambda point: result.scale.mean(point, "domain"))
    arms = {name: test.at(point.place.alpha, point.place.ramp) for name, point in taken.items()}
    arms |= {"fine-tune": sweep[1.0], "α = .5 (LM-Cocktail)": sweep[0.5]}
    arms |= {"LiNeS, .2 to 1": test.at(0.6, 0.8)}
    arms |= {name: test.of_model(folder / name.replace(" ", "-")) for name in rivals}
    ours = [test.at(point.place.alpha, point.place.ramp, exact=False) for point in result.points]

    def row(point: Point) -> dict[str, Any]:
        return {
            **shares(scale, point), "scores": point.scores,
            "broken": [drop.task for drop in scale.drops(point)],
            "beyond_a_fifth": [drop.task for drop in tolerant.drops(point)],
            "alpha": point.place.alpha, "ramp": point.place.ramp,
        }  # fmt: skip

    trained = [scale.base, scale.tuned, *(arms[name] for name in rivals)]
    return {
        "domain": domain, "seed": seed, **terms(domain, options), "gain": scale.gain, "loss": scale.loss,
        "seconds": seconds, "texts": result.texts, "arms": {name: row(point) for name, point in arms.items()},
        "hypervolume": {
            "retain, the points that it shows": area([shares(scale, point) for point in ours]),
            "retain, all points of its line": area(
                [shares(scale, test.at(alpha, exact=False)) for alpha in GRID]
            ),
            "α-sweep, nine points": area([shares(scale, point) for point in sweep.values()]),
            "other trainings": area([shares(scale, point) for point in trained]),
        },
    }  # fmt: skip


def opened(model: Path) -> Any:
    from selfpos.positioning.position import open_live
    from selfpos.recipe import PositioningSettings
    from selfpos.storage.locate import locate_model

    settings = PositioningSettings(separate=False, max_length=LENGTH)
    return open_live(locate_model("all-MiniLM-L6-v2"), [model], settings, "cpu")


def judged_tasks(domain: str, seed: int, tested: Any, general: dict[str, Any]) -> list[Any]:
    """The domain's records and the general tasks, by their types' own measures."""
    from selfpos.data.probe import ProbeTask
    from selfpos.retention.judging import labelled
    from selfpos.tasks import get_task

    own = labelled(ProbeTask(domain, get_task(DOMAINS[domain][0]), tested), "domain", seed)
    return [own, *(labelled(task, "general", seed) for task in general.values())]


def searched(
    domain: str, seed: int, options: argparse.Namespace, live: Any
) -> tuple[dict[str, Any], dict[str, float]]:
    """What `retain` finds by the domain's validation records, and by texts of theirs; the seconds of both."""
    from selfpos.recipe import RetainSettings
    from selfpos.retention.judging import PlainTask
    from selfpos.retention.search import search

    _, validation, _ = domain_parts(domain, options.data, options.validation, options.records)
    general = general_tasks(domain, options.data, options.validation, test=False)
    records_of, *kept = judged_tasks(domain, seed, validation, general)
    column = "text" if "text" in validation.column_names else "positive"
    texts = PlainTask(domain, "domain", list(validation[column])[:PLAIN])
    found, seconds = {}, {}
    for name, side in (("retain", records_of), (f"retain, {PLAIN} texts", texts)):
        start = time.perf_counter()
        found[name] = search(live, [side, *kept], RetainSettings(seed=seed))
        seconds[name] = round(time.perf_counter() - start, 1)
    return found, seconds


class Test:
    """Points judged on test records."""

    def __init__(self, domain: str, seed: int, options: argparse.Namespace, live: Any) -> None:
        from selfpos.positioning.objective import TextTable
        from selfpos.retention.judging import TOLERATED, Judge
        from selfpos.retention.path import Embedder, Place

        _, _, tested = domain_parts(domain, options.data, options.validation, options.records)
        general = general_tasks(domain, options.data, options.records, test=True)
        tasks = judged_tasks(domain, seed, tested, general)
        self.table = TextTable([text for task in tasks for text in task.texts])
        self.judge, self.embedder = Judge(tasks, self.table, seed), Embedder(live, self.table.texts)
        self.tolerant = Judge([replace(task, tolerated=TOLERATED) for task in tasks], self.table, seed)
        self.embedder.add_line("fine-tune", [1.0])
        self.embedder.add_ramp(Place("fine-tune", 0.25))

    def at(self, alpha: float, ramp: float = 0.0, *, exact: bool = True) -> Any:
        from selfpos.retention.path import Place

        place = Place("fine-tune", alpha, ramp)
        embed = self.embedder.exactly if exact else self.embedder.predicted
        return self._point(place, embed(place))

    def of_model(self, model: Path) -> Any:
        import torch

        from selfpos.retention.path import Place

        other = opened(model)
        other.set_specialist(0)
        with torch.no_grad():
            return self._point(Place("", 1.0), other.embed(self.table.texts).float())

    def _point(self, place: Any, embeddings: Any) -> Any:
        from selfpos.retention.front import Point

        items = self.judge.items(embeddings)
        return Point(place, self.judge.scores(items), items)


def terms(domain: str, options: argparse.Namespace) -> dict[str, float]:
    """The rate of the fine-tune, and the records of a task to choose by and to judge by."""
    rate = RATES.get(domain, RATE)
    return {"rate": rate, "validation": options.validation, "records": options.records}


def shares(scale: Any, point: Any) -> dict[str, float]:
    """What a point keeps of the gain and undoes of the loss."""
    return {"kept": scale.kept(point), "undone": scale.undone(point)}


def area(points: Sequence[dict[str, Any]]) -> float:
    """The area of (gain kept, loss undone) that the points dominate, each share from 0."""
    corners = sorted({(max(0.0, p["kept"]), max(0.0, p["undone"])) for p in points}, reverse=True)
    total = highest = 0.0
    for kept, undone in corners:
        total += kept * max(0.0, undone - highest)
        highest = max(highest, undone)
    return total


if __name__ == "__main__":
    main()
