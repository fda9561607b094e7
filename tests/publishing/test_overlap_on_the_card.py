"""What training data shares with test data, as the card says it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selfpos.errors import SelfposError
from selfpos.publishing.card import build_card
from selfpos.publishing.plan import plan_push
from selfpos.storage.hashing import content_hash

OVERLAP = {
    "settings": {"remove": False, "threshold": 0.8},
    "not checked": ["OwnThings"],
    "sources": {
        "retrieval": {
            "records": 90,
            "overlapping": 3,
            "tasks": {
                "STSBenchmark": {"items": 1379, "exact": 2, "near": 1, "texts": 5, "records": 3},
                "OwnDocsRetrieval": {"items": 50, "exact": 0, "near": 0, "texts": 4, "records": 0},
            },
        },
        "of-another": {
            "records": 9,
            "overlapping": 1,
            "tasks": {"Banking77": {"items": 9, "exact": 1, "near": 0, "texts": 1, "records": 1}},
        },
    },
}


def test_overlap_that_was_found_is_a_limitation(run: Path, tmp_path: Path) -> None:
    model = run / "merged" / "sp"
    unknown = "- Its training data was not checked for test items of these tasks."
    assert unknown in build_card(model).text
    (run / "overlap.json").write_text(json.dumps(OVERLAP))
    plan = plan_push(model, "alice/sp")
    lines = [
        "The training data of retrieval contains 3 of the 1,379 test items of STSBenchmark, 1 of them nearly "
        "and "
        "the others word for word.",
        "No training record contains a test item of other tasks word for word or nearly (Jaccard similarity "
        "from "
        "0.8): OwnDocsRetrieval.",
        "Not checked for overlap, since their test items are unknown: OwnThings.",
    ]
    assert all(f"- {line}\n" in plan.card for line in lines)
    assert unknown not in plan.card
    assert "Banking77" not in plan.card
    sent = {file.path: file.read() for file in plan.files}
    fetched = Path(shutil.copytree(model, tmp_path / "fetched"))
    (fetched / "overlap.yaml").write_bytes(sent["overlap.yaml"])
    assert content_hash(fetched) == content_hash(model)
    assert all(
        f"- {line}\n" in build_card(fetched).text for line in lines
    )  # what was published tells it again

    (run / "overlap.json").unlink()
    report = tmp_path / "report.json"
    report.write_text(json.dumps(OVERLAP))
    assert lines[0] in plan_push(model, "alice/sp", overlap=report).card
    report.write_text("[]")
    with pytest.raises(SelfposError, match="no report of `selfpos overlap`"):
        plan_push(model, "alice/sp", overlap=report)
