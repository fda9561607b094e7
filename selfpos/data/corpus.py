"""The embedded corpus: docstrings of Python's standard library and of installed scientific packages, read from their sources without importing them.

Real prose with real structure that every installation already has: nothing is fetched or shipped, and a model trained on it searches the
documentation on its user's own machine. An entry is a public function, method or class that has a summary and something more to say. Its texts do not
begin with its own name: the name would answer a search by itself, and people who search describe what they do not know the name of.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.console import log, progress
from selfpos.data.docstrings import Docstring, parse_docstring
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    import datasets

# Raise when extraction changes what it returns: part of the cache's key.
FORMAT = 1
# Distribution name -> package, besides the standard library.
PACKAGES = {"numpy": "numpy", "scipy": "scipy", "scikit-learn": "sklearn", "pandas": "pandas"}
SKIPPED_FOLDERS = {
    "test", "tests", "_testing", "testing", "site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo", "ensurepip", "__pycache__",
    "_examples", "examples", "benchmarks", "_vendor", "externals", "_lib", "build_utils", "_build_utils", "distutils", "f2py",
}  # fmt: skip
# Nobody trains on these: clustering is scored on them alone. Chosen to be unlike each other, with enough entries each, at little loss for training.
HELD_OUT = (
    "python.asyncio", "python.email", "python.http", "python.logging", "python.tkinter", "python.unittest", "numpy.polynomial",
    "scipy.ndimage", "scipy.spatial", "sklearn.preprocessing",
)  # fmt: skip
# A body of 400 characters is about 90 tokens: what an entry is for has been said by then, and the quickstart on a CPU takes half the time of 1,000.
MAX_BODY = 400


@dataclass(frozen=True)
class Entry:
    """One documented function, method or class. `see_also` holds names of other entries; `split` is train, validation, test or held-out."""

    name: str
    kind: str
    subpackage: str
    split: str
    summary: str
    body: str
    see_also: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """All entries, sorted by name. `versions` says which releases the texts come from."""

    entries: tuple[Entry, ...]
    versions: dict[str, str]

    def part(self, split: str) -> list[Entry]:
        """The entries of one split, in order."""
        return [entry for entry in self.entries if entry.split == split]

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in self.entries}

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over all entries: equal exactly when all texts, links and splits are equal."""
        return hashlib.sha256(_to_lines(self.entries)).hexdigest()

    def training(self, task: str, *, split: str = "train", seed: int = 0) -> datasets.Dataset:
        """Training records for the task type named `task`, from the entries of `split`. See `corpus_training`."""
        from selfpos.data.corpus_training import training_records

        return training_records(self, task, split=split, seed=seed)


def load_corpus(cache: Path | None = None, *, max_body: int = MAX_BODY) -> Corpus:
    """The corpus of this environment, from the cache when the same versions were read before, else extracted (about 10 s) and cached.

    `cache` is the folder of the cache, by default `$XDG_CACHE_HOME/selfpos` or `~/.cache/selfpos`. A damaged cache file is made anew;
    a cache folder that cannot be written is a warning, not an error. Raises SelfposError when no source files can be found.
    """
    versions = corpus_versions()
    key = json.dumps({"format": FORMAT, "max_body": max_body, "held_out": HELD_OUT, **versions}, sort_keys=True)
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfpos"
    file = folder / f"corpus-{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl.gz"
    entries = _read_cache(file, key)
    if entries is None:
        entries = extract(package_roots(), max_body=max_body)
        _write_cache(file, key, entries)
    return Corpus(entries, versions)


def corpus_versions() -> dict[str, str]:
    """The releases of Python and of the packages that the corpus is read from."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for distribution in PACKAGES:
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            log.warning("the embedded corpus goes without %s: it is not installed", distribution)
    return found


def package_roots() -> dict[str, Path]:
    """Package name -> folder of its sources; `python` is the standard library. Nothing is imported."""
    import importlib.util
    import sysconfig

    roots = {"python": Path(sysconfig.get_paths()["stdlib"])}
    for package in PACKAGES.values():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            roots[package] = Path(spec.origin).parent
    return roots


def extract(roots: dict[str, Path], *, max_body: int = MAX_BODY) -> tuple[Entry, ...]:
    """Parse every source file below `roots` and return the entries, sorted by name, each text only once.

    Of several entries with the same summary or the same body the first by name is kept, so that each query of a search has one right answer;
    links to the others lead to it. Raises SelfposError when there is nothing to read.
    """
    files = [(package, root, file) for package, root in sorted(roots.items()) for file in _source_files(root)]
    found: dict[str, tuple[str, str, Docstring]] = {}
    with progress("reading docstrings", len(files), unit="files") as bar:
        for package, root, file in files:
            module = ".".join([package, *file.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
            subpackage = subpackage_of(module)
            for name, kind, text in _documented(file, module):
                if name not in found:
                    found[name] = (kind, subpackage, parse_docstring(text, max_body=max_body))
            bar.advance()
    if not found:
        raise SelfposError(f"no documented Python sources found below {', '.join(str(root) for root in roots.values())}")
    return _link(_unique({name: item for name, item in sorted(found.items()) if _says_something(item[2])}))


def subpackage_of(module: str) -> str:
    """The subject that a module belongs to: `python.email`, `numpy.linalg`, `pandas.core.frame`; `numpy` for modules at its top."""
    package, *rest = [part.lstrip("_") or part for part in module.split(".")]
    depth = 2 if package == "pandas" and rest[:1] == ["core"] else 1
    return ".".join([package, *rest[:depth]])


def split_of(name: str, subpackage: str) -> str:
    """Which split an entry belongs to: by a hash of its qualified name, 70 % train, 10 % validation, 20 % test, unless its subpackage is held out."""
    if subpackage in HELD_OUT:
        return "held-out"
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100
    return "train" if place < 70 else "validation" if place < 80 else "test"


def _source_files(root: Path) -> list[Path]:
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        files += [Path(folder) / name for name in sorted(names) if name.endswith(".py") and not name.startswith(("test_", "conftest"))]
    return files


def _documented(file: Path, module: str) -> Iterator[tuple[str, str, str]]:
    """Qualified name, kind and docstring of the public functions, methods and classes in `file`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # templates and files for other versions of Python
    stack: list[tuple[str, ast.AST]] = [(module, tree)]
    while stack:
        prefix, parent = stack.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.If | ast.Try):
                stack.append((prefix, node))
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                yield from _added(node.value, module)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                name = f"{prefix}.{node.name}"
                text = ast.get_docstring(node, clean=False)
                if text:
                    yield name, "class" if isinstance(node, ast.ClassDef) else "function", text
                if isinstance(node, ast.ClassDef):
                    stack.append((name, node))


def _added(call: ast.Call, module: str) -> Iterator[tuple[str, str, str]]:
    """The docstring that a call of `add_newdoc` gives to something compiled: `(place, name, text)`, `(place, name, (method, text))` or `(name, text)`."""
    if not (isinstance(call.func, ast.Name) and call.func.id == "add_newdoc"):
        return
    try:
        *place, text = (ast.literal_eval(argument) for argument in call.args)
    except ValueError:
        return
    if isinstance(text, tuple) and len(text) == 2:
        place, text = [*place, text[0]], text[1]
    if not (isinstance(text, str) and place and all(isinstance(name, str) for name in place)):
        return
    names = [module.rsplit(".", 1)[0], *place] if len(place) == 1 else place
    if names[0].split(".")[0] == module.split(".")[0]:
        yield ".".join(names), "function", text


def _says_something(doc: Docstring) -> bool:
    return 3 <= len(doc.summary.split()) <= 60 and len(doc.body.split()) >= 6


def _unique(found: dict[str, tuple[str, str, Docstring]]) -> dict[str, tuple[str, str, Docstring, list[str]]]:
    """One item per distinct summary and per distinct body, with the names of those that it stands for."""
    first: dict[str, str] = {}
    kept: dict[str, tuple[str, str, Docstring, list[str]]] = {}
    for name, (kind, subpackage, doc) in found.items():
        texts = [f"{field}: {' '.join(text.lower().split())}" for field, text in (("summary", doc.summary), ("body", doc.body))]
        same = next((first[text] for text in texts if text in first), None)
        for text in texts:
            first.setdefault(text, same or name)
        if same is None:
            kept[name] = (kind, subpackage, doc, [name])
        else:
            kept[same][3].append(name)
    return kept


def _link(kept: dict[str, tuple[str, str, Docstring, list[str]]]) -> tuple[Entry, ...]:
    """Entries with the names of their See Also sections resolved."""
    by_last: dict[str, list[tuple[str, str]]] = {}
    for name, (_, _, _, names) in kept.items():
        for alias in names:
            by_last.setdefault(alias.rsplit(".", 1)[1], []).append((alias, name))
    entries = []
    for name, (kind, subpackage, doc, _) in kept.items():
        targets = [resolve(reference, name, by_last.get(reference.rsplit(".", 1)[-1], [])) for reference in doc.see_also]
        links = tuple(dict.fromkeys(target for target in targets if target is not None and target != name))
        entries.append(Entry(name, kind, subpackage, split_of(name, subpackage), doc.summary, doc.body, links))
    return tuple(entries)


def resolve(reference: str, source: str, candidates: list[tuple[str, str]]) -> str | None:
    """The entry that `reference`, written in the docstring of `source`, means: of `candidates` (qualified name, entry) the nearest to `source`.

    A candidate fits when the parts of the reference occur in its name in this order and end it (`numpy.mean` fits `numpy._core.fromnumeric.mean`), and
    when it is in the same package, or in the package the reference begins with.
    """
    parts = reference.split(".")
    own = source.split(".")
    package = parts[0] if parts[0] in {"python", *PACKAGES.values()} else own[0]

    def fits(alias: str) -> bool:
        remaining = iter(alias.split("."))
        return alias.split(".")[0] == package and all(part in remaining for part in parts)

    def distance(item: tuple[str, str]) -> tuple[int, int, str]:
        other = item[0].split(".")
        shared = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), min(len(own), len(other)))
        return -shared, len(other), item[0]

    fitting = [item for item in candidates if fits(item[0])]
    return min(fitting, key=distance)[1] if fitting else None


def _to_lines(entries: tuple[Entry, ...]) -> bytes:
    return "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries).encode("utf-8", "surrogateescape")


def _read_cache(file: Path, key: str) -> tuple[Entry, ...] | None:
    try:
        header, lines = gzip.decompress(file.read_bytes()).split(b"\n", 1)
        about = json.loads(header)
        if about["key"] != key or about["sha256"] != hashlib.sha256(lines).hexdigest():
            raise ValueError("its content does not match its hash")
        records = [json.loads(line) for line in lines.decode("utf-8").splitlines()]
        return tuple(Entry(**record | {"see_also": tuple(record["see_also"])}) for record in records)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        log.warning("the cached corpus %s is damaged (%s) and is made anew", file, error)
        return None


def _write_cache(file: Path, key: str, entries: tuple[Entry, ...]) -> None:
    lines = _to_lines(entries)
    header = json.dumps({"key": key, "sha256": hashlib.sha256(lines).hexdigest()}).encode() + b"\n"
    beside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            stream.write(gzip.compress(header + lines, mtime=0))
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    except OSError as error:
        log.warning("the corpus could not be cached in %s (%s); it will be read again next time", file.parent, error)
        beside.unlink(missing_ok=True)
