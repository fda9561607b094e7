"""The embedded corpus: docstrings of Python's standard library and of installed scientific packages, read
from their sources without importing them.

Real prose with real structure that every installation already has: nothing is fetched or shipped, and a model
trained on it searches the documentation on its user's own machine. An entry is a public function, method or
class that has a summary and something more to say. Its texts do not begin with its own name: the name would
answer a search by itself, and people who search describe what they do not know the name of.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.console import log
from selfpos.data import corpus_extraction, docstrings
from selfpos.data.corpus_extraction import Entry, extract
from selfpos.data.corpus_training import training_records
from selfpos.storage.atomic import write_bytes
from selfpos.storage.locate import cache_folder

if TYPE_CHECKING:
    import datasets

# Distribution name -> package as it is imported, besides the standard library.
DISTRIBUTIONS = {"numpy": "numpy", "scipy": "scipy", "scikit-learn": "sklearn", "pandas": "pandas"}


@dataclass(frozen=True)
class Corpus:
    """All entries, sorted by name. `versions` says which releases the texts come from."""

    entries: tuple[Entry, ...]
    versions: dict[str, str]

    def part(self, split: str) -> list[Entry]:
        """The entries of one split, in order."""
        return [entry for entry in self.entries if entry.split == split]

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over all entries: equal exactly when all texts, links and splits are equal."""
        return hashlib.sha256(_to_lines(self.entries)).hexdigest()

    def training(self, task: str, view: str | None = None, *, split: str = "train") -> datasets.Dataset:
        """Training records for the task type named `task`, from the entries of `split` (train, validation or
        test); with `view` (names, see-also) other ones. See `corpus_training`.

        Raises SelfposError for a task or view that the corpus cannot supply and for a split without records.
        """
        return training_records(self.part(split), task, view, seed=0)


def load_corpus(cache: Path | None = None) -> Corpus:
    """The corpus of this environment: cached, or extracted (about 10 s) where other versions were read
    before.

    `cache` is its folder, by default `$XDG_CACHE_HOME/selfpos` or `~/.cache/selfpos`. A damaged file is
    replaced; a folder that cannot be written is a warning. Raises SelfposError when no source files can be
    found.
    """
    versions = corpus_versions()
    key = json.dumps({"extraction": _extraction(), **versions}, sort_keys=True)
    folder = cache or cache_folder()
    file = folder / f"corpus-{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl.gz"
    entries = _read_cache(file, key)
    if entries is None:
        entries = extract(package_roots())
        _write_cache(file, key, entries)
    return Corpus(entries, versions)


def _extraction() -> str:
    """SHA-256 (hex) of the code that extracts: what other code read is not served."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (corpus_extraction, docstrings))
    return hashlib.sha256(code).hexdigest()


def corpus_versions() -> dict[str, str]:
    """The releases of Python and of the packages that the corpus is read from."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for distribution in DISTRIBUTIONS:
        try:
            versions[distribution] = version(distribution)
        except PackageNotFoundError:
            log.warning("the embedded corpus goes without %s: it is not installed", distribution)
    return versions


def package_roots() -> dict[str, Path]:
    """Package name -> folder of its sources; `python` is the standard library. Nothing is imported."""
    import importlib.util
    import sysconfig

    roots = {"python": Path(sysconfig.get_paths()["stdlib"])}
    for package in DISTRIBUTIONS.values():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            roots[package] = Path(spec.origin).parent
    return roots


def _to_lines(entries: tuple[Entry, ...]) -> bytes:
    return "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries).encode(
        "utf-8", "surrogateescape"
    )


def _read_cache(file: Path, key: str) -> tuple[Entry, ...] | None:
    try:
        header, lines = gzip.decompress(file.read_bytes()).split(b"\n", 1)
        about = json.loads(header)
        if about["key"] != key or about["sha256"] != hashlib.sha256(lines).hexdigest():
            raise ValueError("its content does not match its hash")
        records = [json.loads(line) for line in lines.decode("utf-8").splitlines()]
        return tuple(Entry(**record | {"see_also": tuple(record["see_also"])}) for record in records)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        log.warning("the cached corpus %s is damaged (%s) and will be replaced", file, error)
        return None


def _write_cache(file: Path, key: str, entries: tuple[Entry, ...]) -> None:
    lines = _to_lines(entries)
    header = json.dumps({"key": key, "sha256": hashlib.sha256(lines).hexdigest()}).encode() + b"\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, gzip.compress(header + lines, mtime=0))
    except OSError as error:
        log.warning(
            "the corpus could not be cached in %s (%s); it will be read again next time", file.parent, error
        )
