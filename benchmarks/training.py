"""Throughput of `selfpos finetune` beside plain sentence-transformers, and of batches by length beside shuffled ones; on MedQuAD pairs.

    python benchmarks/training.py --data FOLDER/medquad/train.jsonl.gz [--steps 60] [--rounds 3] [--out benchmarks/results/training.json]

All arms train all-MiniLM-L6-v2 with the same records, loss, batch size, learning rate, seed, threads and number of steps. They take turns, round
by round, in one process; the first of each is a warm-up of a few steps and is not counted. An arm's speed is that of its training loop in samples
a second, the median over the rounds. `held_out_loss` is the InfoNCE of fixed random batches of records that no arm has seen, so batches by
length, whose own training loss is of another kind of batch, are judged by the same as the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

BATCHES = 8
"""Of held-out records, behind the loss by which arms are compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines with question and answer")
    parser.add_argument("--base", default="all-MiniLM-L6-v2")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--records", type=int, default=8000)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()

    import torch
    from sentence_transformers import __version__

    from selfpos.data.files import read_records
    from selfpos.recipe import TrainingSettings
    from selfpos.storage.locate import locate_model
    from selfpos.tasks import get_task

    kind = get_task("retrieval")
    import datasets

    everything = kind.prepare(datasets.Dataset.from_list(read_records(asked.data)), 0).shuffle(seed=0)
    count = BATCHES * asked.batch_size
    held_out, records = everything.select(range(count)), everything.select(range(count, min(len(everything), count + asked.records)))
    base = locate_model(asked.base)
    settings = TrainingSettings(steps=asked.steps, batch_size=asked.batch_size, max_length=asked.max_length, checkpoint_every=10**6)
    arms = {
        "sentence-transformers": (plain, settings),
        "selfpos": (ours, settings),
        "selfpos, batches by length": (ours, settings.model_copy(update={"batching": "length"})),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for number in range(asked.rounds + 1):
        for name, (train, chosen) in arms.items():
            steps = asked.steps if number else 3
            with tempfile.TemporaryDirectory() as folder:
                seconds, model = train(base, kind, records, chosen.model_copy(update={"steps": steps}), Path(folder) / "out")
            if number:
                speed = steps * asked.batch_size / seconds
                found[name].append({"samples_per_second": speed, "held_out_loss": loss_of(model, kind, held_out, chosen)})
                print(f"round {number}  {name:28} {speed:8.1f} samples/s  held-out loss {found[name][-1]['held_out_loss']:.4f}", flush=True)
    medians = {name: statistics.median(run["samples_per_second"] for run in runs) for name, runs in found.items()}
    result = {
        "settings": {
            **vars(asked),
            "data": asked.data.name if asked.data.parent == Path() else f"{asked.data.parent.name}/{asked.data.name}",
        },
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.is_available(),
            "platform": platform.machine(),
        },
        "versions": {"torch": torch.__version__, "sentence-transformers": __version__},
        "runs": found,
        "samples_per_second": medians,
        "ratio to sentence-transformers": medians["selfpos"] / medians["sentence-transformers"],
        "ratio of batches by length to shuffled": medians["selfpos, batches by length"] / medians["selfpos"],
    }
    result["settings"].pop("out")
    print(json.dumps({key: value for key, value in result.items() if key.startswith(("ratio", "samples"))}, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")


def ours(base: Path, kind: Any, records: Any, settings: Any, out: Path) -> tuple[float, Any]:
    """Seconds of the training loop, and the model."""
    from sentence_transformers import SentenceTransformer

    from selfpos.training import train

    result = train(base, {"medquad": (kind, records)}, out, settings, seed=0, name="medquad")
    return result.seconds, SentenceTransformer(str(out))


def plain(base: Path, kind: Any, records: Any, settings: Any, out: Path) -> tuple[float, Any]:
    """The same with the library's trainer and nothing of ours."""
    import torch
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers, SentenceTransformerTrainingArguments
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
        output_dir=str(out), max_steps=settings.steps, per_device_train_batch_size=settings.batch_size, learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup, seed=0, dataloader_drop_last=True, dataloader_pin_memory=on_gpu, batch_sampler=BatchSamplers.NO_DUPLICATES,
        logging_steps=10, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=not on_gpu,
        bf16=on_gpu and torch.cuda.is_bf16_supported(including_emulation=False),
    )  # fmt: skip
    clock = Clock()
    SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=records,
        loss=MultipleNegativesRankingLoss(model, scale=1 / settings.temperature),
        data_collator=SentenceTransformerDataCollator(preprocess_fn=model.preprocess, max_length=settings.max_length),
        callbacks=[clock],
    ).train()
    return clock.seconds, model


def loss_of(model: Any, kind: Any, held_out: Any, settings: Any) -> float:
    """Mean loss over batches that hold the same records for every arm."""
    import torch

    from selfpos.tasks.losses import Embedded

    loss = kind.loss(Embedded(), settings.temperature)
    columns = {name: model.encode(held_out[name][:], convert_to_tensor=True, show_progress_bar=False) for name in held_out.column_names}
    places = range(0, len(held_out) - settings.batch_size + 1, settings.batch_size)
    with torch.no_grad():
        values = [
            loss([{"sentence_embedding": rows[place : place + settings.batch_size]} for rows in columns.values()], None) for place in places
        ]
    return float(torch.stack(values).mean())


if __name__ == "__main__":
    main()
