"""The report on a task's data, and what is told and recorded of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from selfpos.data.report import describe_data, report_lines
from selfpos.data.sources import load_source, load_task
from selfpos.errors import SelfposError
from selfpos.operations import finetune
from selfpos.recipe import TaskSource, TrainingSettings
from selfpos.storage.manifest import read_manifest
from selfpos.tasks import get_task
from tests.helpers.files import write_lines
from tests.helpers.models import make_tiny_model


def test_every_number_of_the_report_counted_by_hand(tiny_base: Path, tmp_path: Path) -> None:
    texts = ["a", "a b", "a b c", "a b c", "  "]  # 3, 4, 5 tokens with the special ones
    labels = ["x", "x", "y", "y", "y"]
    lines = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    file = write_lines(tmp_path / "a.jsonl", [*lines, {"text": "b", "label": None}])
    found = load_source(str(file), get_task("classification"))
    report = describe_data(found, get_task("classification"), tiny_base)
    assert report == {
        "found": 6, "kept": 4, "dropped": {"blank text": 1, "missing value": 1}, "repeated records": 1,
        "texts": {
            "text": {"count": 4, "different": 3, "tokens": {"median": 5, "90 %": 5, "99 %": 5, "longest": 5}}
        },
        "label": {"different": 2, "commonest": {"x": 2, "y": 2}, "rarest": 2},
    }  # fmt: skip
    assert report_lines(report) == [
        "  4 of 6 records; dropped: 1 blank text, 1 missing value; 1 occur before (kept)",
        "  text: 4 texts, 3 different; tokens: median 5, 90 % 5, 99 % 5, longest 5",
        "  label: 2 values, the commonest x 2, y 2; the rarest 2 times",
    ]


def test_lengths_are_those_of_the_tokenizer_itself(tiny_base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    draw = np.random.default_rng(0)
    texts = [
        " ".join("".join(draw.choice(list("abcxyz"), 3)) for _ in range(draw.integers(1, 60)))
        for _ in range(50)
    ]
    file = write_lines(tmp_path / "a.jsonl", [{"query": text, "pos": [text, "b"]} for text in texts])
    found = load_source(str(file), get_task("retrieval"))
    report = describe_data(found, get_task("retrieval"), tiny_base)["texts"]
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_base))
    lengths = [len(ids) for ids in tokenizer(texts, truncation=False)["input_ids"]]
    assert report["anchor"]["tokens"]["longest"] == max(lengths) > 64  # beyond the model's limit
    assert report["anchor"]["tokens"]["90 %"] == np.quantile(lengths, 0.9, method="higher")
    assert report["positive"]["count"] == 100


def test_finetune_tells_the_report_and_keeps_it(tiny_base: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    file = write_lines(
        tmp_path / "a.jsonl",
        [{"anchor": f"a {n}", "positive": f"b {n}"} for n in range(30)] + [{"anchor": " ", "positive": "c"}],
    )
    said: list[str] = []
    source = TaskSource(type="retrieval", data=str(file))
    finetune(
        str(tiny_base),
        source,
        tmp_path / "out",
        TrainingSettings(steps=1, batch_size=4),
        probe=8,
        say=said.append,
    )
    assert "  30 of 31 records; dropped: 1 blank text" in said
    assert read_manifest(tmp_path / "out")["data"]["retrieval"]["dropped"] == {"blank text": 1}


def test_a_tokenizer_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    (base / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "none"}}')
    source = TaskSource(
        type="retrieval", data=str(write_lines(tmp_path / "a.jsonl", [{"anchor": "a", "positive": "b"}]))
    )
    with pytest.raises(SelfposError, match=r"tokenizer\.json was not written by the library tokenizers"):
        describe_data(load_task(source, seed=0), get_task("retrieval"), base)


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_probe_remembers_its_prompts(spoiled: bool, tmp_path: Path) -> None:
    from datasets import Dataset

    from selfpos.data.probe import read_probe, write_probe

    kind = get_task("retrieval")
    records = Dataset.from_dict({"anchor": ["a", "b"], "positive": ["c", "d"]})
    write_probe(
        tmp_path / "probe", {"r": records}, {"r": kind}, {"r": {"query": "Q: "}} if not spoiled else None
    )
    found = read_probe(tmp_path / "probe")["r"].dataset.to_list()
    before = "" if spoiled else "Q: "
    assert found == [{"anchor": f"{before}a", "positive": "c"}, {"anchor": f"{before}b", "positive": "d"}]
    lines = (tmp_path / "probe" / "probe.jsonl").read_text().splitlines()
    assert ("prompts" in json.loads(lines[0])) is not spoiled
