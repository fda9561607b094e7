"""The base model made ready to be trained, and the trained model as a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from selfpos.devices import check_device
from selfpos.errors import SelfposError, on_one_line
from selfpos.recipe import TaskSource, TrainingSettings
from selfpos.storage.file_kinds import (
    ADAPTER,
    CONFIG,
    PROMPTS_CONFIG,
    TOKENIZER_CONFIG,
    TRANSFORMER_CONFIG,
    TRANSFORMER_CONFIGS,
)
from selfpos.storage.inside import refuse_links_out
from selfpos.storage.loading import check_settings, loading
from selfpos.storage.manifest import mapping, read_json
from selfpos.storage.model_class import (
    EMBEDDER,
    MULTI_VECTOR,
    RERANKER,
    SPARSE,
    check_embeds,
    check_one_output,
    check_works,
    class_of,
)
from selfpos.storage.model_folder import check_tokenizer, open_model, read_modules, refuse_pickles
from selfpos.storage.networks import TRANSFORMERS, networks
from selfpos.tasks.task import SIDES, Prompts
from selfpos.vectors.check import side_prompt

Precision = Literal["float32", "bf16", "fp16"]

MODEL_TYPES = {
    "sentence-transformer": EMBEDDER,
    "cross-encoder": RERANKER,
    "sparse-encoder": SPARSE,
    "multi-vector-encoder": MULTI_VECTOR,
}
"""What users call the classes that are trained here."""
HEADS = {
    RERANKER: "the head of a cross-encoder, which all specialists share: make it one with "
    "CrossEncoder(FOLDER, num_labels=1).save_pretrained(OTHER), and give that as the base",
    SPARSE: "a SPLADE head: give a base that SparseEncoder made of a masked language model, with "
    "SparseEncoder(FOLDER).save_pretrained(OTHER)",
    MULTI_VECTOR: "the projection of a multi-vector encoder, which all specialists share: make it one with "
    "MultiVectorEncoder(FOLDER).save_pretrained(OTHER), and give that as the base",
}
"""Class → what a base of another class lacks, and how it is made."""
NEEDED = {
    SPARSE: (
        "SpladePooling",
        "of sparse encoders only SPLADE (a masked language model and SpladePooling, for questions and texts "
        "alike) is trained",
    ),
    MULTI_VECTOR: (
        "MultiVectorMask",
        "it is in an older layout, which its specialists would not have: save it in today's with "
        "MultiVectorEncoder(FOLDER).save_pretrained(OTHER), and give that as the base",
    ),
}
"""Class → the module without which a base of it is not trained, and why."""
FOR_EMBEDDINGS = {"cached", "matryoshka", "sts_loss", "sts_positive"}
LEARNING = {
    RERANKER: ("a cross-encoder learns by binary cross-entropy", FOR_EMBEDDINGS | {"temperature"}),
    SPARSE: ("a sparse encoder learns by the SPLADE loss", FOR_EMBEDDINGS),
    MULTI_VECTOR: ("a multi-vector encoder learns by InfoNCE of MaxSim", FOR_EMBEDDINGS),
}
"""Class → how it learns, and the settings that mean nothing to that."""
#: files of slow tokenizers, which the library leaves out when it saves a fast one
SLOW_TOKENIZER_FILES = {
    "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
}  # fmt: skip


def check_trainable(base: Path, max_length: int | None = None, kind: str = EMBEDDER) -> None:
    """Raise SelfposError unless `base` is a folder of a whole model of the class `kind` and tokenizer, which
    reads texts of `max_length` tokens.
    """
    if (base / ADAPTER).is_file():
        raise SelfposError(
            f"{base} holds a PEFT adapter, which is no base by itself; "
            "train from the model that it was added to"
        )
    refuse_links_out(base)
    if kind == EMBEDDER:
        check_embeds(base)
    elif class_of(base) != kind:
        raise SelfposError(f"{base} is a {class_of(base)} without {HEADS[kind]}")
    modules = read_modules(base, plain=kind != EMBEDDER)
    kinds = [module.kind for module in modules]
    if kind in NEEDED and NEEDED[kind][0] not in kinds:
        raise SelfposError(f"{base} is a {kind} of {', '.join(kinds)}; {NEEDED[kind][1]}")
    check_tokenizer(base, modules)
    check_settings(base, modules)
    refuse_pickles(base)
    paths = [base / module.path for module in networks(base, modules) if module.kind in TRANSFORMERS]
    limit = token_limit(paths[0]) if paths else None
    if max_length is not None and limit is not None and max_length > limit:
        raise SelfposError(
            f"max_length {max_length} is above the limit of {base}, which reads {limit} tokens of a text; "
            f"give at most {limit}, or raise max_seq_length in its {TRANSFORMER_CONFIG} as far as "
            "its network allows"
        )


def wanted_class(base: Path, model_type: str | None) -> str:
    """The class that a training from `base` is of: by `model_type`, of MODEL_TYPES, else the base's own.

    Raises SelfposError where the two contradict each other.
    """
    base_class = class_of(base)
    wanted = MODEL_TYPES[model_type] if model_type else base_class
    if base_class not in (wanted, EMBEDDER):
        raise SelfposError(
            f"{base} is a {base_class}, not the {model_type} that --model-type asks for; omit the option, or "
            "give another base"
        )
    return wanted


def refuse_for(kind: str, source: TaskSource, settings: TrainingSettings) -> None:
    """Raise SelfposError for settings that mean nothing to models of the class `kind`."""
    if kind == EMBEDDER:
        return
    how, meaningless = LEARNING[kind]
    if source.prompts and kind == RERANKER:
        raise SelfposError(
            "a cross-encoder is trained without prompts of its tasks, for it is used with its base's default "
            "prompt at most; write the instruction into the questions of the data"
        )
    if source.mine is not None:
        raise SelfposError(
            f"a {kind} mines no negatives, for a SentenceTransformer's embeddings find them; give data that "
            "has them"
        )
    for name in settings.model_fields_set & meaningless:
        if getattr(settings, name) != TrainingSettings.model_fields[name].get_default(
            call_default_factory=True
        ):
            raise SelfposError(f"{name} is for losses of embeddings; {how}: omit it")


def settings_for(kind: str, settings: TrainingSettings) -> TrainingSettings:
    """`settings` with a temperature of 1 for sparse and multi-vector encoders, whose similarities are sums,
    where no other is given.
    """
    if kind not in (SPARSE, MULTI_VECTOR) or "temperature" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"temperature": 1.0})


def prompts_for(kind: str, base: Path, asked: Prompts) -> Prompts:
    """The prompts that a training of a model of the class `kind` sets before its texts: those `asked` for,
    and for sparse and multi-vector encoders else those of `base`, which their `encode_query` and
    `encode_document` set.
    """
    if kind not in (SPARSE, MULTI_VECTOR) or (asked and isinstance(asked, str)):
        return asked
    folder = open_model(base)
    return {side: side_prompt(folder, side) for side in SIDES} | dict(asked or {})


def token_limit(transformer: Path) -> int | None:
    """How many tokens of a text are read: the sentence-transformers limit if set, else the smaller of those
    of tokenizer and network.
    """
    for name in TRANSFORMER_CONFIGS:
        if limit := read_json(transformer / name, missing_ok=True).get("max_seq_length"):
            return int(limit)
    tokenizer = read_json(transformer / TOKENIZER_CONFIG, missing_ok=True).get("model_max_length")
    network = read_json(transformer / CONFIG, missing_ok=True).get("max_position_embeddings")
    # A tokenizer without a limit records a huge number.
    limits = [limit for limit in (tokenizer, network) if isinstance(limit, int | float) and 0 < limit < 10**9]
    return int(min(limits)) if limits else None


def load_trainable(base: Path, settings: TrainingSettings, start: Path | None = None) -> Any:
    """The model at `base` in float32, all of it trainable, or with `settings.lora` only a new adapter; in its
    own class of sentence-transformers.

    With `start`, a model trained from `base` in the same way, training begins at its weights or its adapter.
    """
    import sentence_transformers

    check_device(settings.device)
    if start is not None and settings.lora is None:
        base = start
    with loading(base):  # by an absolute path: an adapter notes it, to find its base from any working folder
        model = getattr(sentence_transformers, class_of(base))(
            str(base.absolute()),
            device=None if settings.device == "auto" else settings.device,
            local_files_only=True,
            model_kwargs={"dtype": "float32"},
        ).float()
    if class_of(base) == RERANKER:
        check_one_output(base, model)
    check_works(base, model)
    if settings.lora is None:
        return model
    if not model.has_peft_compatible_model():
        raise SelfposError(f"{base} has no transformer to add a LoRA adapter to; train without lora")
    from peft import LoraConfig, TaskType

    lora = settings.lora
    # all modules, for the specialist adds its adapter alone
    model.requires_grad_(False)
    try:
        if start is not None:
            model.load_adapter(str(start.absolute()), is_trainable=True)
        else:
            config = LoraConfig(
                task_type=TaskType.FEATURE_EXTRACTION,
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=lora.target_modules,
            )
            model.add_adapter(config)
    except ValueError as error:
        raise SelfposError(
            f"LoRA target_modules {lora.target_modules!r} do not fit {base}: {on_one_line(error, 300)}"
        ) from None
    return model


def choose_precision(requested: str, device: Any) -> Precision:
    """The precision to train in on `device`; `auto` is bf16 on a GPU that computes in it, else float32."""
    import torch

    on_gpu = device.type == "cuda"
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if requested == "float32" or (requested == "auto" and not has_bf16):
        return "float32"
    if not on_gpu:
        raise SelfposError(
            f"precision {requested} needs a GPU, and the model is on {device.type}; use auto or float32"
        )
    if requested == "bf16" and not has_bf16:
        raise SelfposError(
            f"{torch.cuda.get_device_name()} does not compute in bf16; use auto, fp16 or float32"
        )
    return "fp16" if requested == "fp16" else "bf16"


def save_model(model: Any, base: Path, folder: Path, prompts: Mapping[str, str]) -> None:
    """Save `model`, trained from the folder `base`, to `folder`, which differs from it in the weights alone.

    The library's save writes the tokenizer with the truncation of the last batch, and configurations in its
    newest form. Here all files but the weights stay the base's, byte for byte, so that models of one base can
    be compared; `prompts` of the tasks are added to the base's.
    """
    model.prompts = {**model.prompts, **prompts}
    model.save_pretrained(str(folder), create_model_card=False)
    for file in folder.rglob(ADAPTER):
        config = read_json(file)
        if isinstance(config.get("target_modules"), list):
            config["target_modules"].sort()  # a set to PEFT; sorted for equal bytes
        config["inference_mode"] = True
        file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes them readable to their owner only
    saved, before = ([module.path for module in read_modules(root, plain=True)] for root in (folder, base))
    if saved != before:
        return  # the base has an old layout, which the library has just brought up to date
    for file in base.rglob("*"):
        copy = folder / file.relative_to(base)
        weights = file.suffix == ".safetensors" or file.name.endswith(".index.json")
        if not file.is_file() or weights or file.name in ("README.md", "selfpos.json"):
            continue
        tokenizer_file = file.name in SLOW_TOKENIZER_FILES and copy.parent.is_dir()
        if (copy.is_file() or tokenizer_file) and not _says_other_dtype(file):
            shutil.copyfile(file, copy)
    if prompts:
        file = folder / PROMPTS_CONFIG
        config = read_json(file)
        config["prompts"] = {**mapping(config, "prompts", file), **prompts}
        file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _says_other_dtype(file: Path) -> bool:
    """Whether it is a transformer's config.json that would load the float32 weights in another dtype."""
    if file.name != CONFIG:
        return False
    config = read_json(file)
    return config.get("dtype", config.get("torch_dtype")) not in (None, "float32")
