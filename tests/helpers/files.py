"""Data files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

from tests.helpers.command import ROOT

SHARED_DATA = Path(os.environ.get("SELFPOS_TEST_DATA", ROOT.parent / "shared" / "data"))
"""The optional folder of real data sets beside the checkout."""


def write_lines(file: Path, records: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file
