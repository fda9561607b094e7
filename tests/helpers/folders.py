"""Model folders made of given tensors, without a network behind them: enough for the engine, and quick to
make.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

State = dict[str, np.ndarray]

SHAPES: dict[str, tuple[int, ...]] = {
    "embeddings.word_embeddings.weight": (50, 6),
    "encoder.layer.0.dense.weight": (8, 6),
    "encoder.layer.0.dense.bias": (8,),
    "encoder.layer.1.dense.weight": (5, 9),
    "encoder.layer.1.norm.weight": (1,),
    "encoder.layer.1.gate.weight": (7, 1),
    "encoder.layer.2.row.weight": (1, 7),
    "encoder.layer.2.conv.weight": (4, 3, 2),
    "pooler.scale": (),
}


def make_folder(folder: Path, tensors: State) -> Path:
    """Write `tensors` as the one module of a sentence-transformers folder."""
    folder.mkdir(parents=True)
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (folder / "modules.json").write_text(json.dumps([module]))
    (folder / "config.json").write_text(json.dumps({"model_type": "toy"}))
    (folder / "vocab.txt").write_text("[PAD]\n")
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def random_state(
    generator: np.random.Generator, scale: float = 1.0, shapes: dict[str, tuple[int, ...]] = SHAPES
) -> State:
    """Normal random tensors."""
    return {
        name: (scale * generator.standard_normal(shape)).astype(np.float32).reshape(shape)
        for name, shape in shapes.items()
    }


def moved(base: State, vector: State) -> State:
    """base + vector, in float32."""
    return {name: (value + vector[name]).astype(np.float32) for name, value in base.items()}


def difference(base: State, tuned: State) -> State:
    """The task vector that the stored float32 tensors stand for, in float64."""
    return {name: tuned[name].astype(np.float64) - value.astype(np.float64) for name, value in base.items()}
