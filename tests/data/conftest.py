"""A small source tree as corpus, and the real one, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpos.data.corpus import Corpus, load_corpus

ALPHA = '''
raise RuntimeError("reading the corpus must not import what it reads")

def mean(values):
    """Average of the values along an axis.

    Returns the sum of all elements divided by how many there are of them.

    Parameters
    ----------
    values : array_like
        Numbers whose average is wanted.

    See Also
    --------
    median : The middle of the values.
    alpha.Table.mean, missing
    """

def median(values):
    """Middle of the sorted values along an axis.

    Half of all elements are smaller than what comes back from here.
    """

def _private(values):
    """A private helper that has its summary.

    And it has a long enough body of some ten words or so.
    """

def short(values):
    """Nothing more is said here than this."""

class Table:
    """Rows and columns with their labels.

    Everything in a column is of the same kind, and every row has a label.
    """

    def mean(self):
        """Average of each of the columns.

        Missing numbers are left out of the sum, and out of the count as well.
        """

    if True:
        def transposed(self):
            """Rows become columns and columns rows.

            The labels go with them, so that nothing has to be named again.

            See Also
            --------
            :func:`Table.mean` : Average of each of the columns.
            """
'''
COMPILED = '''
add_newdoc("alpha.core", "dot",
    """
    dot(a, b)

    Product of the two arrays.
    """)
add_newdoc("alpha.core", "cross",
    """
    Vector product of the two given arrays.

    What comes back is at a right angle to both of the vectors given.

    See Also
    --------
    mean
    """)
add_newdoc("gamma", (1, 2), "not one of ours")
'''
COPY = '''
def average(values):
    """Average of the values along an axis.

    Another body than that of the function with the same summary, but no matter.
    """

def linked(values):
    """Something that is linked to a copy.

    What it says in its body is of no importance to anybody at all.

    See Also
    --------
    average
    """
'''


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """Two packages, alpha and beta, as `extract` wants them."""
    for name, text in {
        "alpha/__init__.py": ALPHA,
        "alpha/core/_docs.py": COMPILED,
        "alpha/zeta/copy.py": COPY,
        "alpha/tests/test_core.py": ALPHA.replace("Average", "Tested average"),
        "alpha/broken.py": "def (",
        "beta/__init__.py": ALPHA.replace("values", "numbers"),
    }.items():
        file = tmp_path / "sources" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return {package: tmp_path / "sources" / package for package in ("alpha", "beta")}


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """The embedded corpus of this environment, as all tests find it in the cache, whose key holds the code
    that extracts it.
    """
    return load_corpus()
