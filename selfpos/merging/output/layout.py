"""The files of the output: which tensors go where, and everything of the base that is not a weight."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import (
    ADAPTER,
    CONFIG,
    INDEX,
    MANIFEST,
    MODULES,
    PROMPTS_CONFIG,
    TOKENIZER_CONFIG,
    TRAINING_FILES,
    WEIGHT_ENDINGS,
    WEIGHTS,
    model_files,
)
from selfpos.storage.manifest import mapping, read_json
from selfpos.storage.model_class import PYLATES_DENSE
from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.numbers import STORED, TORCH
from selfpos.vectors.check import prompts_of

# The merge writes the weights, and .md files describe the base as a publication.
NOT_COPIED_ENDINGS = {*WEIGHT_ENDINGS, ".md"}
NAMING_CODE = {CONFIG, TOKENIZER_CONFIG, "processor_config.json", "preprocessor_config.json"}
NOT_COPIED = {MANIFEST, INDEX, ADAPTER, *TRAINING_FILES}


@dataclass(frozen=True)
class OutputFile:
    """One safetensors file: its path below the output folder, and the keys of its tensors by names in it.

    A tensor has several keys where it is opened in parts.
    """

    path: Path
    tensors: dict[str, list[str]]


def output_files(base: ModelFolder, dtypes: Mapping[str, str], shard_size: int) -> list[OutputFile]:
    """The weight files: per module folder, in shards of at most `shard_size` bytes."""
    modules: dict[Path, dict[str, list[str]]] = {}
    for key, entry in base.tensors.items():
        module = entry.file.parent.relative_to(base.path)
        modules.setdefault(module, {}).setdefault(entry.name, []).append(key)
    files = []
    for module, names in modules.items():
        shards: list[dict[str, list[str]]] = [{}]
        size = 0
        for name, keys in names.items():
            nbytes = sum(base.tensors[key].numel * STORED[dtypes[key]].itemsize for key in keys)
            if shards[-1] and size + nbytes > shard_size:
                shards.append({})
                size = 0
            shards[-1][name] = keys
            size += nbytes
        for number, shard in enumerate(shards, start=1):
            file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            files.append(OutputFile(module / file, shard))
    return files


def write_indices(folder: Path, files: list[OutputFile], nbytes: Mapping[str, int]) -> None:
    """Write the index of every module whose weights are in several files, as transformers expects it."""
    for module in {file.path.parent for file in files}:
        shards = [file for file in files if file.path.parent == module]
        if len(shards) > 1:
            weight_map = {name: shard.path.name for shard in shards for name in shard.tensors}
            total = sum(nbytes[key] for shard in shards for keys in shard.tensors.values() for key in keys)
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            write_json(folder / module / INDEX, index)


def write_json(file: Path, data: object) -> None:
    """Write `data` to a JSON file, whose folder is made where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def side_files(base: ModelFolder, *, code: bool) -> list[Path]:
    """Everything that a copy of the model needs besides weights: configs, tokenizer, prompts; relative paths.

    Raises SelfposError when the model brings Python code and `code` does not allow it to be copied, or when
    the code is not there.
    """
    copied = [
        file
        for file in model_files(base.path)
        if file.suffix not in NOT_COPIED_ENDINGS and file.name not in NOT_COPIED
    ]
    named = code_of(base)
    for file, where in named.items():
        if not (base.path / file).is_file():
            known = "" if where == MODULES else ", or take auto_map out where transformers has the class"
            raise SelfposError(
                f"{base.path / where} names Python code of the model, {file}, which is not there; copy the "
                f"file from the original model{known}"
            )
        if not code:
            raise SelfposError(
                f"{base.path / where} names Python code of the model ({file}), which loading it would run; "
                "pass allow_code (--allow-code) to keep it"
            )
    return [file for file in copied if file.suffix != ".py" or code]


def code_of(model: ModelFolder) -> dict[Path, str]:
    """The Python files that the model's configurations name, and which configuration does."""
    files: dict[Path, str] = {}
    for file in model_files(model.path):
        if file.name in NAMING_CODE:
            config = model.config(file.as_posix())
            for references in mapping(config, "auto_map", model.path / file).values():
                for reference in references if isinstance(references, list) else [references]:
                    # OWNER/NAME--file.Class is code of another model
                    if reference and "--" not in str(reference):
                        files[file.parent / f"{str(reference).partition('.')[0]}.py"] = file.as_posix()
    for module in model.modules:
        within_package = Path(module.path, *module.type.split(".")[:-1]).with_suffix(".py")
        beside = Path(*module.type.split(".")[:-1]).with_suffix(".py")
        there = [path for path in (within_package, beside) if (model.path / path).is_file()]
        installed = importlib.util.find_spec(module.type.partition(".")[0]) is not None
        if there or not (installed or module.type == PYLATES_DENSE):
            files[there[0] if there else beside] = MODULES
    return files


def gather_prompts(base: ModelFolder, sources: Sequence[ModelFolder]) -> dict[str, str]:
    """The prompts that models trained from `base` have and it has not, by name.

    `query` and `document`, for any question and document, only where all models trained to ask have the same.
    Raises SelfposError where two models have different prompts of another name.
    """
    from selfpos.tasks.task import SIDES

    base_prompts, gathered = prompts_of(base), dict[str, str]()
    prompts = {source.path: prompts_of(source) for source in sources}
    asking = {source.path for source in sources if _asks(source)}
    for side in SIDES:
        texts = {texts.get(side) for path, texts in prompts.items() if side in texts or path in asking}
        if len(texts) > 1:
            for path in prompts:
                prompts[path].pop(side, None)
    for path, named in prompts.items():
        for name, text in named.items():
            if not base_prompts.get(name) and gathered.setdefault(name, text) != text:
                raise SelfposError(
                    f"{path} has the prompt {text!r} under '{name}', where another model has "
                    f"{gathered[name]!r}: the merged model can have one; train both with the same prompt, or "
                    f"remove it from the {PROMPTS_CONFIG} of one"
                )
    return gathered


def _asks(source: ModelFolder) -> bool:
    """Whether a model's manifest says that it was trained on a task that has questions."""
    from selfpos.tasks import TASKS

    types = [str(task.get("type")) for task in source.manifest.get("tasks", {}).values()]
    return any(TASKS[name].asks for name in types if name in TASKS)


def add_prompts(folder: Path, prompts: Mapping[str, str]) -> None:
    """Add `prompts` to those of the model in `folder`."""
    if prompts:
        file = folder / PROMPTS_CONFIG
        config = read_json(file, missing_ok=True)
        write_json(file, config | {"prompts": mapping(config, "prompts", file) | {**prompts}})


def copy_side_files(base: Path, files: list[Path], folder: Path, dtype: str) -> None:
    """Copy `files` from `base` to `folder`; configs that state a number format get `dtype`."""
    for relative in files:
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base / relative, target)
        if relative.name == CONFIG:
            config = read_json(target)
            stated = [name for name in ("dtype", "torch_dtype") if config.get(name)]
            if any(config[name] != TORCH[dtype] for name in stated):
                write_json(target, config | dict.fromkeys(stated, TORCH[dtype]))
