"""A stranger's tokenizer that fails, panics or makes texts of any length, and parts that embed no text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfpos.data.report import describe_data
from selfpos.data.sources import load_task
from selfpos.errors import SelfposError
from selfpos.evaluation.load import load_model
from selfpos.positioning.live import check_live
from selfpos.recipe import TaskSource, TrainingSettings
from selfpos.storage.loading import check_settings, strangers_files
from selfpos.storage.model_folder import open_model, read_modules
from selfpos.tasks import get_task
from selfpos.training.models import load_trainable
from selfpos.vectors.tokenizers import open_tokenizer, tokenizer_difference


def changed(base: Path, folder: Path, name: str, **changes: Any) -> Path:
    """A copy of `base` in `folder` with some settings of a file changed."""
    model = Path(shutil.copytree(base, folder))
    settings = json.loads((model / name).read_text())
    (model / name).write_text(json.dumps(settings | changes))
    return model


def wordpiece(**changes: Any) -> dict[str, Any]:
    kept = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    return kept | {"max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1}} | changes


SPLIT = {"type": "Split", "pattern": {"Regex": "(([a-z]+)+)+!"}, "behavior": "Isolated", "invert": False}
CHARSMAP = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
NOWHERE = {"SpecialToken": {"id": "[NOPE]", "type_id": 0}}
UNKNOWN = {
    "type": "TemplateProcessing",
    "single": [NOWHERE, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {},
}


@pytest.mark.parametrize(
    "change",
    [
        {"model": wordpiece(unk_token="[NOTHING]")},
        {"pre_tokenizer": SPLIT},
        {"normalizer": CHARSMAP},
        {"post_processor": UNKNOWN},
    ],
    ids=["fails", "panics on a text", "panics when read", "panics on any text"],
)
def test_tokenizers_that_fail_are_compared_in_one_sentence(
    change: dict[str, Any], tiny_base: Path, tmp_path: Path
) -> None:
    model = changed(tiny_base, tmp_path / "model", "tokenizer.json", **change)
    other = changed(model, tmp_path / "other", "tokenizer.json", more=1)
    with pytest.raises(SelfposError, match=r"cannot be compared|was not written by the library tokenizers"):
        tokenizer_difference(model, other)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"model": wordpiece(vocab={})}, "fails on a text of sentence1: Exception: WordPiece error"),
        ({"post_processor": UNKNOWN}, "fails on a text of sentence1: PanicException"),
        ({"normalizer": CHARSMAP}, "was not written by the library tokenizers .*: PanicException"),
    ],
    ids=["fails", "panics", "panics when read"],
)
def test_data_that_a_tokenizer_fails_on(
    change: dict[str, Any], refusal: str, tiny_base: Path, tmp_path: Path
) -> None:
    model = changed(tiny_base, tmp_path / "model", "tokenizer.json", **change)
    data = tmp_path / "x.jsonl"
    data.write_text('{"sentence1": "a b", "sentence2": "c", "score": 1}\n' * 2)
    loaded = load_task(TaskSource(type="sts", data=str(data)), seed=0)
    with pytest.raises(SelfposError, match=refusal):
        describe_data(loaded, get_task("sts"), model)


LOADS: list[Callable[[Path], object]] = [
    load_model,
    lambda model: load_trainable(model, TrainingSettings()),
    lambda model: check_live(open_model(model)),
]


@pytest.mark.parametrize("loads", LOADS, ids=["scored", "trained", "searched"])
@pytest.mark.parametrize(
    ("name", "change", "refusal"),
    [
        ("tokenizer.json", {"normalizer": CHARSMAP}, "does not load .*: PanicException"),
        ("tokenizer.json", {"model": wordpiece(vocab={"[UNK]": 10**6, "a": 1})}, "fit together.*Index"),
        ("sentence_bert_config.json", {"module_output_name": "x"}, "do not fit together.*KeyError"),
    ],
    ids=["panics", "numbers beyond the table", "parts that do not meet"],
)
def test_a_model_that_embeds_no_text_is_refused_before_the_work(
    name: str,
    change: dict[str, Any],
    refusal: str,
    loads: Callable[[Path], object],
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(SelfposError, match=refusal):
        loads(changed(tiny_base, tmp_path / "model", name, **change))


REPLACED = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
BETWEEN = {"type": "Replace", "pattern": {"Regex": ""}, "content": "a"}


@pytest.mark.parametrize("replaced", [[REPLACED] * 4, [BETWEEN] * 40, [{"x": [REPLACED, [REPLACED]]}]])
@pytest.mark.parametrize("key", ["normalizer", "\\u006eormalize\\u0072"])
def test_a_tokenizer_may_not_multiply_letters_without_end(
    replaced: list[Any], key: str, tiny_base: Path, tmp_path: Path
) -> None:
    model = changed(tiny_base, tmp_path / "model", "tokenizer.json", normalizer=None)
    text = (model / "tokenizer.json").read_text()
    sequence = json.dumps({"type": "Sequence", "normalizers": replaced})
    (model / "tokenizer.json").write_text(text.replace('"normalizer": null', f'"{key}" : {sequence}'))
    with pytest.raises(SelfposError, match=r"tokenizer\.json replaces letters by texts that together are"):
        check_settings(model, read_modules(model))


def test_replacements_of_tokenizers_that_are_used_are_read(tiny_base: Path, tmp_path: Path) -> None:
    few = [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}] * 50
    few += [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}] * 10
    normalizer = {"type": "Sequence", "normalizers": few}
    model = changed(tiny_base, tmp_path / "model", "tokenizer.json", normalizer=normalizer)
    check_settings(model, read_modules(model))
    assert open_tokenizer(model / "tokenizer.json")


def test_an_interrupt_is_no_failure_of_a_library() -> None:
    with pytest.raises(KeyboardInterrupt), strangers_files("it fails"):
        raise KeyboardInterrupt
