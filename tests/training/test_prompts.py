"""Prompts of a training, and lengths: asked for, trained with, kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from selfpos.errors import SelfposError
from selfpos.storage.manifest import read_manifest
from selfpos.tasks import get_task
from selfpos.tasks.task import column_prompts, kept_prompts
from selfpos.training import train
from tests.helpers.trainings import FAST, records, run, with_


def test_prompts_go_by_side_and_are_kept_where_mteb_looks() -> None:
    retrieval, sts = get_task("retrieval"), get_task("sts")
    sides = {"query": "Q: ", "document": "D: "}
    columns = ["anchor", "positive", "negative", "negative_2"]
    assert column_prompts(retrieval, sides, columns) == {"anchor": "Q: "} | dict.fromkeys(columns[1:], "D: ")
    assert column_prompts(sts, "S: ", ["sentence1", "sentence2", "score"]) == {
        "sentence1": "S: ",
        "sentence2": "S: ",
    }
    kept = kept_prompts({"r": (retrieval, sides), "s": (sts, "S: ")})
    assert kept == {
        "Retrieval-query": "Q: ",
        "query": "Q: ",
        "Retrieval-document": "D: ",
        "document": "D: ",
        "STS": "S: ",
    }
    two = kept_prompts({"r": (retrieval, {"query": "Q: "}), "other": (retrieval, {"query": "O: "})})
    assert two == {"r-query": "Q: ", "other-query": "O: "}
    # a task without a prompt is not to be asked with another's
    one = kept_prompts({"r": (retrieval, ""), "i": (get_task("instruction-retrieval"), {"query": "I: "})})
    assert one == {"InstructionRetrieval-query": "I: "}
    assert kept_prompts({"r": (retrieval, ""), "other": (retrieval, sides)}) == {
        "other-query": "Q: ",
        "other-document": "D: ",
    }
    with pytest.raises(SelfposError, match="sts has no query and no document"):
        column_prompts(sts, sides, ["sentence1"])
    with pytest.raises(SelfposError, match="prompts are for query and document, found passage"):
        column_prompts(retrieval, {"passage": "x"}, columns)


def test_a_length_above_the_models_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SelfposError, match=r"max_length 33 is above the limit of .*, which reads 32 tokens of a"
    ):
        run(tiny_base, tmp_path / "out", "sts", settings=with_(max_length=33))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (("passage=passage: ", "query=query: "), {"query": "query: ", "document": "passage: "}),
        (("Passage=p ",), {"document": "p "}),
        (("corpus=c ",), {"document": "c "}),
        (("Represent this: a=b",), "Represent this: a=b"),
        ((), ""),
    ],
)
def test_prompts_of_the_command_line(given: tuple[str, ...], kept: object) -> None:
    from selfpos.commands.finetune import _prompts

    assert _prompts(given) == kept


@pytest.mark.parametrize("word", ["qury=q: ", "pasage=p: ", "doc=d: ", "title=t"])
def test_a_side_that_is_none_is_refused(word: str) -> None:
    from selfpos.commands.finetune import _prompts

    with pytest.raises(
        SelfposError, match=f"--prompt '{word}' names no side of a task; write query= or document="
    ):
        _prompts((word,))


@pytest.mark.parametrize("several", [False, True])
def test_prompts_are_trained_with_and_loaded_again(several: bool, tiny_base: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    tasks = ("bitext", "classification") if several else ("bitext",)
    run(tiny_base, tmp_path / "without", *tasks)
    run(tiny_base, tmp_path / "with", *tasks, prompts={"bitext": "x y "})
    assert (
        load_file(tmp_path / "with" / "model.safetensors")["encoder.layer.0.output.dense.weight"]
        .ne(load_file(tmp_path / "without" / "model.safetensors")["encoder.layer.0.output.dense.weight"])
        .any()
    )
    # the same texts with the prompt written out give the same weights
    before = {
        column: ["x y " + text for text in texts] for column, texts in records("bitext").to_dict().items()
    }
    data = {task: (get_task(task), records(task)) for task in tasks} | {
        "bitext": (get_task("bitext"), Dataset.from_dict(before))
    }
    train(tiny_base, data, tmp_path / "by-hand", FAST, seed=5, name="x")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("with", "by-hand")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    model = SentenceTransformer(str(tmp_path / "with"), device="cpu")
    assert model.prompts == {"query": "query: ", "document": "", "BitextMining": "x y "}
    assert read_manifest(tmp_path / "with")["tasks"]["bitext"]["prompts"] == {
        "sentence1": "x y ",
        "sentence2": "x y ",
    }


@pytest.mark.slow
def test_specialists_with_prompts_of_their_own_are_merged_and_keep_them(
    tiny_base: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from selfpos.merging import merge

    for task, prompt in (("bitext", "b "), ("sts", "s "), ("summarization", "")):
        run(tiny_base, tmp_path / task, task, prompts={task: prompt})
    merge(
        tiny_base,
        [tmp_path / "bitext", tmp_path / "sts", tmp_path / "summarization"],
        "average",
        tmp_path / "merged",
    )
    prompts = SentenceTransformer(str(tmp_path / "merged"), device="cpu").prompts
    assert prompts == {"query": "query: ", "document": "", "BitextMining": "b ", "STS": "s "}
    # what one specialist asks with is not put before the questions of another that asks without
    run(tiny_base, tmp_path / "asks", "retrieval")
    run(
        tiny_base,
        tmp_path / "instructed",
        "instruction-retrieval",
        prompts={"instruction-retrieval": {"document": "d "}},
    )
    merge(tiny_base, [tmp_path / "asks", tmp_path / "instructed"], "average", tmp_path / "both")
    prompts = SentenceTransformer(str(tmp_path / "both"), device="cpu").prompts
    assert prompts == {"query": "query: ", "document": "", "InstructionRetrieval-document": "d "}
    run(tiny_base, tmp_path / "other", "bitext", prompts={"bitext": "c "})
    with pytest.raises(
        SelfposError, match="has the prompt 'c ' under 'BitextMining', where another model has 'b '"
    ):
        merge(tiny_base, [tmp_path / "bitext", tmp_path / "other"], "average", tmp_path / "none")
