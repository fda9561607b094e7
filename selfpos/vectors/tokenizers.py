"""Tokenizers compared by what they do: which token numbers the same texts become."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from selfpos.storage.file_kinds import TOKENIZER_CONFIG, TOKENIZER_FILES
from selfpos.storage.loading import strangers_files
from selfpos.storage.manifest import mapping, read_json

SAMPLE = (
    "The quick brown fox can't jump 12,345.67 times; it's 3rd-rate: don't!",
    "  two  spaces, a\ttab\nand lines\r\n\n ",
    "ÀÉÎõü straße Ǆ ﬁne ｆｕｌｌ e\u0301 Å ½ ² ™ … – “quotes” ‘so’",
    "МОСКВА не сразу строилась. Київ, Αθήνα και Θεσσαλονίκη",
    "北京欢迎你，東京タワーへ行きます。서울에서 만나요",
    "مرحبا بالعالم ١٢٣ שלום עולם हिन्दी में लिखिए ภาษาไทยไม่เว้นวรรค",
    "বাংলা தமிழ் ქართული Հայերեն አማርኛ ខ្មែរ မြန်မာ",
    "emoji 👩\u200d👩\u200d👧 🇺🇦 ❤️ zero\u200bwidth nbsp\u00a0here \ufeffmark",
    'def f(x_1): return {"a": [x**2, 0xFF]}  # https://example.org/a?b=c&d=%20',
    "<s> </s> [CLS] [SEP] [MASK] <mask> <pad> <|endoftext|> <unk> ▁ Ġ ##ing",
    "Donaudampfschifffahrtsgesellschaftskapitän pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 150,
    "CamelCase snake_case ALLCAPS mIxEd 2024-11-30T12:00 1e-5 +49 (0)30 $1.50 €2",
    "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",  # a small vocabulary may have no word above
    "",
    " ",
)
"""Texts of many scripts, with what tokenizers are known to treat differently. All tokens are tried too."""
ENCODING_FIELDS = (
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "add_bos_token"),
    *("add_eos_token", "legacy", "tokenizer_class", "split_special_tokens"),
    *(f"{role}_token" for role in ("bos", "eos", "cls", "sep", "unk", "mask")),
)
"""Fields of tokenizer_config.json by which transformers may encode otherwise than tokenizer.json says."""
WORD_TOKENIZERS = ("whitespacetokenizer_config.json", "phrasetokenizer_config.json")
"""Files of the tokenizers that sentence-transformers has for tables of words."""
WORDS, BATCH = 32, 1024
"""How many tokens make a text, and how many texts are encoded at a time."""
Encode = Callable[[list[str]], list[list[int]]]


Markers = tuple[Sequence[str], Sequence[str]]
"""Of two tokenizers, the tokens that are read whole once the model is loaded."""


def tokenizer_difference(mine: Path, theirs: Path, markers: Markers = ((), ())) -> str | None:
    """How the tokenizer in folder `theirs` differs from that in `mine`, in words; None where it does not.

    Padding and the length of truncation are ignored, and so is how a tokenizer is written down. A folder
    without a tokenizer has no difference.
    """
    alike = (mine / "tokenizer.json").is_file() and markers[0] == markers[1]
    if alike and all(_equal(mine / name, theirs / name) for name in ("tokenizer.json", TOKENIZER_CONFIG)):
        return None
    sides = [_truncation_side(folder) for folder in (mine, theirs)]
    with strangers_files(f"the tokenizers of {mine} and {theirs} cannot be compared, for one of them fails"):
        difference = _encoding_difference(mine, theirs, markers)
    return difference or (
        None
        if None in sides or sides[0] == sides[1]
        else f"its tokenizer cuts long texts on the {sides[1]}, expected on the {sides[0]}"
    )


def _equal(first: Path, second: Path) -> bool:
    """Whether two files have the same bytes, or neither is there."""
    if not (first.is_file() and second.is_file()):
        return first.is_file() == second.is_file()
    return filecmp.cmp(first, second, shallow=False)


def _truncation_side(folder: Path) -> str | None:
    """The side of a long text that is cut off; None without a tokenizer."""
    file = folder / "tokenizer.json"
    stated = read_json(folder / TOKENIZER_CONFIG, missing_ok=True).get("truncation_side")
    if stated or not file.is_file():
        return str(stated) if stated else None
    return str(mapping(read_json(file), "truncation", file).get("direction", "right")).lower()


def _encoding_difference(mine: Path, theirs: Path, markers: Markers) -> str | None:
    """The difference of the token numbers of whole texts."""
    files = [[name for name in TOKENIZER_FILES if (folder / name).is_file()] for folder in (mine, theirs)]
    if not all(files):
        words = [name for name in WORD_TOKENIZERS if (mine / name).is_file() and (theirs / name).is_file()]
        unlike = [name for name in words if read_json(mine / name) != read_json(theirs / name)]
        return f"its tokenizer differs ({unlike[0]})" if unlike else None
    fields = _fields(mine) == _fields(theirs)
    fast = any("tokenizer.json" in side for side in files)  # which is all that is read where it is there
    decisive = {side[0] for side in files} if fast else {*files[0], *files[1]}
    alike = fields and markers[0] == markers[1]
    if alike and all(_equal(mine / name, theirs / name) for name in decisive):
        return None
    if decisive != {"tokenizer.json"}:
        return _by_library(mine, theirs, markers)
    opened = [open_tokenizer(folder / "tokenizer.json") for folder in (mine, theirs)]
    for tokenizer, whole in zip(opened, markers, strict=True):
        _read_whole(tokenizer, whole)
    difference = _compare(*opened)
    if difference is None and fields:
        return None
    library = _by_library(mine, theirs, markers)
    return None if library is None else difference or library


def vocabulary(folder: Path) -> dict[str, int] | None:
    """Token → number, as tokenizer.json in `folder` says; None where there is none."""
    file = folder / "tokenizer.json"
    return dict(open_tokenizer(file).get_vocab(with_added_tokens=True)) if file.is_file() else None


def _fields(folder: Path) -> dict[str, Any]:
    config = read_json(folder / TOKENIZER_CONFIG, missing_ok=True)
    fields = {name: config[name] for name in ENCODING_FIELDS if config.get(name) is not None}
    contents = {name: value.get("content") for name, value in fields.items() if isinstance(value, dict)}
    kind = str(fields.get("tokenizer_class", "")).removesuffix("Fast")
    return fields | contents | {"tokenizer_class": kind}


def open_tokenizer(file: Path) -> Any:
    """The tokenizer of the library tokenizers in `file`, without truncation and padding.

    Raises SelfposError where it is none of that library's, OSError where it may not be read.
    """
    from tokenizers import Tokenizer

    read_json(file)
    with strangers_files(
        f"{file} was not written by the library tokenizers (copy it from the original model)"
    ):
        tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _compare(mine: Any, theirs: Any) -> str | None:
    """The first difference of two tokenizers of the library tokenizers."""

    def encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=True)]

    vocabularies = [tokenizer.get_vocab(with_added_tokens=True) for tokenizer in (mine, theirs)]
    added = {token.content for side in (mine, theirs) for token in side.get_added_tokens_decoder().values()}
    return _first_difference(vocabularies, added, partial(encode, mine), partial(encode, theirs))


def _first_difference(
    vocabularies: Sequence[Mapping[str, int]], added: Iterable[str], mine: Encode, theirs: Encode
) -> str | None:
    """The first difference of two tokenizers, which are given by their vocabularies and what they do."""
    if vocabularies[0] != vocabularies[1]:
        return _vocabulary_difference(*vocabularies)
    around = [text for token in sorted(added) for text in (token, f"a {token}b", f"a{token} b")]
    texts = [*SAMPLE, *around, *_texts_of(vocabularies[0])]
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        for text, ids, other_ids in zip(batch, mine(batch), theirs(batch), strict=True):
            if ids != other_ids:
                return _unlike_numbers(text, ids, other_ids)
    return None


def _unlike_numbers(text: str, ids: list[int], other_ids: list[int]) -> str:
    pairs = enumerate(zip_longest(ids, other_ids))
    first = max(0, next(index for index, (a, b) in pairs if a != b) - 2)
    shown = [some[first : first + 8] for some in (other_ids, ids)]
    where = f" from token {first} on" if first else ""
    return f"its tokenizer encodes {text[:40]!r}{where} as {shown[0]}, expected {shown[1]}"


def _texts_of(vocabulary: Mapping[str, int]) -> Iterator[str]:
    """All tokens as words of texts, and without spaces, where the order of merges or scores decides."""
    from tokenizers.decoders import ByteLevel

    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    if any(token.startswith("Ġ") for token in tokens):  # characters that stand for bytes
        tokens = [ByteLevel().decode([token]) for token in tokens]
    words = [token.replace("▁", " ") for token in tokens]
    for start in range(0, len(words), WORDS):
        yield from (" ".join(words[start : start + WORDS]), "".join(words[start : start + WORDS]))


def _vocabulary_difference(mine: Mapping[str, int], theirs: Mapping[str, int]) -> str:
    moved = sorted(token for token in mine.keys() & theirs.keys() if mine[token] != theirs[token])
    if moved:
        numbers = f"{theirs[moved[0]]}, expected {mine[moved[0]]}"
        return f"its tokenizer differs (vocabulary: {len(moved)} tokens, {moved[0]!r} has number {numbers})"
    more, less = sorted(theirs.keys() - mine.keys()), sorted(mine.keys() - theirs.keys())
    parts = [
        f"{len(tokens)} tokens {side} ({', '.join(map(repr, tokens[:3]))}{', …' if len(tokens) > 3 else ''})"
        for tokens, side in ((more, "more"), (less, "fewer"))
        if tokens
    ]
    return f"its tokenizer differs (vocabulary: {' and '.join(parts)})"


def _read_whole(tokenizer: Any, markers: Iterable[str]) -> None:
    """Make those of `markers` that are tokens special ones, as sentence-transformers does on loading."""
    from tokenizers import AddedToken

    tokens = tokenizer.get_vocab(with_added_tokens=True)
    for marker in markers:
        token = next((text for text in (marker, *marker.split()[:1]) if text in tokens), None)
        if token is not None and tokenizer.encode(token, add_special_tokens=False).tokens != [token]:
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])


def _by_library(mine: Path, theirs: Path, markers: Markers) -> str | None:
    """The difference of the tokenizers as transformers loads them, which may follow other files too."""
    from transformers import AutoTokenizer

    opened = []
    for folder, whole in zip((mine, theirs), markers, strict=True):
        try:
            opened.append(
                AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            )
            if whole and opened[-1].is_fast:
                _read_whole(opened[-1].backend_tokenizer, whole)
        except Exception as error:  # of many kinds, from converters of many formats
            return f"its tokenizer cannot be compared: {folder} does not load as one ({error})"

    def encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
        return list(tokenizer(texts)["input_ids"])

    vocabularies = [tokenizer.get_vocab() for tokenizer in opened]
    added = {token for tokenizer in opened for token in tokenizer.get_added_vocab()}
    return _first_difference(vocabularies, added, *(partial(encode, tokenizer) for tokenizer in opened))
