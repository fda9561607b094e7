"""What data is called, by where it comes from."""

from __future__ import annotations

import pytest

from selfpos.data.names import source_name, unique_name


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("sets/mine.jsonl.gz", "mine"),
        ("sets/stsb/train.jsonl", "stsb"),
        ("sets/stsb/val.csv", "stsb"),
        ("train.jsonl", "train"),
        ("my-documents/", "my-documents"),
        ("./notes/.", "notes"),
        ("/home/me@work/тексты.txt", "тексты"),
        (".hidden", ".hidden"),
        ("hub:mteb/banking77", "banking77"),
        ("hub:nyu-mll/glue:mrpc@abc123", "mrpc"),
        ("corpus", "corpus"),
        ("corpus:see-also", "see-also"),
        ("..", "data"),
    ],
)
def test_data_is_called_by_the_last_part_that_is_its_own(data: str, name: str) -> None:
    assert source_name(data) == name


def test_a_name_that_is_taken_gets_the_next_free_number() -> None:
    taken: list[str] = []
    for _ in range(3):
        taken.append(unique_name("mine", taken))
    assert taken == ["mine", "mine-2", "mine-3"]
    assert unique_name("mine", ["mine", "mine-3"]) == "mine-2"
