"""Whether a fine-tuned model has the base's architecture: the differences, each a readable sentence."""

from __future__ import annotations

import filecmp
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import CONFIG, PROMPTS_CONFIG, TOKENIZER_FILES
from selfpos.storage.manifest import read_json
from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.tensor_file import TensorEntry

# Fields of a config.json that say how a model was made, saved or trained, not what it computes.
IGNORED_FIELDS = {
    "_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "architectures",
    "transformers_version", "dtype", "torch_dtype", "use_cache", "gradient_checkpointing",
    "output_attentions", "output_hidden_states", "return_dict", "initializer_range", "id2label", "label2id",
    "num_labels", "problem_type", "finetuning_task", "task_specific_params", "auto_map",
    "attention_probs_dropout_prob", "hidden_dropout_prob", "dropout", "attention_dropout",
    "classifier_dropout", "embd_pdrop", "dropout_rate", "torchscript", "tie_word_embeddings",
}  # fmt: skip


def tensor_differences(base: Mapping[str, TensorEntry], other: Mapping[str, TensorEntry]) -> list[str]:
    """Tensors of floats that are missing on one side, or that differ in shape."""
    mine, theirs = ({key for key, entry in side.items() if entry.mergeable} for side in (base, other))
    faults = []
    if missing := sorted(mine - theirs):
        faults.append(f"it lacks {_some_tensors(missing)}")
    if extra := sorted(theirs - mine):
        faults.append(f"it has {_some_tensors(extra)} that the base has not")
    for key in sorted(mine & theirs):
        if base[key].shape != other[key].shape:
            faults.append(
                f"tensor {key} has shape {list(other[key].shape)}, expected {list(base[key].shape)}"
            )
    return faults


def _some_tensors(names: list[str]) -> str:
    if len(names) == 1:
        return f"tensor {names[0]}"
    return f"{len(names)} tensors ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


def config_differences(base: ModelFolder, other: ModelFolder, tokenizer: list[str]) -> list[str]:
    """Differences of modules, their configs, pooling, prompts and similarity, followed by `tokenizer`."""
    kinds = [[module.kind for module in model.modules] for model in (base, other)]
    if kinds[0] != kinds[1]:
        return [f"its modules are {' + '.join(kinds[1])}, expected {' + '.join(kinds[0])}"]
    faults = []
    for module, counterpart in zip(base.modules, other.modules, strict=True):
        mine, theirs = _module_config(base, module.path), _module_config(other, counterpart.path)
        label = f"{module.kind} "
        if module.kind == "Pooling":
            mine, theirs = {"pooling": pooling_mode(mine)}, {"pooling": pooling_mode(theirs)}
            label = ""
        for field in sorted((mine.keys() & theirs.keys()) - IGNORED_FIELDS):
            if mine[field] != theirs[field]:
                faults.append(f"its {label}{field} is {theirs[field]!r}, expected {mine[field]!r}")
    return faults + _prompt_differences(base, other) + tokenizer


def _module_config(model: ModelFolder, module: str) -> dict[str, Any]:
    return model.config(str(PurePosixPath(module) / CONFIG))


def pooling_mode(config: dict[str, Any]) -> str:
    """The modes in a Pooling config, of the older form (a flag per mode) or the newer (`pooling_mode`)."""
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        return mode if isinstance(mode, str) else "+".join(sorted(mode))
    flags = [flag for flag, on in config.items() if flag.startswith("pooling_mode_") and on]
    modes = [re.sub("^pooling_mode_|_tokens?$", "", flag) for flag in flags]
    return "+".join(sorted(modes))


def prompts_of(model: ModelFolder) -> dict[str, str]:
    """The prompts of a model by name, without empty ones."""
    prompts = model.config(PROMPTS_CONFIG).get("prompts") or {}
    return {name: text for name, text in prompts.items() if text}


def side_prompt(model: ModelFolder, side: str = "") -> str:
    """What sentence-transformers puts before a `query`, a `document` or, without a side, before any text."""
    config = model.config(PROMPTS_CONFIG)
    prompts = config.get("prompts") or {}
    names = {"query": ("query",), "document": ("document", "passage", "corpus")}.get(side, ())
    known = [name for name in (*names, config.get("default_prompt_name")) if name in prompts]
    return str(prompts[known[0]]) if known else ""


def _prompt_differences(base: ModelFolder, other: ModelFolder) -> list[str]:
    faults = []
    mine, theirs = prompts_of(base), prompts_of(other)
    # A specialist may have more prompts: its task's prompt, which the base does not know.
    if any(theirs.get(name) != text for name, text in mine.items()):
        faults.append(f"its prompts are {theirs}, expected {mine}")
    for field in ("default_prompt_name", "similarity_fn_name"):
        expected, actual = (model.config(PROMPTS_CONFIG).get(field) for model in (base, other))
        # None stands for the default similarity, which some versions of sentence-transformers do not write.
        if expected != actual and (None not in (expected, actual) or field == "default_prompt_name"):
            faults.append(f"its {field} is {actual!r}, expected {expected!r}")
    return faults


def tokenizer_differences(base: ModelFolder, other: ModelFolder) -> list[str]:
    """Differences in how a text becomes token numbers; padding and truncation are ignored."""
    shared = [
        name for name in TOKENIZER_FILES if (base.path / name).is_file() and (other.path / name).is_file()
    ]
    for name in shared:
        mine, theirs = base.path / name, other.path / name
        if filecmp.cmp(mine, theirs, shallow=False):
            continue
        if name != "tokenizer.json":
            return [f"its tokenizer differs ({name})"]
        expected, actual = _tokenizer(mine), _tokenizer(theirs)
        parts = [part for part in expected if expected[part] != actual[part]]
        return [f"its tokenizer differs ({name}: {', '.join(parts)})"] if parts else []
    return []


def _tokenizer(file: Path) -> dict[str, Any]:
    data = read_json(file)
    try:
        model = data.get("model") or {}
        merges = [
            " ".join(merge) if isinstance(merge, list) else merge for merge in model.get("merges") or []
        ]
        return {
            "vocabulary": model.get("vocab"),
            "merges": merges,
            "added tokens": {token["content"]: token["id"] for token in data.get("added_tokens") or []},
            "normalizer": json.dumps(data.get("normalizer"), sort_keys=True),
            "pre-tokenizer": json.dumps(data.get("pre_tokenizer"), sort_keys=True),
        }
    except (AttributeError, KeyError, TypeError):
        raise SelfposError(
            f"{file} was not written by the library tokenizers; copy it from the original model"
        ) from None
