"""The modules that a plain transformers model gets when it is asked to be a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpos.errors import OptionNeededError, SelfposError
from selfpos.merging.output.layout import write_json
from selfpos.storage.file_kinds import CONFIG, MODULES
from selfpos.storage.manifest import mapping, read_json
from selfpos.storage.model_class import EMBEDDER, class_of
from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.networks import transformers_config

TYPES = "sentence_transformers.models"
WIDTHS = ("hidden_size", "dim", "d_model", "n_embd", "emb_dim")
"""What types of transformers call the length of a token's vector."""
LOADED = "mean"
"""How sentence-transformers pools a model without modules."""


def check_pooling(frame: ModelFolder, pooling: str | None) -> None:
    """Refuse a pooling for a model that has modules, and a plain one without it, which says of none.

    A plain model that classifies pairs is a CrossEncoder, and Stanford's ColBERT a MultiVectorEncoder: both
    stay as they are.
    """
    kind = class_of(frame.path)
    itself = kind != EMBEDDER
    if not frame.is_plain and pooling is not None:
        raise SelfposError(f"{frame.path} has modules, which say how it is pooled; omit --pooling")
    if frame.is_plain and itself and pooling is not None:
        raise SelfposError(f"{frame.path} is a {kind}, so nothing is pooled; omit --pooling")
    if frame.is_plain and not itself and _embeds_itself(frame):
        raise SelfposError(
            f"{frame.path} makes one vector of a text or an image itself, so nothing is pooled: load it with "
            "SentenceTransformer, save it, and give that, or take the modules of a vector that has them with "
            "--take-from VECTOR"
        )
    if frame.is_plain and not itself and pooling is None:
        raise OptionNeededError(
            f"{frame.path} is a plain transformers model: it has no modules.json and does not say how its "
            "token vectors are pooled; say it with --pooling (mean, cls, lasttoken or max), or take the "
            "modules of a vector that has them with --take-from VECTOR",
            instead="write the base with its modules (selfpos merge --base BASE --vectors BASE --method "
            "average --pooling mean --out NEW), and give NEW",
        )
    if pooling is not None:
        _width(frame.config(CONFIG), frame.path / CONFIG)


def check_measured_pooling(frame: ModelFolder, pooling: str | None) -> None:
    """Refuse a pooling that is not a plain model's in memory, for a method that embeds texts."""
    if frame.is_plain and pooling not in (None, LOADED):
        raise SelfposError(
            f"the method embeds texts by {frame.path}, a plain transformers model, which "
            f"sentence-transformers pools by {LOADED} and not {pooling}; write it with its modules first, "
            f"and give that (selfpos merge --base BASE --vectors BASE --method average --pooling {pooling} "
            "--out NEW)"
        )


def _embeds_itself(frame: ModelFolder) -> bool:
    """Whether a plain model has texts and images side by side and makes one vector of each, as CLIP does."""
    if "vision_config" not in frame.config(CONFIG) or (config := transformers_config(frame.path)) is None:
        return False
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    return hasattr(MODEL_MAPPING.get(type(config), None), "get_text_features")


def _width(config: Mapping[str, Any], file: Path) -> int:
    """The length of a token's vector. Raises SelfposError where the configuration does not say it."""
    text = mapping(config, "text_config", file) or config
    width = next((text[name] for name in WIDTHS if name in text), None)
    if not isinstance(width, int):
        raise SelfposError(
            f"{file} does not say how long a token's vector is ({', '.join(WIDTHS)}), so nothing can be "
            "pooled; save the model with sentence-transformers, and give that"
        )
    return width


def add_modules(folder: Path, pooling: str) -> None:
    """Write modules.json and a Pooling of this mode into a folder with a plain transformer."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"{TYPES}.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / MODULES, modules)
    width = _width(read_json(folder / CONFIG), folder / CONFIG)
    write_json(folder / "1_Pooling" / CONFIG, {"word_embedding_dimension": width, "pooling_mode": pooling})
