"""Shapes in which people have their data, each with what is to be read from it, or why it is refused.

The test reads each one; `benchmarks/data_shapes.py` makes the table of the docs of them.
"""

from __future__ import annotations

from tests.helpers.shapes.files import FILES
from tests.helpers.shapes.folders import FOLDERS
from tests.helpers.shapes.pairs import CLASSES, PAIRS
from tests.helpers.shapes.retrieval import RETRIEVAL
from tests.helpers.shapes.shape import Shape, outcome

__all__ = ["GROUPS", "SHAPES", "Shape", "outcome"]

GROUPS = {
    "Files": FILES,
    "Folders": FOLDERS,
    "Questions and answers": RETRIEVAL,
    "Pairs": PAIRS,
    "Texts with labels": CLASSES,
}
SHAPES = [(group, shape) for group, shapes in GROUPS.items() for shape in shapes]
