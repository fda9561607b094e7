"""Whether a fine-tuned model is the base's own architecture: a list of differences, each one readable."""

from __future__ import annotations

import filecmp
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.model_folder import read_json, read_modules
from selfpos.storage.tensor_file import TensorEntry

# Fields of a config.json that say how a model was made, saved or trained, not what it computes.
PASSING = {
    "_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "architectures", "transformers_version", "dtype", "torch_dtype",
    "use_cache", "gradient_checkpointing", "output_attentions", "output_hidden_states", "return_dict", "initializer_range", "id2label", "label2id",
    "num_labels", "problem_type", "finetuning_task", "task_specific_params", "auto_map", "attention_probs_dropout_prob", "hidden_dropout_prob",
    "dropout", "attention_dropout", "classifier_dropout", "embd_pdrop", "dropout_rate", "torchscript", "tie_word_embeddings",
}  # fmt: skip
MODES = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "mean_sqrt_len_tokens": "mean_sqrt_len", "weightedmean_tokens": "weightedmean",
         "lasttoken": "lasttoken"}  # fmt: skip


TOKEN_TABLE = re.compile(
    r"word_embeddings|embed_tokens|tok_embeddings|(^|[./])(wte|shared|embedding)\.weight"
)


def is_token_table(key: str) -> bool:
    """Whether a tensor has one row per token of the vocabulary, by its name."""
    return TOKEN_TABLE.search(key) is not None


def tensor_differences(base: Mapping[str, TensorEntry], other: Mapping[str, TensorEntry]) -> list[str]:
    """Tensors of floats that one has and the other has not, or that differ in shape."""
    faults = []
    mine, theirs = ({key for key, entry in side.items() if entry.mergeable} for side in (base, other))
    if missing := sorted(mine - theirs):
        faults.append(f"it lacks {_some(missing, 'tensor')}")
    if extra := sorted(theirs - mine):
        faults.append(f"it has {_some(extra, 'tensor')} that the base has not")
    faults += [
        f"tensor {key} has shape {list(other[key].shape)}, expected {list(base[key].shape)}"
        for key in sorted(mine & theirs)
        if base[key].shape != other[key].shape
    ]
    return faults


def config_differences(base: Path, other: Path) -> list[str]:
    """Differences of modules, model configs, pooling, prompts, similarity and tokenizer between two sentence-transformers folders."""
    mine, theirs = read_modules(base), read_modules(other)
    kinds = [[module.kind for module in modules] for modules in (mine, theirs)]
    if kinds[0] != kinds[1]:
        return [f"its modules are {' + '.join(kinds[1])}, expected {' + '.join(kinds[0])}"]
    faults = []
    for module, counterpart in zip(mine, theirs, strict=True):
        ours, found = (
            _mapping(base / module.path / "config.json"),
            _mapping(other / counterpart.path / "config.json"),
        )
        if module.kind == "Pooling":
            ours, found = {"pooling": pooling_mode(ours)}, {"pooling": pooling_mode(found)}
        place = "" if module.kind == "Pooling" else f"{module.kind} "
        faults += [
            f"its {place}{field} is {found[field]!r}, expected {ours[field]!r}"
            for field in sorted((ours.keys() & found.keys()) - PASSING)
            if ours[field] != found[field]
        ]
    return faults + _prompt_differences(base, other) + tokenizer_differences(base, other)


def pooling_mode(config: dict[str, Any]) -> str:
    """The pooling modes of a Pooling config, in the older form (one flag per mode) or the newer (`pooling_mode`)."""
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        return mode if isinstance(mode, str) else "+".join(sorted(mode))
    return "+".join(sorted(short for flag, short in MODES.items() if config.get(f"pooling_mode_{flag}")))


TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model",
)  # fmt: skip


def tokenizer_differences(base: Path, other: Path) -> list[str]:
    """Differences of what turns a text into token numbers. How a tokenizer pads or truncates by default is left aside: training changes it."""
    for name in TOKENIZER_FILES:
        mine, theirs = base / name, other / name
        if not (mine.is_file() and theirs.is_file()) or filecmp.cmp(mine, theirs, shallow=False):
            continue
        if name != "tokenizer.json":
            return [f"its tokenizer differs ({name})"]
        ours, found = _tokenizer(mine), _tokenizer(theirs)
        if parts := [part for part in ours if ours[part] != found[part]]:
            return [f"its tokenizer differs ({name}: {', '.join(parts)})"]
        return []
    return []


def _tokenizer(file: Path) -> dict[str, Any]:
    data = _mapping(file)
    try:
        model = data.get("model") or {}
        vocabulary = model.get("vocab")
        merges = [
            " ".join(merge) if isinstance(merge, list) else merge for merge in model.get("merges") or []
        ]
        added = {token["content"]: token["id"] for token in data.get("added_tokens") or []}
    except (AttributeError, KeyError, TypeError):
        raise SelfposError(
            f"{file} is no tokenizer as the library tokenizers writes it; copy it from the original model"
        ) from None
    return {
        "vocabulary": vocabulary,
        "merges": merges,
        "added tokens": added,
        "normalizer": _plain(data.get("normalizer")),
        "pre-tokenizer": _plain(data.get("pre_tokenizer")),
    }


def _plain(part: Any) -> str:
    return json.dumps(part, sort_keys=True)


def _prompt_differences(base: Path, other: Path) -> list[str]:
    mine, theirs = (_mapping(folder / "config_sentence_transformers.json") for folder in (base, other))
    faults = []
    prompts = [
        {key: text for key, text in (config.get("prompts") or {}).items() if text}
        for config in (mine, theirs)
    ]
    # What a specialist has besides is its own task's prompt, which the base does not know.
    if any(prompts[1].get(key) != text for key, text in prompts[0].items()):
        faults.append(f"its prompts are {prompts[1]}, expected {prompts[0]}")
    for field in ("default_prompt_name", "similarity_fn_name"):
        # None stands for the default, which one version of sentence-transformers writes out and another leaves away.
        values = [config.get(field) for config in (mine, theirs)]
        if values[0] != values[1] and (None not in values or field == "default_prompt_name"):
            faults.append(f"its {field} is {values[1]!r}, expected {values[0]!r}")
    return faults


def _mapping(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; empty where it holds another kind of thing, or is not there."""
    data = read_json(file) if file.is_file() else {}
    return data if isinstance(data, dict) else {}


def _some(names: list[str], word: str) -> str:
    shown = ", ".join(names[:3])
    return (
        f"{word} {shown}"
        if len(names) == 1
        else f"{len(names)} {word}s ({shown}{', …' if len(names) > 3 else ''})"
    )
