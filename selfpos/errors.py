"""The errors a user may see: a sentence that names the thing, what was expected and found, and what to do."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Unicode's controls, halves of pairs, ends of lines and paragraphs
ESCAPED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")


class SelfposError(Exception):
    """A fault that its user can mend.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    exit_code = 2


class OptionNeededError(SelfposError):
    """Models that merge only with an option of `merge`, which other commands do not have.

    `instead` says what to do before such a command.
    """

    def __init__(self, message: str, instead: str = "give other models") -> None:
        super().__init__(message)
        self.instead = instead


class MemoryBudgetError(SelfposError):
    """A merge needs more memory than it may use."""


class OperationError(SelfposError):
    """The request was right but something outside failed: the network, the disk, one of several tasks."""

    exit_code = 1


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `choices`, or an empty string when none is near."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


def unknown(
    kind: str, word: str, choices: Iterable[str], *, listed: bool = False, otherwise: str = ""
) -> SelfposError:
    """The error for a name that does not exist, with the nearest right one, or all when there are few.

    With `listed` all of a few rather than the nearest; `otherwise` is said where neither is.
    """
    names = sorted(choices)
    few = f"; known: {', '.join(names)}" if len(names) <= 30 else ""
    near = nearest(word, names)
    hint = (few or near if listed else near or few) or (f"; {otherwise}" if otherwise else "")
    return SelfposError(f"there is no {kind} named '{word}'{hint}")


def printable(text: str) -> str:
    """`text` with what a terminal, a log or a page would obey rather than show as Python writes it: controls,
    ends of lines, marks of direction, halves of surrogate pairs.
    """
    return "".join(repr(letter)[1:-1] if _obeyed(letter) else letter for letter in text)


def printable_page(text: str) -> str:
    """As `printable`, but ends of lines and tabs stay."""
    return re.sub(r"[^\n\t]+", lambda line: printable(line[0]), text)


def is_text(name: str) -> bool:
    """Whether `name` can be written in UTF-8; names of files in other encodings cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _obeyed(letter: str) -> bool:
    marks = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return unicodedata.bidirectional(letter) in marks or unicodedata.category(letter) in ESCAPED_CATEGORIES


def told(sentence: str) -> str:
    """`sentence` as it is told on a line of its own: printable, and of words that others' files may have made
    very long only the beginning and the end.
    """
    cut = re.sub(r"\S{500,}", lambda word: f"{word[0][:200]}…{word[0][-100:]}", printable(sentence[:100_000]))
    return shortened(cut, 4000)


def shortened(text: str, most: int = 200) -> str:
    """The text, or its beginning where it has more than `most` letters."""
    return text if len(text) <= most else f"{text[:most]}…"


def on_one_line(error: BaseException, most: int | None = None) -> str:
    """The message of `error` on one line, cut to `most` characters."""
    return " ".join(str(error).split())[:most]


def first_line(error: BaseException) -> str:
    """The first line of the message of `error` that is not blank, else its kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def stopped(kept: str) -> KeyboardInterrupt:
    """The interrupt after which the same command continues from what was `kept`."""
    return KeyboardInterrupt(f"{kept} is kept, and the same command continues from there")


@contextmanager
def keeping(kept: str) -> Iterator[None]:
    """A block that Ctrl-C leaves with what was `kept`."""
    try:
        yield
    except KeyboardInterrupt:
        raise stopped(kept) from None
