"""Tokenizers are compared by the token numbers they give, not by how they are written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from selfpos.vectors.tokenizers import tokenizer_difference, vocabulary

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
PIECES = [
    *SPECIAL,
    "▁",
    *(f"▁{chr(97 + i)}" for i in range(26)),
    *(chr(97 + i) for i in range(26)),
    "▁the",
    "<mask>",
]
OLD_METASPACE = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
LEFT = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Left"}
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"


def sentencepiece() -> dict[str, Any]:
    """XLM-R's as on the Hub since 2020."""
    template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made = Tokenizer(models.Unigram([(piece, -float(i % 7)) for i, piece in enumerate(PIECES)], 3, False))
    made.post_processor = template
    made.add_special_tokens([*SPECIAL, "<mask>"])
    data: dict[str, Any] = json.loads(made.to_str())
    steps = [{"type": "WhitespaceSplit"}, OLD_METASPACE]
    return data | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "decoder": OLD_METASPACE}


def byte_level() -> dict[str, Any]:
    """Qwen's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, "Ġt", "he", "Ġthe"]
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    made.normalizer, made.decoder = normalizers.NFC(), decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    steps = [{"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}, LEVEL]
    data: dict[str, Any] = json.loads(made.to_str())
    return data | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "post_processor": LEVEL}


def with_rare_pair() -> dict[str, Any]:
    """A merge that no usual text needs."""
    data = byte_level()
    vocabulary, merges = data["model"]["vocab"], data["model"]["merges"]
    vocabulary["xq"] = len(vocabulary) + len(data["added_tokens"])
    return changed(data, "model", merges=[*merges, ["x", "q"]])


def word_piece() -> dict[str, Any]:
    """BERT's."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words = [*special, *map(chr, range(97, 123)), *map(chr, range(65, 91))]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(words[:5])
    data: dict[str, Any] = json.loads(made.to_str())
    return data


def letters() -> dict[str, Any]:
    """A vocabulary of small letters, which knows no whole word."""
    words = ["<unk>", *map(chr, range(97, 123))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    data: dict[str, Any] = json.loads(made.to_str())
    return data


def write(folder: Path, data: dict[str, Any], **config: Any) -> Path:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def in_metaspace(data: dict[str, Any], **fields: Any) -> dict[str, Any]:
    new = {"type": "Metaspace", "replacement": "▁", **fields}
    return data | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, new]}}


def in_byte_level(data: dict[str, Any], **fields: Any) -> dict[str, Any]:
    split, level = data["pre_tokenizer"]["pretokenizers"]
    steps = {"type": "Sequence", "pretokenizers": [split, level | fields]}
    return data | {"pre_tokenizer": steps, "post_processor": LEVEL | {"trim_offsets": True}}


def changed(data: dict[str, Any], part: str, **fields: Any) -> dict[str, Any]:
    return data | {part: data[part] | fields}


def with_token(data: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return data | {"added_tokens": [*data["added_tokens"][:-1], data["added_tokens"][-1] | fields]}


Change = Callable[[dict[str, Any]], dict[str, Any]]
SAME: list[tuple[Callable[[], dict[str, Any]], Change]] = [
    (sentencepiece, lambda data: in_metaspace(data, prepend_scheme="always", split=True)),
    (sentencepiece, lambda data: data | {"decoder": None}),
    (byte_level, lambda data: in_byte_level(data, trim_offsets=True)),
    (byte_level, lambda data: changed(data, "model", merges=["Ġ t", "h e", "Ġt he"])),
    (
        word_piece,
        lambda data: (
            data
            | {"truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}}
        ),
    ),
    (word_piece, lambda data: changed(data, "normalizer", strip_accents=True)),
]
OTHERWISE: list[tuple[Callable[[], dict[str, Any]], Change, str]] = [
    (sentencepiece, lambda data: in_metaspace(data, prepend_scheme="never"), "encodes"),
    (sentencepiece, lambda data: data | {"post_processor": None}, "encodes"),
    (byte_level, lambda data: in_byte_level(data, add_prefix_space=True), "encodes"),
    (byte_level, lambda data: data | {"normalizer": None}, "encodes"),
    (byte_level, lambda data: changed(data, "model", merges=["h e"]), "encodes"),
    (with_rare_pair, lambda data: changed(data, "model", merges=data["model"]["merges"][:-1]), "encodes"),
    (byte_level, lambda data: with_token(data, lstrip=True), "encodes"),
    (byte_level, lambda data: with_token(data, rstrip=True), "encodes"),
    (word_piece, lambda data: data | {"truncation": LEFT}, "cuts long texts on the left"),
    (byte_level, lambda data: with_token(data, content="<|im_end|>"), "2 tokens|1 tokens more"),
    (word_piece, lambda data: changed(data, "normalizer", lowercase=False), "encodes"),
    (letters, lambda data: data | {"normalizer": None}, "encodes"),
]


@pytest.mark.parametrize(("make", "change"), SAME)
def test_other_spellings_are_the_same(
    make: Callable[[], dict[str, Any]], change: Change, tmp_path: Path
) -> None:
    mine, theirs = write(tmp_path / "a", make()), write(tmp_path / "b", change(make()))
    assert (mine / "tokenizer.json").read_bytes() != (theirs / "tokenizer.json").read_bytes()
    assert tokenizer_difference(mine, theirs) is None


@pytest.mark.parametrize(("make", "change", "message"), OTHERWISE)
def test_other_token_numbers_are_a_difference(
    make: Callable[[], dict[str, Any]], change: Change, message: str, tmp_path: Path
) -> None:
    mine, theirs = write(tmp_path / "a", make()), write(tmp_path / "b", change(make()))
    found = tokenizer_difference(mine, theirs)
    assert found is not None and any(part in found for part in message.split("|")), found


def test_what_transformers_makes_of_it_counts(tmp_path: Path) -> None:
    """BERT's tokenizer lower-cases as tokenizer_config.json says, whatever tokenizer.json does."""
    data = word_piece()
    known = {"tokenizer_class": "BertTokenizer", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    folders = [write(tmp_path / str(lower), data, do_lower_case=lower, **known) for lower in (True, False)]
    found = tokenizer_difference(*folders)
    assert found is not None and "encodes" in found
    again = write(tmp_path / "again", data, do_lower_case=True, model_max_length=7, **known)
    assert tokenizer_difference(folders[0], again) is None


def test_tokenizers_that_cannot_be_compared_are_a_difference(tmp_path: Path) -> None:
    """What the code of one does is not known, though both have the same tokenizer.json."""
    mine = write(tmp_path / "mine", word_piece())
    code = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    theirs = write(tmp_path / "theirs", word_piece(), **code)
    for one, other in ((mine, theirs), (theirs, mine)):
        assert str(tokenizer_difference(one, other)).startswith("its tokenizer cannot be compared: ")
    assert tokenizer_difference(theirs, theirs) is None


def test_vocabularies_differ_by_tokens_and_numbers(tmp_path: Path) -> None:
    data = word_piece()
    vocabulary_ = dict(data["model"]["vocab"])
    more = write(tmp_path / "more", changed(data, "model", vocab=vocabulary_ | {"##ing": 57}))
    mine = write(tmp_path / "mine", data)
    assert "1 tokens more ('##ing')" in str(tokenizer_difference(mine, more))
    assert "1 tokens fewer ('##ing')" in str(tokenizer_difference(more, mine))
    found = vocabulary(more)
    assert found is not None and found["##ing"] == 57
    assert vocabulary(tmp_path) is None and tokenizer_difference(mine, tmp_path) is None


def test_vocabularies_of_words_are_compared(tmp_path: Path) -> None:
    folders = []
    for name, words in (("a", ["x", "y"]), ("b", ["y", "x"]), ("c", ["x", "y"])):
        (tmp_path / name).mkdir()
        content = json.dumps({"vocab": words, "do_lower_case": False}, indent=len(folders))
        (tmp_path / name / "whitespacetokenizer_config.json").write_text(content)
        folders.append(tmp_path / name)
    assert tokenizer_difference(folders[0], folders[2]) is None
    assert "whitespacetokenizer_config.json" in str(tokenizer_difference(folders[0], folders[1]))
