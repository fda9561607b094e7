"""Which prompt a text gets: the model's own, as trained with; else what mteb's list of models has under its
name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from selfpos.evaluation.encoder import describe_encoder, encoding_options, identity, load_encoder

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

E5, INSTRUCTED, OTHER = (
    "intfloat/e5-base-v2",
    "intfloat/multilingual-e5-large-instruct",
    "Qwen/Qwen3-Embedding-0.6B",
)


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    def make(prompts: dict[str, str]) -> Path:
        shutil.copytree(tiny_base, tmp_path / "model")
        file = tmp_path / "model" / "config_sentence_transformers.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "prompts": prompts}))
        return tmp_path / "model"

    return make


def prompts_of(folder: Path, name: str) -> tuple[dict[tuple[str, str], str | None], str]:
    """By task and side, and what is printed."""
    import mteb
    from mteb.types import PromptType

    encoder = load_encoder(folder, identity(folder, name))
    sides: dict[str, Any] = {"query": PromptType.query, "document": PromptType.document, "": None}
    tasks = {"SciFact": ("query", "document"), "STS16": ("",), "Banking77Classification": ("",)}
    found = {
        (task, side): encoding_options(encoder, mteb.get_task(task).metadata, sides[side]).prompt
        for task, asked in tasks.items()
        for side in asked
    }
    return found, dict(describe_encoder(encoder))["prompts"]


def test_prompts_of_training_win(folder: Callable[..., Path]) -> None:
    own = {"STS": "same meaning: ", "Retrieval-query": "find: ", "query": "ask: ", "document": ""}
    found, told = prompts_of(folder(own), E5)
    assert found == {
        ("SciFact", "query"): "find: ",
        ("SciFact", "document"): None,
        ("STS16", ""): "same meaning: ",
        ("Banking77Classification", ""): None,
    }
    assert "STS 'same meaning: '" in told and "list" not in told


def test_a_known_model_without_prompts_gets_those_of_its_authors(folder: Callable[..., Path]) -> None:
    found, told = prompts_of(folder({}), E5)
    assert (found["SciFact", "query"], found["SciFact", "document"]) == ("query: ", "passage: ")
    assert "document 'passage: '" in told and "from mteb's list of models" in told


def test_an_instructed_model_gets_each_tasks_instruction(
    folder: Callable[..., Path], sts_task: Callable[..., AbsTask]
) -> None:
    model = folder({})
    found, told = prompts_of(model, INSTRUCTED)
    assert (
        found["SciFact", "query"]
        == "Instruct: Given a scientific claim, retrieve documents that support or refute the claim\nQuery: "
    )
    assert found["SciFact", "document"] is None
    assert "intent" in str(found["Banking77Classification", ""])
    assert "the instruction of each task" in told
    encoder = load_encoder(model, identity(model, INSTRUCTED))
    own = encoding_options(encoder, sts_task().metadata, None).prompt
    assert (
        own.startswith("Instruct: ") and len(own) > 25
    )  # mteb has no instruction for a task of ours but that of its type


def test_what_is_not_known_is_not_made_up(folder: Callable[..., Path]) -> None:
    model = folder({})
    for name, told in (("somebody/unheard-of", "none"), (OTHER, "none; mteb itself loads this model with")):
        found, printed = prompts_of(model, name)
        assert set(found.values()) == {None} and printed.startswith(told)
