"""From source files to entries of the embedded corpus: parsed with `ast`, cleaned, each text once, See Also
names resolved, split. Nothing is imported.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfpos.console import progress
from selfpos.data.docstrings import Docstring, parse_docstring
from selfpos.errors import SelfposError

# The packages read, as they are imported; `python` is the standard library.
PACKAGES = ("python", "numpy", "scipy", "sklearn", "pandas")
SKIPPED_FOLDERS = {
    "test", "tests", "_testing", "testing", "site-packages", "dist-packages", "idlelib", "lib2to3",
    "turtledemo", "ensurepip", "__pycache__", "_examples", "examples", "benchmarks", "_vendor", "externals",
    "_lib", "build_utils", "_build_utils", "distutils", "f2py",
}  # fmt: skip
# Nobody trains on these: clustering is scored on them alone. Chosen to be unlike each other, with enough
# entries each, at little loss for training.
HELD_OUT = (
    "python.asyncio", "python.email", "python.http", "python.logging", "python.tkinter", "python.unittest",
    "numpy.polynomial", "scipy.ndimage", "scipy.spatial", "sklearn.preprocessing",
)  # fmt: skip
# A body of 400 characters is about 90 tokens: what an entry is for has been said by then, and the quickstart
# on a CPU takes half the time of 1,000.
MAX_BODY = 400


@dataclass(frozen=True)
class Entry:
    """One documented function, method or class.

    `see_also` holds names of other entries; `split` is train, validation, test or held-out.
    """

    name: str
    kind: str
    subpackage: str
    split: str
    summary: str
    body: str
    see_also: tuple[str, ...]

    @property
    def package(self) -> str:
        return self.name.split(".")[0]


def extract(roots: dict[str, Path]) -> tuple[Entry, ...]:
    """Parse every source file below `roots` and return the entries, sorted by name, each text only once.

    Of several entries with the same summary or the same body the first by name is kept, so that each query of
    a search has one right answer; links to the others lead to it. Raises SelfposError when there is nothing
    to read.
    """
    files = [(package, root, file) for package, root in sorted(roots.items()) for file in _source_files(root)]
    docstrings: dict[str, tuple[str, str, Docstring]] = {}
    with progress("reading docstrings", len(files), unit="files") as bar:
        for package, root, file in files:
            module = ".".join([package, *file.relative_to(root).with_suffix("").parts]).removesuffix(
                ".__init__"
            )
            subpackage = subpackage_of(module)
            for name, kind, text in _documented(file, module):
                if name not in docstrings:
                    docstrings[name] = (kind, subpackage, parse_docstring(text, max_body=MAX_BODY))
            bar.advance()
    if not docstrings:
        raise SelfposError(
            f"no documented Python sources found below {', '.join(str(root) for root in roots.values())}"
        )
    telling = {}
    for name, (kind, subpackage, doc) in sorted(docstrings.items()):
        if 3 <= len(doc.summary.split()) <= 60 and len(doc.body.split()) >= 6:
            telling[name] = (kind, subpackage, doc)
    return _link(_unique(telling))


def subpackage_of(module: str) -> str:
    """The subject that a module belongs to: `python.email`, `numpy.linalg`, `pandas.core.frame`; `numpy` for
    modules at its top.
    """
    package, *rest = [part.lstrip("_") or part for part in module.split(".")]
    depth = 2 if package == "pandas" and rest[:1] == ["core"] else 1
    return ".".join([package, *rest[:depth]])


def split_of(name: str, subpackage: str) -> str:
    """Which split an entry belongs to: by a hash of its qualified name, 70 % train, 10 % validation, 20 %
    test, unless its subpackage is held out.
    """
    if subpackage in HELD_OUT:
        return "held-out"
    percentile = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100
    if percentile < 70:
        return "train"
    return "validation" if percentile < 80 else "test"


def _source_files(root: Path) -> list[Path]:
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        files += [
            Path(folder) / name
            for name in sorted(names)
            if name.endswith(".py") and not name.startswith(("test_", "conftest"))
        ]
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
            elif isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            ) and not node.name.startswith("_"):
                name = f"{prefix}.{node.name}"
                text = ast.get_docstring(node, clean=False)
                if text:
                    yield name, "class" if isinstance(node, ast.ClassDef) else "function", text
                if isinstance(node, ast.ClassDef):
                    stack.append((name, node))


def _added(call: ast.Call, module: str) -> Iterator[tuple[str, str, str]]:
    """The docstring that a call of `add_newdoc` gives to something compiled: `(place, name, text)`, `(place,
    name, (method, text))` or `(name, text)`.
    """
    if not (isinstance(call.func, ast.Name) and call.func.id == "add_newdoc"):
        return
    try:
        *owner, text = (ast.literal_eval(argument) for argument in call.args)
    except ValueError:
        return
    if isinstance(text, tuple) and len(text) == 2:
        owner, text = [*owner, text[0]], text[1]
    if not (isinstance(text, str) and owner and all(isinstance(name, str) for name in owner)):
        return
    names = [module.rsplit(".", 1)[0], *owner] if len(owner) == 1 else owner
    if names[0].split(".")[0] == module.split(".")[0]:
        yield ".".join(names), "function", text


def _unique(
    docstrings: dict[str, tuple[str, str, Docstring]],
) -> dict[str, tuple[str, str, Docstring, list[str]]]:
    """One item per distinct summary and per distinct body, with the names of those that it stands for."""
    first: dict[str, str] = {}
    kept: dict[str, tuple[str, str, Docstring, list[str]]] = {}
    for name, (kind, subpackage, doc) in docstrings.items():
        texts = [
            f"{field}: {' '.join(text.lower().split())}"
            for field, text in (("summary", doc.summary), ("body", doc.body))
        ]
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
        targets = [
            resolve(reference, name, by_last.get(reference.rsplit(".", 1)[-1], []))
            for reference in doc.see_also
        ]
        links = tuple(dict.fromkeys(target for target in targets if target is not None and target != name))
        entries.append(
            Entry(name, kind, subpackage, split_of(name, subpackage), doc.summary, doc.body, links)
        )
    return tuple(entries)


def resolve(reference: str, source: str, candidates: list[tuple[str, str]]) -> str | None:
    """The entry that `reference`, written in the docstring of `source`, means: of `candidates` (qualified
    name, entry) the nearest to `source`.

    A candidate fits when the parts of the reference occur in its name in this order and end it: `numpy.mean`
    fits `numpy._core.fromnumeric.mean`. It must be in the same package, or in that with which the reference
    begins.
    """
    parts = reference.split(".")
    source_parts = source.split(".")
    package = parts[0] if parts[0] in PACKAGES else source_parts[0]

    def fits(alias: str) -> bool:
        remaining = iter(alias.split("."))
        return alias.split(".")[0] == package and all(part in remaining for part in parts)

    def distance(item: tuple[str, str]) -> tuple[int, int, str]:
        other = item[0].split(".")
        shared = next(
            (i for i, (a, b) in enumerate(zip(source_parts, other, strict=False)) if a != b),
            min(len(source_parts), len(other)),
        )
        return -shared, len(other), item[0]

    fitting = [item for item in candidates if fits(item[0])]
    return min(fitting, key=distance)[1] if fitting else None
