"""The modules that a plain transformers model gets when it is asked to be a sentence-transformers model."""

from __future__ import annotations

import json
from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import CONFIG, MODULES
from selfpos.storage.manifest import read_json
from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.networks import task_of

TYPES = "sentence_transformers.models"
COLBERT = "HF_ColBERT"


def check_pooling(frame: ModelFolder, pooling: str | None) -> None:
    """Refuse a pooling for a model that has modules, and a plain one without it, which says of none.

    A plain model that classifies pairs is a CrossEncoder, and Stanford's ColBERT a MultiVectorEncoder: both
    stay as they are.
    """
    config = frame.config(CONFIG)
    classifies = task_of(frame.path) == "sequence-classification"
    itself = classifies or COLBERT in (config.get("architectures") or ())
    if not frame.is_plain and pooling is not None:
        raise SelfposError(f"{frame.path} has modules, which say how it is pooled; omit --pooling")
    if frame.is_plain and itself and pooling is not None:
        raise SelfposError(f"{frame.path} scores pairs of texts, so nothing is pooled; omit --pooling")
    if frame.is_plain and not itself and pooling is None:
        raise SelfposError(
            f"{frame.path} is a plain transformers model: it has no modules.json and does not say how its "
            "token vectors are pooled; say it with --pooling (mean, cls, lasttoken or max), or take the "
            "modules of a vector that has them with --take-from VECTOR"
        )


def add_modules(folder: Path, pooling: str) -> None:
    """Write modules.json and a Pooling of this mode into a folder with a plain transformer."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{TYPES}.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    _write(folder / MODULES, modules)
    config = read_json(folder / CONFIG)
    text = config.get("text_config") or config
    width = next(int(text[name]) for name in ("hidden_size", "dim", "d_model", "n_embd") if name in text)
    _write(folder / "1_Pooling" / CONFIG, {"word_embedding_dimension": width, "pooling_mode": pooling})


def _write(file: Path, data: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
