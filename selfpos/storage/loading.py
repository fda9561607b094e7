"""A stranger's model before and while its library loads it: its settings are read within bounds, and whatever
the library raises is one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError, on_one_line
from selfpos.storage.file_kinds import CONFIG, PROMPTS_CONFIG, TOKENIZER_CONFIG, TRANSFORMER_CONFIG
from selfpos.storage.manifest import mapping, read_json
from selfpos.storage.networks import networks

if TYPE_CHECKING:
    from selfpos.storage.model_folder import Module

LAYERS = (
    "num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers",
    "num_encoder_layers", "num_decoder_layers",
)  # fmt: skip
LARGEST = {**dict.fromkeys(LAYERS, 10_000), "max_seq_length": 10_000_000}
"""Setting → the largest that a model has: the libraries would count to any."""


def check_settings(folder: Path, modules: Iterable[Module]) -> None:
    """Raise SelfposError where a settings file of the model is no JSON object within bounds, its prompts are
    no texts, or it says of layers or tokens what no model has.
    """
    file = folder / PROMPTS_CONFIG
    prompts = mapping(read_json(file, missing_ok=True), "prompts", file)
    if odd := next((name for name, text in prompts.items() if not isinstance(text, str | None)), None):
        raise SelfposError(f"{file} has a prompt {odd!r} that is no text; copy it from the original model")
    for network in networks(folder, modules):
        for name in (CONFIG, TRANSFORMER_CONFIG, TOKENIZER_CONFIG):
            file = folder / network.path / name
            for setting, value in _settings(read_json(file, missing_ok=True)):
                _check_number(file, setting, value)


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every setting with its value, also those within others, such as `text_config`."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from _settings(inner)


def _check_number(file: Path, setting: str, value: Any) -> None:
    if setting == "model_max_length" and not isinstance(value, int | float | None):
        raise SelfposError(f"{file} has {setting} {str(value)[:60]!r}; expected a number")
    most = LARGEST.get(setting)
    if most is None or value is None:
        return
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number or not 0 <= value <= most:
        raise SelfposError(
            f"{file} has {setting} {str(value)[:60]!r}; expected an integer from 0 to {most:,}: copy the "
            "file from the original model"
        )


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """A block in which the library loads the model in `folder`. Raises SelfposError where it fails: what it
    raises on strangers' files has no bounds. Too little memory is no fault of the model, and goes through.
    """
    import torch

    try:
        yield
    except (SelfposError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {on_one_line(error, 300)}"
        if "trust_remote_code" in str(error):
            reason = (
                "it needs Python code of its own, which is not run here; take a model whose class "
                "sentence-transformers or transformers has"
            )
        raise SelfposError(f"{folder} does not load as a sentence-transformers model: {reason}") from None
