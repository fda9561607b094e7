from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfpos.data.docstrings import cut, parse_docstring, plain

NUMPYDOC = """Compute the *truncated* mean
    of ``values``.

    Values beyond the limits are ignored [1]_, see :func:`~scipy.stats.trim_mean` and `numpy.mean`.

    .. versionadded:: 1.2
        Not of interest to anybody.
    .. note:: They are counted,
        though.

    >>> truncated_mean([1, 2])
    1.5

    Parameters
    ----------
    values : array_like
        Where the numbers are from.
    limits : None or (lower limit, upper limit), optional
        Which ones to keep.

    Returns
    -------
    mean : float
        What is left, averaged.

    See Also
    --------
    trim_mean : Mean after trimming.
        With more about it.
    numpy.mean, median
    :meth:`Table.mean` : Of a table.
    This line is a sentence, and no name at all.

    Notes
    -----
    The limits count as inside. Compute the truncated mean of values.

    References
    ----------
    .. [1] Somebody, 1999.

    Examples
    --------
    Nothing from here.
    """


def test_a_numpydoc_docstring_becomes_prose() -> None:
    doc = parse_docstring(NUMPYDOC, max_body=1000)
    assert doc.summary == "Compute the *truncated* mean of values."
    assert doc.body == (
        "Values beyond the limits are ignored, see scipy.stats.trim_mean and numpy.mean. They are counted, "
        "though. The limits count as inside. Compute the truncated mean of values. Where the numbers are "
        "from. Which ones to keep. What is left, averaged."
    )
    assert doc.see_also == ("trim_mean", "numpy.mean", "median", "Table.mean")


def test_the_summary_is_taken_out_of_the_body() -> None:
    doc = parse_docstring("Sort the rows.\n\nOften used. sort the Rows. And fast.", max_body=1000)
    assert doc.body == "Often used. And fast."


def test_a_plain_docstring_keeps_its_paragraphs() -> None:
    doc = parse_docstring(
        "\n    Open the file.\n\n    First this.\n\n    Then that, as in::\n\n        open(x)\n",
        max_body=1000,
    )
    assert (doc.summary, doc.body, doc.see_also) == (
        "Open the file.",
        "First this. Then that, as in: open(x)",
        (),
    )


def test_markup_is_reduced_to_its_words() -> None:
    assert (
        plain(["A :class:`~a.B <target>` with", "  ``code``, `link`_ and %(name)s [2]_."])
        == "A a.B with code, link and ."
    )


words = st.text(alphabet="abc .:`\n->[]_é", max_size=200)


@given(words, st.integers(0, 50))
def test_cut_keeps_a_prefix_within_the_limit(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert len(short) <= limit or short == text
    assert text.startswith(short)


@given(st.text(alphabet="ab .", min_size=5, max_size=20), words, words)
def test_no_body_holds_the_summary(summary: str, before: str, after: str) -> None:
    doc = parse_docstring(f"{summary}\n\n{before} {summary} {after}", max_body=400)
    bare = doc.summary.rstrip(".!: ").lower()
    assert not bare or bare not in doc.body.lower()
    assert len(doc.body) <= 400
