"""Cards, results and tables of strangers, read for a merge, a push and a comparison: within bounds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from selfpos.data.columnar import label_names
from selfpos.errors import SelfposError
from selfpos.publishing.metadata import MOST_CARD, Licence, card_licence, check_metadata
from selfpos.publishing.plan import plan_push
from selfpos.scores.files import read_result

BLOCKS = {
    "nested": "license: " + "[" * 100_000,
    "aliases of themselves": "license: &a [*a]",
    "digits": "license: " + "9" * 5000,
    "tags": "license: !!python/object/apply:os.system ['true']",
    "no mapping": "[mit]",
}


@pytest.mark.parametrize("name", BLOCKS)
def test_metadata_without_bounds_names_no_licence(name: str, tmp_path: Path) -> None:
    text = f"---\n{BLOCKS[name]}\n---\n# A model\n"
    (tmp_path / "README.md").write_text(text)
    assert card_licence(tmp_path / "README.md") is None
    (fault,) = check_metadata(text)
    assert fault.startswith("the card's metadata is not valid: ") and len(fault) < 1000


@pytest.mark.parametrize("content", ["---\nlicense: mit\n---\n".encode("utf-16"), b"x" * (MOST_CARD + 1)])
def test_a_card_that_is_none_names_no_licence(content: bytes, tiny_base: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_bytes(content)
    assert card_licence(card) is None
    card.write_text("---\nlicense: mit\n---\n")
    assert card_licence(card) == Licence("mit")


def test_a_card_without_end_is_not_sent(tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / "README.md").write_text("x" * (MOST_CARD + 1))
    problems = plan_push(model, "alice/x", licence="mit", keep_card=True).problems
    assert any("which is no card" in problem for problem in problems)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"task_name": ' + "9" * 5000 + "}"])
def test_a_result_without_bounds_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SelfposError, match="is not a result file of MTEB"):
        read_result(tmp_path / "x.json")


@pytest.mark.parametrize(
    "features",
    ["[" * 100_000, '{"info": {"features": [1]}}', '{"info": {"features": {"a": {"names": 5}}}}', "5"],
)
def test_names_of_labels_that_are_none_are_left_out(features: str) -> None:
    assert label_names(pa.schema([("a", pa.int64())], metadata={"huggingface": features})) == {}


def test_names_of_labels_are_read() -> None:
    about = {"info": {"features": {"a": {"_type": "ClassLabel", "names": ["x", "y"]}}}}
    schema = pa.schema([("a", pa.int64())], metadata={"huggingface": json.dumps(about)})
    assert label_names(schema) == {"a": ["x", "y"]}
