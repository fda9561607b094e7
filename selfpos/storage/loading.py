"""A stranger's model before and while its library loads it: its settings are read within bounds, and whatever
the library raises is one sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from json import JSONDecoder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError, on_one_line
from selfpos.storage.documents import read_text
from selfpos.storage.file_kinds import (
    CONFIG,
    PROMPTS_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    TRANSFORMER_CONFIGS,
)
from selfpos.storage.manifest import mapping, read_json
from selfpos.storage.networks import networks

if TYPE_CHECKING:
    from selfpos.storage.model_folder import Module

LAYERS = (
    "num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers",
    "num_encoder_layers", "num_decoder_layers",
)  # fmt: skip
LARGEST = {**dict.fromkeys(LAYERS, 10_000), "max_seq_length": 10_000_000}
LARGEST_OF_TEXTS = {"max_length": 1_000_000, "pad_to_multiple_of": 1_000_000}
"""Setting → the largest that a model has: the libraries would count to any, and pad texts to any length."""
NORMALIZER = re.compile(
    '"' + "".join(rf"(?:{letter}|\\u00{ord(letter):x})" for letter in "normalizer") + r'"\s*:\s*(?=\{)',
    re.IGNORECASE,  # of the digits
)
MOST_GROWTH = 100_000
"""How often the letters that a tokenizer puts in place of one are replaced again, multiplied."""


def check_settings(folder: Path, modules: Iterable[Module]) -> None:
    """Raise SelfposError where a settings file of the model is no JSON object within bounds, its prompts are
    no texts, or it says of layers or tokens what no model has.
    """
    file = folder / PROMPTS_CONFIG
    prompts = mapping(read_json(file, missing_ok=True), "prompts", file)
    if odd := next((name for name, text in prompts.items() if not isinstance(text, str | None)), None):
        raise SelfposError(f"{file} has a prompt {odd!r} that is no text; copy it from the original model")
    for network in networks(folder, modules):
        for name in (CONFIG, *TRANSFORMER_CONFIGS, TOKENIZER_CONFIG):
            file = folder / network.path / name
            largest = LARGEST | (LARGEST_OF_TEXTS if name in TRANSFORMER_CONFIGS else {})
            for setting, value in _settings(read_json(file, missing_ok=True)):
                _check_number(file, setting, value, largest.get(setting))
        _check_growth(folder / network.path / TOKENIZER)


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every setting with its value, also those within others, such as `text_config`."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from _settings(inner)


def _check_number(file: Path, setting: str, value: Any, most: int | None) -> None:
    if setting == "model_max_length" and not isinstance(value, int | float | None):
        raise SelfposError(f"{file} has {setting} {str(value)[:60]!r}; expected a number")
    if most is None or value is None:
        return
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number or not 0 <= value <= most:
        raise SelfposError(
            f"{file} has {setting} {str(value)[:60]!r}; expected an integer from 0 to {most:,}: copy the "
            "file from the original model"
        )


def _check_growth(file: Path) -> None:
    """Raise SelfposError where the tokenizer in `file` first makes texts many times as long, of which several
    replacements together make any length.
    """
    if not file.is_file():
        return
    text = read_text(file)  # as a whole it may take a second to parse
    for place in NORMALIZER.finditer(text):
        try:
            growth = _growth(JSONDecoder().raw_decode(text, place.end())[0])
        except (ValueError, RecursionError):
            continue  # the library cannot read it either
        if growth > MOST_GROWTH:
            raise SelfposError(
                f"{file} replaces letters by texts that together are {growth:,} times as long; expected at "
                f"most {MOST_GROWTH:,} times: copy the file from the original model"
            )


def _growth(normalizer: Any) -> int:
    """How many times as long its replacements may make a text; an expression may fit between letters, too."""
    if isinstance(normalizer, list):
        return math.prod(map(_growth, normalizer))
    if not isinstance(normalizer, dict):
        return 1
    content, pattern = normalizer.get("content"), normalizer.get("pattern")
    within = math.prod(map(_growth, normalizer.values()))
    if not isinstance(content, str):
        return within
    text = pattern.get("String") if isinstance(pattern, dict) else None
    return within * (max(1, len(content)) if text else 1 + len(content))


@contextmanager
def strangers_files(failed: str) -> Iterator[None]:
    """A block in which libraries work with a stranger's files. Raises SelfposError that begins with `failed`
    where they fail: what they raise there has no bounds, and panics of those in Rust are no Exception. Too
    little memory is no fault of the files, and goes through.
    """
    try:
        yield
    except BaseException as error:
        panic = type(error).__module__ == "pyo3_runtime"
        too_little = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if isinstance(error, SelfposError) or too_little or not (isinstance(error, Exception) or panic):
            raise
        reason = f"{type(error).__name__}: {on_one_line(error, 300)}"
        if "trust_remote_code" in str(error):
            reason = (
                "it needs Python code of its own, which is not run here; take a model whose class "
                "sentence-transformers or transformers has"
            )
        raise SelfposError(f"{failed}: {reason}") from None


def loading(folder: Path) -> AbstractContextManager[None]:
    """A block in which the library loads the model in `folder`. Raises SelfposError where it fails."""
    return strangers_files(f"{folder} does not load as a sentence-transformers model")
