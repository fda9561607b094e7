"""JSON and YAML that others wrote, read within bounds: of size, depth, aliases and digits."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError, on_one_line

if TYPE_CHECKING:
    import yaml

MOST_DEPTH = 100
MOST_DIGITS = 100  # of an integer: tokenizers without a limit record one of 31
MOST_BYTES = 100_000_000  # of a JSON file, as of a safetensors header
MOST_YAML = 1_000_000  # characters, which take seconds to read
HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(file: Path, most: int = MOST_BYTES) -> str:
    """The text of `file`, in UTF-8 with or without a mark. Raises SelfposError where it is not, or longer
    than `most` bytes.
    """
    if (size := file.stat().st_size) > most:
        raise SelfposError(f"{file} has {size:,} bytes; expected at most {most:,}")
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        reason = "it is in UTF-16" if utf16 else f"byte {error.start} is not"
        raise SelfposError(f"{file} is not text in UTF-8 ({reason}); save it as UTF-8") from None


def bounded_integer(digits: str) -> int:
    """The integer that `digits` write. Raises ValueError where there are too many."""
    if len(digits.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits; expected at most {MOST_DIGITS}")
    return int(digits)


def parse_json(
    text: str | bytes, *, strict: bool = True, integer: Callable[[str], Any] = bounded_integer
) -> Any:
    """The JSON value `text`, with its integers read by `integer`.

    Raises ValueError, with what is wrong in words, where it is none or beyond the bounds above, and for a key
    with two values in an object; where it is `strict`, also for a key given twice, and for half a surrogate
    pair in a text.
    """
    text = text if isinstance(text, str) else text.decode("utf-8")
    try:
        value = json.loads(text, parse_int=integer, object_pairs_hook=_unique if strict else _of_one_value)
    except RecursionError:
        raise too_deep() from None
    if text.count("[") + text.count("{") > MOST_DEPTH or (strict and HALF_PAIR.search(text)):
        _check(value, strict)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} is there twice")
    return mapping


def _of_one_value(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        for key, value in pairs:
            if mapping[key] != value:
                raise ValueError(f"the key {key!r} is there twice, with two values")
    return mapping


def too_deep() -> ValueError:
    """The error for a value of more than MOST_DEPTH levels."""
    return ValueError(f"it is nested more than {MOST_DEPTH} deep")


def _check(value: Any, strict: bool) -> None:
    """Raise ValueError where a value is too deep, or, where `strict`, a text has half a surrogate pair."""
    level = [value]
    for _ in range(MOST_DEPTH + 1):
        if not level:
            return
        level = [inner for outer in level for inner in _within(outer, strict)]
    raise too_deep()


def _within(value: Any, strict: bool) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value
    elif strict and isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{value[:40]!r} has half a surrogate pair, which is no character") from None


def parse_yaml(text: str) -> Any:
    """The only YAML document in `text`, None where it is empty. Raises ValueError as parse_json."""
    documents = [value for value, _ in parse_yaml_all(text)]
    if len(documents) > 1:
        raise ValueError(f"it has {len(documents)} documents; expected one")
    return documents[0] if documents else None


def parse_yaml_all(text: str) -> Iterator[tuple[Any, yaml.Node | None]]:
    """The YAML documents in `text`, each with its tree. Raises ValueError as parse_json."""
    import yaml

    from selfpos.storage.bounded_yaml import Bounded

    if len(text) > MOST_YAML:
        raise ValueError(f"it has {len(text):,} characters; expected at most {MOST_YAML:,}")
    try:
        loader = Bounded(text)
        while loader.check_node():
            node = loader.get_node()
            yield loader.construct_document(node), node
    except yaml.YAMLError as error:
        raise ValueError(on_one_line(error, 500)) from None
