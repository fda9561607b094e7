"""Coefficients from texts without labels beside those from labelled records, and how noise is found out.

    python benchmarks/texts.py --data ../shared/data/text

Four specialists of all-MiniLM-L6-v2 are trained by sentence-transformers' own trainer, one of them on labels
at random. Three are merged: all objectives are minimised on one linearisation (of the separated vectors, at
.7), and judged on 200 test records a task. Ten minutes of one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

STEPS, BATCH, RATE, LENGTH = 80, 32, 1e-4, 48
TEXTS, PROBE, TEST = 150, 150, 200
NAMES = ("banking77", "stackoverflow", "medquad")
NOISE = "noise"
CENTRE, STEP, TAU = 0.7, 0.1, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument(
        "--report", action="store_true", help="write the tables of the results that are there"
    )
    parser.add_argument("--models", type=Path, default=Path("checkpoints/texts"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "texts.json")
    options = parser.parse_args()
    if not options.report:
        for name in (*NAMES, NOISE):
            if not (options.models / name).exists():
                train(name, options.data, options.models / name)
        sets = {name: parts(name, options.data) for name in NAMES}
        result = {"agreement": agreement(sets, options.models), "merges": merges(sets, options.models)}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    write_tables(options.out)


def write_tables(out: Path) -> None:
    """The results in the file `out` as Markdown beside it."""
    from selfpos.console import markdown_table

    result = json.loads(out.read_text())
    scores, taught = result["merges"], result["agreement"]
    merged = []
    for name, row in scores.items():
        numbers = [*(row["scores"][task] for task in NAMES), row["mean"]]
        coefficients = ", ".join(f"{value:.2f}" for value in row.get("coefficients", []))
        merged.append([name, *(f"{100 * number:.1f}" for number in numbers), coefficients])
    models = [*NAMES, NOISE, "base"]
    agreement = [[task, *(f"{of[name]:.2f}" for name in models)] for task, of in taught["agreement"].items()]
    others = ", ".join(f"{name} {value:.2f}" for name, value in taught["with_base"].items())
    shared = ", ".join(f"{name} {100 * value:.0f} %" for name, value in taught["shared"].items())
    text = [
        "# Coefficients from texts without labels", "",
        f"Three specialists of all-MiniLM-L6-v2 ({STEPS} steps each, one seed), {TEST} test records a task.",
        "",
        markdown_table(["", *NAMES, "mean", "coefficients"], merged), "",
        "Agreement of each model's similarities with the teacher's; `noise` was trained on labels at random:",
        "", markdown_table(["texts of", *models], agreement), "",
        f"On the texts of others: agreement with the base {others}; with their specialists, in shares of "
        f"what the base's is, {shared}.",
        "",
    ]  # fmt: skip
    out.with_suffix(".md").write_text("\n".join(text))
    print("\n".join(text))


def lines(file: Path) -> list[dict[str, Any]]:
    packed = file.with_name(f"{file.name}.gz")
    content = gzip.decompress(packed.read_bytes()) if packed.is_file() else file.read_bytes()
    return [json.loads(line) for line in content.decode().splitlines()]


def shuffled(rows: list[dict[str, Any]], seed: str) -> list[dict[str, Any]]:
    return random.Random(seed).sample(rows, len(rows))


def training_rows(name: str, data: Path) -> list[dict[str, Any]]:
    if name in ("banking77", NOISE):
        return lines(data / "banking77" / "train.jsonl")
    if name == "stackoverflow":
        return shuffled(lines(data / "stackoverflow_short" / "test.jsonl"), "t")[:12_000]
    return shuffled(lines(data / "medquad" / "train.jsonl"), "t")[2_000:]


def parts(name: str, data: Path) -> tuple[str, list[str], list[dict[str, Any]], list[dict[str, Any]]]:
    """(type, texts, probe records, test records), none of which was trained on."""
    if name == "banking77":
        kind, rows = "classification", lines(data / "banking77" / "test.jsonl")
    elif name == "stackoverflow":
        kind, rows = "clustering", shuffled(lines(data / "stackoverflow_short" / "test.jsonl"), "t")[12_000:]
    else:
        kind, rows = "retrieval", shuffled(lines(data / "medquad" / "train.jsonl"), "t")[:2_000]
    rows = shuffled(rows, "0")
    if kind == "retrieval":
        texts = [text for row in rows[: TEXTS // 2] for text in (row["query"], row["positive"])]
    else:
        texts = [row["text"] for row in rows[:TEXTS]]
    return kind, texts, rows[TEXTS : TEXTS + PROBE], rows[TEXTS + PROBE :][:TEST]


def train(name: str, data: Path, out: Path) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from selfpos.storage.locate import locate_model

    rng, rows = random.Random(0), training_rows(name, data)
    if "query" in rows[0]:
        pairs = [(row["query"], row["positive"]) for row in rows]
    else:
        labels = [row["label"] for row in rows]
        if name == NOISE:
            rng.shuffle(labels)
        by_label: dict[Any, list[str]] = {}
        for row, label in zip(rows, labels, strict=True):
            by_label.setdefault(label, []).append(row["text"])
        pairs = []
        for texts in by_label.values():
            rng.shuffle(texts)
            pairs += list(zip(texts[::2], texts[1::2], strict=False))
    rng.shuffle(pairs)
    columns = {"anchor": [pair[0] for pair in pairs], "positive": [pair[1] for pair in pairs]}
    model = SentenceTransformer(str(locate_model("all-MiniLM-L6-v2")), device="cpu")
    model.max_seq_length = 64
    arguments = Arguments(
        output_dir=f"{out}-run", max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=RATE,
        warmup_steps=10, save_strategy="no", report_to=[], seed=0, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    loss = MultipleNegativesRankingLoss(model)
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=loss
    ).train()
    model.max_seq_length = 256
    model.save_pretrained(str(out))


def live_model(names: tuple[str, ...], models: Path, *, separate: bool) -> Any:
    from selfpos.positioning.position import open_live
    from selfpos.recipe import PositioningSettings
    from selfpos.storage.locate import locate_model

    settings = PositioningSettings(max_length=LENGTH, separate=separate)
    return open_live(locate_model("all-MiniLM-L6-v2"), [models / name for name in names], settings, "cpu")


def plain_texts(sets: dict[str, Any]) -> dict[str, list[str]]:
    from selfpos.data.texts import read_texts
    from selfpos.tasks.texts import GENERAL

    return {name: texts for name, (_, texts, _, _) in sets.items()} | {
        GENERAL: read_texts("corpus", most=TEXTS).texts
    }


def agreement(sets: dict[str, Any], models: Path) -> dict[str, Any]:
    """What `teach` sees of four specialists, one of noise, each on texts of its own and of the others."""
    from dataclasses import asdict

    from datasets import Dataset

    from selfpos.positioning.objective import TaskProbe
    from selfpos.positioning.teaching import teach
    from selfpos.tasks.texts import TEXTS as KIND

    texts = plain_texts(sets) | {NOISE: sets["banking77"][1]}
    tasks = {
        name: TaskProbe(name, KIND, Dataset.from_dict({"text": some}), TAU) for name, some in texts.items()
    }
    _, teaching = teach(live_model((*NAMES, NOISE), models, separate=False), tasks)
    assert teaching is not None
    return asdict(teaching)


def judges(sets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The smooth measure of each task's probe, and the measure of its test."""
    from datasets import Dataset

    from selfpos.positioning.objective import TaskProbe
    from selfpos.tasks import get_task

    def probe(name: str, rows: list[dict[str, Any]]) -> TaskProbe:
        kind = get_task(sets[name][0])
        fields = ("query", "positive") if "query" in rows[0] else ("text", "label")
        dataset = Dataset.from_dict({field: [str(row[field]) for row in rows] for field in fields})
        return TaskProbe(name, kind, kind.prepare(dataset, seed=0), TAU)

    smooth, measures = {}, {}
    for name in NAMES:
        chosen, tested = (probe(name, rows) for rows in sets[name][2:])
        smooth[name] = chosen.smooth(chosen.everything(), TAU)
        measures[name] = tested.measure(tested.everything())
    return smooth, measures


def minimum(objective: Callable[[Tensor], Tensor], at: Callable[[Any], Tensor]) -> list[float]:
    """The coefficients that minimise the objective of the embeddings there."""
    from scipy.optimize import minimize

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            c = torch.tensor(x, requires_grad=True)
            found = objective(at(c.float()))
            (gradient,) = torch.autograd.grad(found, c)
        return found.item(), gradient.numpy()

    return minimize(value, np.full(3, CENTRE), jac=True, method="L-BFGS-B").x.tolist()


@torch.no_grad()
def merges(sets: dict[str, Any], models: Path) -> dict[str, Any]:
    """Test scores of the minima of each objective, of the specialists, and of one scale for all."""
    from selfpos.positioning.matching import Matching, similarities
    from selfpos.positioning.objective import TextTable
    from selfpos.tasks.texts import GENERAL

    live = live_model(NAMES, models, separate=True)

    smooth, measures = judges(sets)
    texts = plain_texts(sets)
    everything = [*texts.values(), *(m.texts for m in smooth.values()), *(m.texts for m in measures.values())]
    table = TextTable([text for some in everything for text in some])

    def embedded(coefficients: list[float]) -> Tensor:
        row = torch.tensor(coefficients, dtype=torch.float64)
        live.set_coefficients(row.expand(len(live.keys), len(NAMES)))
        return live.embed(table.texts).float()

    def specialist(index: int) -> Tensor:
        live.set_specialist(index)
        return live.embed(table.texts).float()

    base, own = embedded([0.0] * 3), [specialist(index) for index in range(3)]
    centre = embedded([CENTRE] * 3)
    slopes = [(embedded([CENTRE + STEP * (i == j) for j in range(3)]) - centre) / STEP for i in range(3)]

    def at(c: Any) -> Tensor:
        return centre + sum((c[i] - CENTRE) * slopes[i] for i in range(3))

    def scores(embeddings: Tensor) -> dict[str, float]:
        return {name: m.score(embeddings[table.rows(m.texts)]) for name, m in measures.items()}

    units = {name: float(m.value(base[table.rows(m.texts)])) for name, m in smooth.items()}
    found: dict[str, list[float]] = {
        "labelled records": minimum(
            lambda e: sum(m.value(e[table.rows(m.texts)]) / units[n] for n, m in smooth.items()), at
        )
    }
    for general in (1.0, 0.3, 0.0):
        taught = []
        for name, some in texts.items():
            rows = table.rows(some)
            teacher = base if name == GENERAL else own[NAMES.index(name)]
            target = similarities(teacher[rows])
            apart = Matching(some, target, TAU)
            distances = [float(apart.value(e[rows])) for e in (own if name == GENERAL else [base])]
            matching = Matching(some, target, TAU, sum(distances) / len(distances))
            taught.append((matching, rows, general if name == GENERAL else 1.0))
        found[f"{TEXTS} texts a task, general ones weighing {general:g}"] = minimum(
            lambda e, taught=taught: sum(w * m.value(e[rows]) for m, rows, w in taught), at
        )
    result = {"base": {"scores": scores(base)}}
    result |= {name: {"scores": scores(own[index])} for index, name in enumerate(NAMES)}
    result |= {f"scale {c:g}": {"scores": scores(at([c] * 3))} for c in (0.3, 0.5, 0.7, 1.0)}
    result |= {name: {"coefficients": c, "scores": scores(at(c))} for name, c in found.items()}
    for row in result.values():
        row["mean"] = sum(row["scores"].values()) / len(row["scores"])
    return result


if __name__ == "__main__":
    main()
