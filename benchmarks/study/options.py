"""The options that every script of the study has."""

from __future__ import annotations

import argparse
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"


def study_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with --data, --models and --results."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--models", type=Path, default=Path("checkpoints/study"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser
