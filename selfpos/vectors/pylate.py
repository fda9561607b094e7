"""PyLate's layout of a ColBERT, read as today's MultiVectorEncoder reads it.

PyLate lists a Transformer and Dense modules, and says in config_sentence_transformers.json what today's
modules say of themselves: markers of questions and texts, lengths, and which tokens are skipped.
"""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from selfpos.storage.file_kinds import CONFIG, PROMPTS_CONFIG, TRANSFORMER_CONFIG
from selfpos.storage.manifest import mapping
from selfpos.storage.model_class import PYLATES_CLASS, PYLATES_MODULES
from selfpos.storage.model_folder import ModelFolder, Module
from selfpos.storage.networks import TRANSFORMERS

SIDES = ("query", "document")
SIMILARITIES = ("maxsim", "meanmaxsim")
TOKENS = "token_embeddings"
EXPANDED_LENGTH = 32  # of a question, where the model says none
EXPANSION_FIELDS = (
    *("query_length", "document_length", "do_query_expansion", "attend_to_expansion_tokens"),
    *("attend_to_mask_tokens", "query_prefix", "document_prefix", "skiplist_words"),
)
"""Fields of which any says that questions are expanded, where it is not said that they are not."""


def is_pylates(model: ModelFolder) -> bool:
    """Whether a model is stored as PyLate stores a ColBERT."""
    if model.is_plain:
        return False
    stated = model.config(PROMPTS_CONFIG).get("model_type")
    packages = {module.type.partition(".")[0] for module in model.modules}
    return stated == PYLATES_CLASS or (stated is None and PYLATES_MODULES in packages)


def markers(model: ModelFolder) -> tuple[str, ...]:
    """What PyLate sets before questions and texts as one token; empty for models of other layouts."""
    config = model.config(PROMPTS_CONFIG) if is_pylates(model) else {}
    return tuple(str(config[f"{side}_prefix"]) for side in SIDES if config.get(f"{side}_prefix"))


def as_today(model: ModelFolder) -> ModelFolder:
    """The model with the modules and configurations that MultiVectorEncoder makes of PyLate's layout.

    A model of another layout is returned itself. Tensors stay under their keys.
    """
    if not is_pylates(model):
        return model
    stated = model.config(PROMPTS_CONFIG)
    configs = {PROMPTS_CONFIG: _prompts(model)}
    for module in model.modules:
        if module.kind in TRANSFORMERS:
            file = str(PurePosixPath(module.path) / TRANSFORMER_CONFIG)
            configs[file] = _reading(stated) | model.config(file)
        elif module.kind == "Dense":
            file = str(PurePosixPath(module.path) / CONFIG)
            own = {"module_input_name": TOKENS, **model.config(file)}
            configs[file] = {"module_output_name": own["module_input_name"], **own}
    names = ("MultiVectorMask", "Normalize")
    added = [
        Module(number, str(number), f"{number}_{name}", f"sentence_transformers.{name}")
        for number, name in enumerate(names, start=len(model.modules))
    ]
    configs[f"{added[0].path}/{CONFIG}"] = _mask(stated)
    configs[f"{added[1].path}/{CONFIG}"] = {"module_input_name": TOKENS, "module_output_name": TOKENS}
    return replace(model, modules=(*model.modules, *added), _configs=configs)


def _prompts(model: ModelFolder) -> dict[str, Any]:
    """The model's configuration with a marker as the beginning of its side's prompt."""
    stated = model.config(PROMPTS_CONFIG)
    prompts = dict(mapping(stated, "prompts", model.path / PROMPTS_CONFIG))
    for side in SIDES:
        if f"{side}_prefix" in stated:
            marker = stated[f"{side}_prefix"] or ""
            prompts[side] = marker + (prompts.get(side) or "").removeprefix(marker)
    similarity = stated.get("similarity_fn_name")
    if similarity not in SIMILARITIES:  # PyLate's MaxSim, or a cosine that is not used
        similarity = None
    return {**stated, "prompts": prompts, "similarity_fn_name": similarity}


def _reading(stated: dict[str, Any]) -> dict[str, Any]:
    """The lengths of questions and texts, and what questions are expanded by."""
    fields = ("query_length", "document_length")
    reading: dict[str, Any] = {name: stated[name] for name in fields if stated.get(name) is not None}
    if "query_expansion" in stated:
        expansion = stated["query_expansion"]
    elif not any(name in stated for name in EXPANSION_FIELDS) or stated.get("do_query_expansion") is False:
        expansion = None
    else:
        attend = stated.get("attend_to_expansion_tokens", stated.get("attend_to_mask_tokens"))
        length = reading.pop("query_length", EXPANDED_LENGTH)
        expansion = {"strategy": "fixed", "attend": bool(attend), "length": length}
    if expansion is not None:
        reading["query_expansion"] = {"attend": False, "token": None, **expansion}
    return {"transformer_task": "feature-extraction", **reading}


def _mask(stated: dict[str, Any]) -> dict[str, Any]:
    """Which tokens of texts are not compared: punctuation, where the model does not say it."""
    words = stated.get("skiplist_words")
    if words is None:
        marked = any(f"{side}_prefix" in stated for side in SIDES)
        words = list(string.punctuation) if marked or stated.get("model_type") == PYLATES_CLASS else []
    return {"skiplist_words": words, "skiplist_tasks": ["document"], "keep_only_token_ids": None}
