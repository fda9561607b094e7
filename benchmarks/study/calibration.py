"""Does it pay to calibrate a merged model's features on its specialists' after the merge?

    python benchmarks/study/calibration.py --data FOLDER --seeds 2 3 4 --arms self-positioning one-scale

The idea is FeatCal's (arXiv 2605.13030). Layer by layer each linear map W of the model is replaced by
argmin Σ_t |W X_t − Y_t|² / n_t + λ |W − W_model|². X_t are its inputs from the texts of task t in the model
so far, Y_t the outputs of the same map in specialist t. There are 400 texts a task of its training records,
without labels. λ is in units of the mean eigenvalue of Σ_t X_t X_tᵀ / n_t, and chosen by the squared
distance of unit embeddings to the specialists' on other texts, 100 a task. No test is looked at. Results: one
JSON file an arm and seed in results/study_calibration, and study_calibration.md.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import Piece
from data import split
from models import base_model
from options import study_parser
from report import student
from settings import MAX_LENGTH
from torch import Tensor, nn

TEXTS, HELD_OUT = 400, 100  # of a task, for the features and for the choice of λ
RIDGES = (1.0, 0.1, 0.01)
BATCH = 32
GROUPS = (  # maps of a BERT layer with one input each, in the order in which they are calibrated
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    ("attention.output.dense",),
    ("intermediate.dense",),
    ("output.dense",),
)


@dataclass
class Batch:
    """A batch of one task on its way through the layers: hidden states of the model and of the specialist."""

    task: str
    tokens: Tensor  # which places hold one, flattened
    rest: dict[str, Any]  # what a layer takes beside hidden states
    model: Tensor
    specialist: Tensor


def texts_of(task: str, seed: int, data: Path) -> list[str]:
    """Distinct texts of a task's training records, in random order."""
    _, records, _ = split(task, seed, data)
    few = records.select(
        random.Random(f"calibrate {task} {seed}").sample(range(len(records)), min(len(records), 2000))
    )
    texts: dict[str, None] = {}
    for row in few:
        for value in row.values():
            values = value if isinstance(value, list) else [value]
            texts.update(dict.fromkeys(text for text in values if isinstance(text, str)))
    return random.Random(seed).sample(list(texts), min(len(texts), TEXTS + HELD_OUT))


def first_inputs(model: Any, texts: Sequence[str]) -> Iterator[tuple[Tensor, dict[str, Any], Tensor]]:
    """Hidden states before the first layer, the layer's other arguments, and which places hold tokens."""
    layers = model[0].model.encoder.layer
    taken: list[tuple[Tensor, dict[str, Any]]] = []

    def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.pop("hidden_states")
        taken.append((hidden, {**dict(enumerate(args[1:])), **kwargs}))

    hook = layers[0].register_forward_pre_hook(take, with_kwargs=True)
    for start in range(0, len(texts), BATCH):
        features = model.preprocess(list(texts[start : start + BATCH]))
        model(dict(features))
        hidden, rest = taken.pop()
        yield hidden, rest, features["attention_mask"].bool().flatten()
    hook.remove()


def run_layer(layer: nn.Module, hidden: Tensor, rest: dict[Any, Any]) -> Tensor:
    positional = [rest[key] for key in sorted(key for key in rest if isinstance(key, int))]
    named = {key: value for key, value in rest.items() if isinstance(key, str)}
    output = layer(hidden, *positional, **named)
    return output[0] if isinstance(output, tuple) else output


class _StopError(Exception):
    """Ends a forward pass where what it was for is there."""


def inputs_of(layer: nn.Module, name: str, batch: Batch) -> Tensor:
    """Inputs (tokens, in) of the map called `name`, for which `layer` runs up to there."""
    kept: list[Tensor] = []

    def take(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        kept.append(args[0])
        raise _StopError

    hook = layer.get_submodule(name).register_forward_pre_hook(take)
    with suppress(_StopError):
        run_layer(layer, batch.model, batch.rest)
    hook.remove()
    return kept[0].flatten(0, -2)[batch.tokens]


def targets_of(layer: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Outputs (tokens, out) of all maps of the specialist's `layer`, which takes the batch on."""
    kept: dict[str, Tensor] = {}
    hooks = [
        layer.get_submodule(name).register_forward_hook(
            lambda _, args, output, name=name: kept.update({name: output.flatten(0, -2)[batch.tokens]})
        )
        for names in GROUPS
        for name in names
    ]
    batch.specialist = run_layer(layer, batch.specialist, batch.rest)
    for hook in hooks:
        hook.remove()
    return kept


@torch.no_grad()
def calibrate(model: Any, specialists: dict[str, Any], texts: dict[str, list[str]], ridge: float) -> None:
    """Replace the linear maps of `model`, a SentenceTransformer over BERT, in place."""
    batches = []
    for task, of_task in texts.items():
        ordered = sorted(of_task, key=len)
        pairs = zip(first_inputs(model, ordered), first_inputs(specialists[task], ordered), strict=True)
        batches += [Batch(task, tokens, rest, ours, theirs) for (ours, rest, tokens), (theirs, _, _) in pairs]
    counts = {task: sum(int(b.tokens.sum()) for b in batches if b.task == task) for task in texts}
    for number, layer in enumerate(model[0].model.encoder.layer):
        theirs = {task: specialist[0].model.encoder.layer[number] for task, specialist in specialists.items()}
        targets = [targets_of(theirs[batch.task], batch) for batch in batches]
        for names in GROUPS:
            maps = {name: layer.get_submodule(name) for name in names}
            width = next(iter(maps.values())).in_features
            gram = torch.zeros(width, width, dtype=torch.float64)
            errors = {
                name: torch.zeros(linear.out_features, width, dtype=torch.float64)
                for name, linear in maps.items()
            }
            for batch, target in zip(batches, targets, strict=True):
                inputs = inputs_of(layer, names[0], batch)
                share = 1 / counts[batch.task]
                gram += share * (inputs.T @ inputs).double()
                for name, linear in maps.items():
                    errors[name] += share * ((target[name] - linear(inputs)).T @ inputs).double()
            gram.diagonal().add_(ridge * float(gram.diagonal().mean()))
            for name, linear in maps.items():
                linear.weight += torch.linalg.solve(gram, errors[name].T).T.float()
        for batch in batches:
            batch.model = run_layer(layer, batch.model, batch.rest)


def distance(model: Any, specialists: dict[str, Any], texts: dict[str, list[str]]) -> float:
    """The mean squared distance of unit embeddings to the specialists', over tasks."""
    gaps = []
    for task, of_task in texts.items():
        ours, theirs = (
            one.encode(of_task, normalize_embeddings=True, show_progress_bar=False)
            for one in (model, specialists[task])
        )
        gaps.append(float(np.square(ours - theirs).sum(1).mean()))
    return float(np.mean(gaps))


def opened(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.max_seq_length = MAX_LENGTH
    return model.eval()


def measured(piece: Piece, arm: str) -> dict[str, Any]:
    """The arm's scores before and after calibration with the chosen λ."""
    from tests import score

    tasks = list(piece.setting.steps)
    before = piece.run(arm)
    folder = _folder(piece, arm, before)
    specialists = {task: opened(path) for task, path in zip(tasks, piece.specialists, strict=False)}
    texts = {task: texts_of(task, piece.seed, piece.data) for task in tasks}
    fit = {task: of_task[:-HELD_OUT] for task, of_task in texts.items()}
    held_out = {task: of_task[-HELD_OUT:] for task, of_task in texts.items()}
    gaps = {"none": distance(opened(folder), specialists, held_out)}
    best, chosen = None, None
    for ridge in RIDGES:
        model = opened(folder)
        calibrate(model, specialists, fit, ridge)
        gaps[str(ridge)] = distance(model, specialists, held_out)
        if chosen is None or gaps[str(ridge)] < gaps[str(chosen)]:
            best, chosen = model, ridge
    scores = score(best, tasks, piece.data, piece.seed)
    return {
        "arm": arm,
        "seed": piece.seed,
        "ridge": chosen,
        "gaps": gaps,
        "before": before["scores"],
        "scores": scores,
    }


def _folder(piece: Piece, arm: str, result: dict[str, Any]) -> Path:
    """The arm's model: the joint one as it was trained, a merge made again from its result."""
    from selfpos.merging import merge
    from selfpos.positioning.separated import merge_method

    if arm.startswith("joint"):
        return piece.joint_model(arm)
    out = piece.work / f"calibrated-{arm}"
    shutil.rmtree(out, ignore_errors=True)
    count = len(piece.specialists)
    if arm == "average":
        options: dict[str, Any] = {"method": "average"}
    else:
        position = piece.run("self-positioning")["position"]
        weights = position["coefficients"] if arm == "self-positioning" else [position["scale"]] * count
        options = {"weights": weights, **merge_method(position["separated"])}
    method = options.pop("method")
    merge(base_model(), piece.specialists, method, out, show=False, **options)
    return out


def write_summary(results: Path, tasks: Sequence[str]) -> None:
    """Write the table of all pieces."""
    from selfpos.console import markdown_table
    from selfpos.storage.atomic import write_text
    from tests import UNSEEN

    pieces = [json.loads(file.read_text()) for file in sorted((results / "study_calibration").glob("*.json"))]
    rows = []
    for arm in dict.fromkeys(piece["arm"] for piece in pieces):
        of_arm = [piece for piece in pieces if piece["arm"] == arm]
        cells = [arm, str(len(of_arm))]
        for names in (tasks, UNSEEN):
            before, after = (
                [float(np.mean([piece[when][name] for name in names])) for piece in of_arm]
                for when in ("before", "scores")
            )
            gains = [b - a for a, b in zip(before, after, strict=True)]
            low, high = student(gains)
            interval = "" if low is None or high is None else f" ({low:+.2f} to {high:+.2f})"
            cells += [f"{np.mean(before):.2f}", f"{np.mean(after):.2f}", f"{np.mean(gains):+.2f}{interval}"]
        rows.append([*cells, ", ".join(str(piece["ridge"]) for piece in of_arm)])
    heads = ["arm", "seeds", "mean", "calibrated", "gain", "unseen", "calibrated", "gain", "λ"]
    text = [
        "# Calibrated features",
        "",
        "Made by `python benchmarks/study/calibration.py`; see `docs/study.md`.",
    ]
    write_text(results / "study_calibration.md", "\n".join([*text, "", markdown_table(heads, rows), ""]))


def main() -> None:
    from selfpos.storage.atomic import write_text

    parser = study_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", default=["self-positioning", "joint-round-robin", "one-scale"])
    options = parser.parse_args()
    for seed in options.seeds:
        piece = Piece("five-tasks", seed, options.data, options.models, options.results / "study")
        for arm in options.arms:
            file = options.results / "study_calibration" / f"{arm}-seed{seed}.json"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                write_text(file, json.dumps(measured(piece, arm), indent=1) + "\n")
            write_summary(options.results, list(piece.setting.steps))
            print(file.read_text(), flush=True)


if __name__ == "__main__":
    main()
