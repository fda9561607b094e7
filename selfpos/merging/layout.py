"""The files of the output: which tensors go where, and everything of the base that is not a weight."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.storage.manifest import read_manifest
from selfpos.storage.model_folder import INDEX, WEIGHTS, ModelFolder, read_json
from selfpos.storage.numbers import STORED, TORCH
from selfpos.tasks import TASKS
from selfpos.tasks.prompts import SIDES

# Weights in any form, exports to other runtimes, and what describes the base as a publication rather than as a model.
NOT_COPIED = {
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".pkl",
    ".ckpt",
    ".onnx",
    ".onnx_data",
    ".h5",
    ".msgpack",
    ".ot",
    ".gguf",
    ".tflite",
    ".md",
}
NOT_COPIED_NAMES = {
    "selfpos.json",
    INDEX,
    "adapter_config.json",
    "trainer_state.json",
    "data_config.json",
    "train_script.py",
}
CONFIG = "config_sentence_transformers.json"
NOT_COPIED_FOLDERS = ("onnx", "openvino", "eval", "runs", "logs", "checkpoint-", ".")


@dataclass(frozen=True)
class OutputFile:
    """One safetensors file: its place below the output folder, and its tensors' keys by the names they have in it."""

    path: Path
    tensors: dict[str, str]


def output_files(base: ModelFolder, dtypes: Mapping[str, str], shard_size: int) -> list[OutputFile]:
    """The output's weight files: one per module folder, cut into shards of at most `shard_size` bytes (one tensor may exceed it)."""
    modules: dict[str, list[str]] = {}
    for key in base.tensors:
        modules.setdefault(key.removesuffix(base.tensors[key].name), []).append(key)
    files = []
    for prefix, keys in modules.items():
        shards: list[list[str]] = [[]]
        size = 0
        for key in keys:
            nbytes = base.tensors[key].numel * STORED[dtypes[key]].itemsize
            if shards[-1] and size + nbytes > shard_size:
                shards.append([])
                size = 0
            shards[-1].append(key)
            size += nbytes
        for number, shard in enumerate(shards, start=1):
            name = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            files.append(OutputFile(Path(prefix) / name, {base.tensors[key].name: key for key in shard}))
    return files


def write_indices(folder: Path, files: list[OutputFile], nbytes: Mapping[str, int]) -> None:
    """Write the index of every module whose weights are in several files, as transformers expects it."""
    for place in {file.path.parent for file in files}:
        shards = [file for file in files if file.path.parent == place]
        if len(shards) > 1:
            weight_map = {name: shard.path.name for shard in shards for name in shard.tensors}
            total = sum(nbytes[key] for shard in shards for key in shard.tensors.values())
            text = json.dumps(
                {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}, indent=2
            )
            (folder / place / INDEX).write_text(text + "\n", encoding="utf-8")


def side_files(base: Path, *, code: bool) -> list[Path]:
    """Everything of the base that its copy needs besides weights: configs, tokenizer, prompts; relative paths.

    Raises SelfposError when the model brings its own Python code and `code` does not allow it to be carried over.
    """
    found = []
    for file in sorted(base.rglob("*")):
        relative = file.relative_to(base)
        aside = any(
            part.startswith(NOT_COPIED_FOLDERS) for part in relative.parts[:-1]
        ) or relative.name.startswith(".")
        if not file.is_file() or aside or file.suffix in NOT_COPIED or file.name in NOT_COPIED_NAMES:
            continue
        found.append(relative)
        if file.name == "config.json" and not code:
            config = read_json(file)
            if isinstance(config, dict) and config.get("auto_map"):
                raise SelfposError(
                    f"{file} names Python code of the model's own (auto_map), which loading it would run; pass allow_code to keep it"
                )
    return found


def gather_prompts(base: Path, sources: Sequence[Path]) -> dict[str, str]:
    """The prompts that models trained from `base` have and it has not, by name. Those for any question and any document (`query`, `document`) only
    where all models that were trained to ask have the same. Raises SelfposError where two of them differ under another name.
    """
    known, found = _prompts(base), dict[str, str]()
    having = {source: _prompts(source) for source in sources}
    for side in SIDES:
        if (
            len({prompts.get(side) for source, prompts in having.items() if side in prompts or _asks(source)})
            > 1
        ):
            having = {
                source: {name: text for name, text in prompts.items() if name != side}
                for source, prompts in having.items()
            }
    for source, prompts in having.items():
        for name, text in prompts.items():
            if not known.get(name) and found.setdefault(name, text) != text:
                raise SelfposError(
                    f"{source} has the prompt {text!r} under '{name}', where another model has {found[name]!r}: the merged model can have one; "
                    "train both with the same prompt, or remove it from the config_sentence_transformers.json of one"
                )
    return found


def _prompts(folder: Path) -> dict[str, str]:
    file = folder / CONFIG
    config = read_json(file) if file.is_file() else {}
    return (
        {name: text for name, text in (config.get("prompts") or {}).items() if text}
        if isinstance(config, dict)
        else {}
    )


def _asks(folder: Path) -> bool:
    """Whether a model's manifest says that it was trained on a task that has questions."""
    tasks = (read_manifest(folder) or {}).get("tasks")
    kinds = (
        [task.get("type") for task in tasks.values() if isinstance(task, dict)]
        if isinstance(tasks, dict)
        else []
    )
    return any(kind in TASKS and TASKS[kind].asks for kind in kinds if isinstance(kind, str))


def add_prompts(folder: Path, prompts: Mapping[str, str]) -> None:
    """Have the model in `folder` keep `prompts` besides its own."""
    if prompts:
        file = folder / CONFIG
        config = read_json(file) if file.is_file() else {}
        config["prompts"] = {**(config.get("prompts") or {}), **prompts}
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def copy_side_files(base: Path, files: list[Path], folder: Path, dtype: str) -> None:
    """Copy `files` from `base` to `folder`; configs that state the weights' number format get that of the output, safetensors name `dtype`."""
    for relative in files:
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base / relative, target)
        if relative.name == "config.json":
            config = read_json(target)
            stated = [
                field for field in ("dtype", "torch_dtype") if isinstance(config, dict) and config.get(field)
            ]
            if any(config[field] != TORCH[dtype] for field in stated):
                target.write_text(
                    json.dumps(config | dict.fromkeys(stated, TORCH[dtype]), indent=2) + "\n",
                    encoding="utf-8",
                )
