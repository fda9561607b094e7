"""The base model made ready to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfpos.devices import check_device
from selfpos.errors import SelfposError
from selfpos.recipe import TrainingSettings
from selfpos.storage.file_kinds import ADAPTER
from selfpos.storage.model_folder import check_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Precision = Literal["float32", "bf16", "fp16"]


def check_base(base: Path) -> None:
    """Raise SelfposError unless `base` is a sentence-transformers folder of a whole model and tokenizer."""
    if (base / ADAPTER).is_file():
        raise SelfposError(
            f"{base} holds a PEFT adapter, which is no base by itself; "
            "train from the model that it was added to"
        )
    check_tokenizer(base)


def load_trainable(base: Path, settings: TrainingSettings, start: Path | None = None) -> SentenceTransformer:
    """The model at `base` in float32, all of it trainable, or with `settings.lora` only a new adapter.

    With `start`, a model trained from `base` in the same way, training begins at its weights or its adapter.
    Raises SelfposError when the model, its adapter or the device cannot be used.
    """
    from sentence_transformers import SentenceTransformer

    check_device(settings.device)
    if start is not None and settings.lora is None:
        base = start
    try:  # by an absolute path: an adapter notes it, to find its base from any working folder
        model = SentenceTransformer(
            str(base.absolute()),
            device=None if settings.device == "auto" else settings.device,
            local_files_only=True,
            model_kwargs={"dtype": "float32"},
        ).float()
    except (OSError, ValueError, KeyError) as error:
        raise SelfposError(
            f"{base} does not load as a sentence-transformers model: {' '.join(str(error).split())[:300]}"
        ) from None
    if settings.lora is None:
        return model
    if not model.has_peft_compatible_model():
        raise SelfposError(
            f"{base} has no transformer to which a LoRA adapter could be added; train without lora"
        )
    from peft import LoraConfig, TaskType

    lora = settings.lora
    config = LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )
    model.requires_grad_(
        False
    )  # of the modules after the transformer, too: a specialist adds its adapter alone
    try:
        if start is not None:
            model.load_adapter(str(start.absolute()), is_trainable=True)
        else:
            model.add_adapter(config)
    except ValueError as error:
        raise SelfposError(
            f"LoRA target_modules {lora.target_modules!r} do not fit {base}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from None
    return model


def choose_precision(asked: str, device: Any) -> Precision:
    """The precision to train in on `device`; `auto` is bf16 on a GPU that computes in it, else float32."""
    import torch

    on_gpu = device.type == "cuda"
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto":
        return "bf16" if has_bf16 else "float32"
    if asked == "float32":
        return "float32"
    if not on_gpu:
        raise SelfposError(
            f"precision {asked} needs a GPU, and the model is on {device.type}; use auto or float32"
        )
    if asked == "bf16" and not has_bf16:
        raise SelfposError(
            f"{torch.cuda.get_device_name()} does not compute in bf16; use auto, fp16 or float32"
        )
    return "bf16" if asked == "bf16" else "fp16"
