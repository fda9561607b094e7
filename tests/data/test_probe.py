from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpos.data.probe import hold_out, read_probe, write_probe
from selfpos.errors import SelfposError
from selfpos.tasks import get_task


@settings(deadline=None)  # scipy is imported by the first
@given(st.integers(2, 60), st.data(), st.integers(0, 3))
def test_hold_out_is_a_partition_in_order(size: int, data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(0, size - 1))
    training, probe = hold_out(Dataset.from_dict({"n": range(size)}), count, seed)
    kept, held = training["n"][:], probe["n"][:]
    assert len(held) == count and sorted(kept + held) == list(range(size))
    assert kept == sorted(kept) and held == sorted(held)
    assert hold_out(Dataset.from_dict({"n": range(size)}), count, seed)[1]["n"][:] == held


def test_hold_out_leaves_something_to_train_on() -> None:
    with pytest.raises(SelfposError, match="a probe of 3 records leaves nothing of 3 to train on"):
        hold_out(Dataset.from_dict({"n": [1, 2, 3]}), 3, 0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=12, max_size=80),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_no_text_of_the_probe_is_trained_on(pairs: list[tuple[int, int]], count: int, seed: int) -> None:
    records = Dataset.from_dict(
        {
            "sentence1": [f"a{a}" for a, _ in pairs],
            "sentence2": [f"b{b}" for _, b in pairs],
            "label": [0] * len(pairs),
        }
    )
    try:
        training, probe = hold_out(records, count, seed)
    except SelfposError as error:
        assert "shares a text with a probe" in str(error)
        return
    assert len(probe) == count and len(training) > 0
    for column in ("sentence1", "sentence2"):
        assert set(training[column][:]).isdisjoint(probe[column][:])


def test_records_that_share_texts_are_held_out_together_where_they_fit() -> None:
    """Two records to a query: nothing is lost, and both of a query's records are on the same side. Shared
    negatives and labels tie nothing.
    """
    queries = [f"q{row // 2}" for row in range(100)]
    records = Dataset.from_dict(
        {
            "anchor": queries,
            "positive": [f"p{row}" for row in range(100)],
            "negative": ["n"] * 100,
            "label": ["x"] * 100,
        }
    )
    training, probe = hold_out(records, 20, 0)
    assert len(probe) == 20 and len(training) == 80


@pytest.fixture
def written(tmp_path: Path) -> Path:
    pairs = Dataset.from_dict({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [0.0, 5.0]})
    labelled = Dataset.from_dict({"text": ["k", "l", "m", "n"], "label": ["x", "x", "y", "y"]})
    write_probe(
        tmp_path / "probe",
        {"first": pairs, "second": labelled},
        {"first": get_task("sts"), "second": get_task("classification")},
    )
    return tmp_path / "probe"


def test_a_probe_set_comes_back_prepared_for_the_loss(written: Path) -> None:
    probe = read_probe(written)
    assert list(probe) == ["first", "second"]
    assert (probe["first"].name, probe["first"].type.name) == ("first", "sts")
    assert probe["first"].dataset["score"][:] == [0, 1]
    assert probe["second"].records["label"][:] == ["x", "x", "y", "y"]
    assert probe["second"].dataset["label"][:] == [0, 0, 1, 1]
    assert {path.name for path in written.iterdir()} == {"probe.jsonl", "selfpos.json"}


def test_a_file_alone_is_read_too(written: Path, tmp_path: Path) -> None:
    (written / "probe.jsonl").rename(tmp_path / "mine.jsonl")
    assert list(read_probe(tmp_path / "mine.jsonl")) == ["first", "second"]


def test_nothing_is_overwritten_and_changes_are_noticed(written: Path, tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match="exists"):
        write_probe(written, {}, {})
    file = written / "probe.jsonl"
    file.write_text(file.read_text().replace('"a"', '"z"'))
    with pytest.raises(SelfposError, match="SHA-256 differs"):
        read_probe(written)
    lines = [{"task": "a", "type": "sts", "record": {}}, {"task": "a", "type": "retrieval", "record": {}}]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SelfposError, match="task a is of type retrieval here and of type sts before"):
        read_probe(tmp_path / "two.jsonl")
    (tmp_path / "plain.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(SelfposError, match="expected the fields task, type and record, found text"):
        read_probe(tmp_path / "plain.jsonl")
    (tmp_path / "text.jsonl").write_text('{"task": "a", "type": "sts", "record": "x"}\n')
    with pytest.raises(SelfposError, match="record 1: the field record must hold an object, found 'x'"):
        read_probe(tmp_path / "text.jsonl")
    (tmp_path / "number.jsonl").write_text('{"task": 5, "type": "retrieval", "record": {"query": "a"}}\n')
    with pytest.raises(SelfposError, match="record 1: task and type are names, found 5"):
        read_probe(tmp_path / "number.jsonl")
    mixed = [{"task": "a", "type": "retrieval", "record": {"query": query}} for query in ("text", 5)]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in mixed))
    with pytest.raises(SelfposError, match="records of task a do not fit into one table"):
        read_probe(tmp_path / "mixed.jsonl")
    with pytest.raises(SelfposError, match="there is no data file"):
        read_probe(tmp_path / "nothing")
