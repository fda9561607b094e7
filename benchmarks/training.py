"""Throughput of `selfpos finetune` beside plain sentence-transformers, and of batches by length beside
shuffled ones; on MedQuAD pairs.

    python benchmarks/training.py --data FOLDER/medquad/train.jsonl.gz [--out
    benchmarks/results/training.json]    # 14 minutes on one core python benchmarks/training.py --data …
    --quick                                                                # does it run?

Comparisons that --out has already are kept, so that a run which was stopped goes on.

All arms of a comparison train all-MiniLM-L6-v2 in one process with the same records, loss, batch size,
learning rate, seed and threads, and take turns, round by round; the first of each is a warm-up of a few steps
and is not counted. An arm's speed is that of its training loop in samples a second, the median over the
rounds. Every training sees its records once, so that arms with shuffled batches and with batches by length
embed the very same texts. `held_out_loss` is the InfoNCE of fixed random batches of records that no arm has
seen: batches by length, whose own training loss is of another kind of batch, are judged by the same as the
others. For lengths beyond the model's limit of 256 tokens its copy has a limit of 512, all that its position
embeddings have.

What batches by length can save is the padding there is: `tokens` counts, over 8,000 records, what either
embeds for each token of text, padding included; at 1 nothing is left to save. (Attention grows with the
square of the length, so time may gain a little more than tokens do.)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

PLAIN, OURS, BY_LENGTH = "sentence-transformers", "selfpos", "selfpos, batches by length"
HELD_OUT = 64
"""Records behind the loss by which arms are compared."""
COUNTED = 8000
"""Records whose padding is counted."""

COMPARISONS: dict[str, dict[str, Any]] = {
    "selfpos and sentence-transformers": {
        "arms": [PLAIN, OURS],
        "max_length": 64,
        "batch_size": 16,
        "records": 400,
        "rounds": 3,
    },
    "batches by length, 256 tokens": {
        "arms": [OURS, BY_LENGTH],
        "max_length": 256,
        "batch_size": 16,
        "records": 256,
        "rounds": 1,
    },
    "batches by length, 512 tokens": {
        "arms": [OURS, BY_LENGTH],
        "max_length": 512,
        "batch_size": 16,
        "records": 160,
        "rounds": 1,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines with question and answer")
    parser.add_argument("--base", default="all-MiniLM-L6-v2")
    parser.add_argument("--quick", action="store_true", help="two batches to a training, one round")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()

    import datasets
    import torch
    from sentence_transformers import __version__

    from selfpos.data.files import read_records
    from selfpos.storage.locate import locate_model
    from selfpos.tasks import get_task

    kind = get_task("retrieval")
    everything = kind.prepare(datasets.Dataset.from_list(read_records(asked.data)), 0).shuffle(seed=0)
    held_out, rest = everything.select(range(HELD_OUT)), everything.select(range(HELD_OUT, len(everything)))
    result: dict[str, Any] = {
        "data": f"{asked.data.parent.name}/{asked.data.name}",
        "base": asked.base,
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.is_available(),
            "platform": platform.machine(),
        },
        "versions": {"torch": torch.__version__, "sentence-transformers": __version__},
    }
    done = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out and asked.out.exists() else {}
    same = all(done.get(key) == value for key, value in result.items())
    found = result["comparisons"] = dict(done["comparisons"]) if same and done else {}
    with tempfile.TemporaryDirectory() as folder:
        base = long_copy(locate_model(asked.base), Path(folder) / "base")
        for name, comparison in COMPARISONS.items():
            if name in found:
                continue
            if asked.quick:
                comparison = comparison | {"records": 2 * comparison["batch_size"], "rounds": 1}
            found[name] = compare(name, comparison, base, kind, rest, held_out, Path(folder))
            if asked.out:
                asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
                machine = f"{result['machine']['threads']} thread(s) of {platform.machine()}"
                about = f"Training of {asked.base} on {result['data']}, {machine}, float32."
                asked.out.with_suffix(".md").write_text(
                    f"# training\n\n{about}\n\n{table(found)}\n", encoding="utf-8"
                )
    print(table(found))


def long_copy(base: Path, copy: Path) -> Path:
    """A copy of `base` that reads 512 tokens."""
    shutil.copytree(base, copy)
    config = copy / "sentence_bert_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"max_seq_length": 512}), encoding="utf-8"
    )
    return copy


def compare(
    name: str, asked: dict[str, Any], base: Path, kind: Any, rest: Any, held_out: Any, folder: Path
) -> dict[str, Any]:
    """The runs of one comparison, the median speed of each arm, the ratio of the second to the first, and
    the tokens embedded."""
    from selfpos.recipe import TrainingSettings

    size, records = asked["batch_size"], rest.select(range(asked["records"]))
    settings = TrainingSettings(batch_size=size, max_length=asked["max_length"], checkpoint_every=10**6)
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in asked["arms"]}
    for number in range(asked["rounds"] + 1):
        for arm in asked["arms"]:
            seen = records if number else records.select(range(2 * size))
            batching = "length" if arm == BY_LENGTH else "shuffled"
            with tempfile.TemporaryDirectory(dir=folder) as out:
                train = plain if arm == PLAIN else ours
                seconds, steps, model = train(
                    base, kind, seen, settings.model_copy(update={"batching": batching}), Path(out) / "out"
                )
            if number:
                run = {"samples_per_second": steps * size / seconds, "steps": steps, "seconds": seconds}
                runs[arm].append(run | {"held_out_loss": loss_of(model, kind, held_out, settings)})
                print(f"{name}, round {number}, {arm}: {runs[arm][-1]}", flush=True)
    speeds = {
        arm: statistics.median(run["samples_per_second"] for run in found) for arm, found in runs.items()
    }
    first, second = speeds.values()
    return {
        "settings": {key: value for key, value in asked.items() if key != "arms"},
        "runs": runs,
        "samples_per_second": speeds,
        "ratio": second / first,
        "tokens": padding(base, kind, rest.select(range(min(COUNTED, len(rest)))), size, asked["max_length"]),
    }


def padding(base: Path, kind: Any, records: Any, size: int, limit: int) -> dict[str, float]:
    """Tokens embedded for each token of text, in shuffled batches and in batches by length."""
    import numpy as np
    import torch
    from tokenizers import Tokenizer

    from selfpos.training.samplers import LengthBatchSampler

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = [
        np.array([min(len(text.ids), limit) for text in tokenizer.encode_batch(list(records[column]))])
        for column in records.column_names
    ]
    shuffled = np.arange(len(records) // size * size).reshape(-1, size)  # they are in random order
    by_length = np.array(list(LengthBatchSampler(records, kind, size, torch.Generator(), 0, limit)))
    embedded, text = {}, {}
    for name, batches in (("shuffled", shuffled), ("by length", by_length)):
        embedded[name] = sum(int(counts[batches].max(1).sum()) * size for counts in lengths) / batches.size
        text[name] = sum(int(counts[batches].sum()) for counts in lengths) / batches.size
    return {name: embedded[name] / text[name] for name in embedded}


def table(found: dict[str, Any]) -> str:
    """All comparisons as Markdown."""
    rows = [
        "| comparison | arm | samples/s | held-out loss | ratio | tokens embedded per token of text |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, one in found.items():
        for place, (arm, speed) in enumerate(one["samples_per_second"].items()):
            loss = statistics.median(run["held_out_loss"] for run in one["runs"][arm])
            ratio = f"{one['ratio']:.3f}" if place else ""
            share = one["tokens"]["by length" if arm == BY_LENGTH else "shuffled"]
            rows.append(f"| {name} | {arm} | {speed:.2f} | {loss:.4f} | {ratio} | {share:.2f} |")
    return "\n".join(rows)


def ours(base: Path, kind: Any, records: Any, settings: Any, out: Path) -> tuple[float, int, Any]:
    """Seconds and steps of the training loop, and the model."""
    from sentence_transformers import SentenceTransformer

    from selfpos.training import train

    result = train(base, {"medquad": (kind, records)}, out, settings, seed=0, name="medquad")
    return result.seconds, result.steps, SentenceTransformer(str(out))


def plain(base: Path, kind: Any, records: Any, settings: Any, out: Path) -> tuple[float, int, Any]:
    """The same with the library's trainer and nothing of ours."""
    import torch
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import (
        BatchSamplers,
        SentenceTransformerTrainingArguments,
    )
    from transformers import TrainerCallback, set_seed

    class Clock(TrainerCallback):
        seconds = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.seconds = time.perf_counter() - self.begun

    set_seed(0)
    model = SentenceTransformer(str(base), model_kwargs={"dtype": "float32"}).float()
    on_gpu = model.device.type == "cuda"
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        seed=0,
        dataloader_drop_last=True,
        dataloader_pin_memory=on_gpu,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not on_gpu,
        bf16=on_gpu and torch.cuda.is_bf16_supported(including_emulation=False),
    )
    clock = Clock()
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=records,
        loss=MultipleNegativesRankingLoss(model, scale=1 / settings.temperature),
        data_collator=SentenceTransformerDataCollator(
            preprocess_fn=model.preprocess, max_length=settings.max_length
        ),
        callbacks=[clock],
    )
    trainer.train()
    return clock.seconds, trainer.state.global_step, model


def loss_of(model: Any, kind: Any, held_out: Any, settings: Any) -> float:
    """Mean loss over batches that hold the same records for every arm."""
    import torch

    from selfpos.tasks.losses import Embedded

    loss = kind.loss(Embedded(), settings.temperature)
    columns = {
        name: model.encode(held_out[name][:], convert_to_tensor=True, show_progress_bar=False)
        for name in held_out.column_names
    }
    places = range(0, len(held_out) - settings.batch_size + 1, settings.batch_size)
    with torch.no_grad():
        values = [
            loss(
                [
                    {"sentence_embedding": rows[place : place + settings.batch_size]}
                    for rows in columns.values()
                ],
                None,
            )
            for place in places
        ]
    return float(torch.stack(values).mean())


if __name__ == "__main__":
    main()
