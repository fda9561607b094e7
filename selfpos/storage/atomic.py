"""Folders and files that exist whole or not at all: written beside their place, flushed, renamed."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selfpos.errors import OperationError, SelfposError, stopped


def refuse_existing(out: Path) -> None:
    """Raise SelfposError when `out` exists, for nothing is ever overwritten, or cannot exist, since it would lie within a file."""
    if out.exists() or out.is_symlink():
        raise SelfposError(f"{out} exists already and is not overwritten; choose another output or remove it")
    if file := next((parent for parent in out.parents if parent.exists() and not parent.is_dir()), None):
        raise SelfposError(f"{out} would lie within {file}, which is a file; choose another output")


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; when the block ends well, flush it to disk and rename it to `out`.

    On an error or Ctrl-C it is removed. What a killed process left behind is removed by the next writer of the same `out`.
    Raises SelfposError when `out` exists, OperationError when the disk refuses.
    """
    refuse_existing(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in _leftovers(out):
            _remove_if_abandoned(left)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.tmp-", dir=out.parent))
    except OSError as error:
        raise OperationError(f"cannot write beside {out}: {error.strerror}") from None
    try:
        with locked(folder):
            folder.chmod(0o755)
            yield folder
            publish(folder, out)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise _outside(error, out) from error
        raise


@contextmanager
def resumable_folder(out: Path, fingerprint: str, *, worth_keeping: Callable[[Path], bool]) -> Iterator[Path]:
    """As fresh_folder, but what a killed or interrupted process left is given back to the next one that asks with the same `fingerprint`.

    After Ctrl-C the temporary folder stays when `worth_keeping(folder)`; after an error it is removed. Leftovers of other fingerprints are
    removed, unless another process is at work in them.
    """
    refuse_existing(out)
    folder = out.parent / f".{out.name}.tmp-{fingerprint[:16]}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in _leftovers(out):
            if left != folder:
                _remove_if_abandoned(left)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OperationError(f"cannot write beside {out}: {error.strerror}") from None
    with locked(folder):
        try:
            yield folder
            publish(folder, out)
        except BaseException as error:
            if isinstance(error, Exception) or not worth_keeping(folder):
                shutil.rmtree(folder, ignore_errors=True)
            elif isinstance(error, KeyboardInterrupt):
                raise stopped("what is finished") from None
            if isinstance(error, OSError):
                raise _outside(error, out) from error
            raise


def publish(folder: Path, out: Path) -> None:
    """Flush every file of `folder` to disk and rename it to `out`. Raises SelfposError when `out` has appeared meanwhile."""
    for file in sorted(folder.rglob("*")):
        if not file.is_symlink():
            flush(file)
    flush(folder)
    refuse_existing(out)
    folder.rename(out)
    flush(out.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while the block runs; the system lets go of it when the process dies. Raises SelfposError when another holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SelfposError(
                f"another process is writing {folder}; wait for it or choose another output"
            ) from None
        yield
    finally:
        os.close(handle)


def write_text(file: Path, text: str) -> None:
    """Write `text` to `file` so that a reader sees the old content or the new, never a part."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Write `content` to `file` so that a reader sees the old content or the new, never a part."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _outside(error: OSError, out: Path) -> OperationError:
    place = f" ({error.filename})" if error.filename else ""
    return OperationError(f"writing {out} failed: {error.strerror or error}{place}; nothing is left of it")


def _leftovers(out: Path) -> list[Path]:
    return list(out.parent.glob(f".{glob.escape(out.name)}.tmp-*"))


def _remove_if_abandoned(folder: Path) -> None:
    try:
        with locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
    except (SelfposError, OSError):
        return  # in use, or gone


def flush(path: Path) -> None:
    """Return when the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
