"""Folders with a tokenizer, and without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import ByT5Tokenizer, CanineTokenizer

from selfpos.errors import SelfposError
from selfpos.storage.model_folder import check_tokenizer, has_tokenizer


def test_a_vocabulary_is_a_tokenizer(tiny_base: Path, tmp_path: Path) -> None:
    assert has_tokenizer(tiny_base)
    assert not has_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    assert not has_tokenizer(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").touch()
    assert has_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", [ByT5Tokenizer, CanineTokenizer])
def test_tokenizers_of_bytes_need_no_vocabulary(kind: type, tmp_path: Path) -> None:
    kind().save_pretrained(tmp_path)
    assert has_tokenizer(tmp_path)


def test_a_configuration_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(SelfposError, match=r"tokenizer_config\.json"):
        has_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (["tokenizer.json", "vocab.txt"], "has no tokenizer"),
        (["config.json"], "has no config.json"),
        ([], None),
    ],
)
def test_a_model_needs_its_configuration_and_a_tokenizer(
    gone: list[str], message: str | None, tiny_base: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base, tmp_path / "model")
    for name in gone:
        (tmp_path / "model" / name).unlink(missing_ok=True)
    if message is None:
        check_tokenizer(tmp_path / "model")
        return
    with pytest.raises(SelfposError, match=message):
        check_tokenizer(tmp_path / "model")
