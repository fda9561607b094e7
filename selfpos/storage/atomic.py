"""Files and folders that exist whole or not at all: written beside their path, flushed, renamed. Locks."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selfpos.errors import OperationError, SelfposError, stopped

LEFTOVER = re.compile(r"\..+\.\w{8}\.tmp")  # what `write_bytes` writes to, when its process is killed


WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system says that has no locks: there nothing is taken for abandoned."""
TORCH_REFUSED = ("PytorchStreamWriter failed", "unexpected pos", "iostream error")
"""What torch says where a file cannot be written; the system's own reason is lost there."""


def refuse_existing(out: Path) -> None:
    """Raise SelfposError when `out` exists, since nothing is overwritten, or would lie within a file."""
    if out.exists() or out.is_symlink():
        raise SelfposError(f"{out} exists already and is not overwritten; choose another output or remove it")
    if file := next((parent for parent in out.parents if parent.exists() and not parent.is_dir()), None):
        raise SelfposError(f"{out} would lie within {file}, which is a file; choose another output")


def refuse_within(out: Path, folder: Path) -> None:
    """Raise SelfposError when `out` lies within the model `folder`, of which it would become a part."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise SelfposError(
            f"{out} lies within the model {folder}, and would count as a part of it; choose another output"
        )


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; when the block succeeds, it is flushed and renamed to `out`.

    On an error or Ctrl-C it is removed. The next writer of `out` removes what a killed process left.
    Raises SelfposError when `out` exists or another process writes it, OperationError when the disk refuses.
    """
    with resumable_folder(out, uuid.uuid4().hex, worth_keeping=lambda folder: False) as folder:
        yield folder


@contextmanager
def resumable_folder(out: Path, fingerprint: str, *, worth_keeping: Callable[[Path], bool]) -> Iterator[Path]:
    """As fresh_folder, but what a killed process left is given to the next one with the same `fingerprint`.

    After Ctrl-C the temporary folder stays when `worth_keeping(folder)`; after an error it is removed.
    """
    refuse_existing(out)
    folder = out.parent / f".{out.name}.tmp-{fingerprint[:16]}"
    with locked(out):
        try:
            for leftover in out.parent.glob(f".{glob.escape(out.name)}.tmp-*"):
                if leftover != folder:
                    shutil.rmtree(leftover, ignore_errors=True)
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OperationError(f"cannot write beside {out}: {error.strerror}") from None
        try:
            yield folder
            publish(folder, out)
        except BaseException as error:
            if isinstance(error, Exception) or not worth_keeping(folder):
                shutil.rmtree(folder, ignore_errors=True)
            elif isinstance(error, KeyboardInterrupt):
                raise stopped("what is finished") from None
            if isinstance(error, Exception) and (reason := disk_refusal(error)):
                raise OperationError(f"writing {out} failed: {reason}; nothing is left of it") from error
            raise


def disk_refusal(error: Exception) -> str:
    """Why the disk refused, where `error` says so: an OSError, or what safetensors and torch make of one,
    which is told by its text. Empty for other errors.
    """
    if isinstance(error, OSError):
        name = error.filename2 or error.filename  # of a copy, the second is written
        return f"{error.strerror or error}{f' ({name})' if name else ''}"
    if number := re.search(r"\(os error (\d+)\)", str(error)):
        return os.strerror(int(number[1]))
    refused = any(sign in str(error) for sign in TORCH_REFUSED)
    return "a file could not be written, most often for a full disk" if refused else ""


def publish(folder: Path, out: Path) -> None:
    """Flush every file of `folder` to disk and rename it to `out`, without what killed writers left in it.

    Raises SelfposError when `out` exists.
    """
    for file in sorted(folder.rglob("*")):
        if LEFTOVER.fullmatch(file.name):
            file.unlink()
        elif not file.is_symlink():
            flush(file)
    flush(folder)
    refuse_existing(out)
    folder.rename(out)
    flush(out.parent)


@contextmanager
def held(lock_file: Path, message: str) -> Iterator[None]:
    """Hold the lock `lock_file` while the block runs. The system releases it when the process dies.

    Raises SelfposError with `message` when another process holds it, OperationError when the disk refuses.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file, blocking=False)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise SelfposError(message) from None
    except OSError as error:
        raise OperationError(f"cannot write in {lock_file.parent}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder while the block runs: `.NAME.lock` beside it, so that no folder
    contains its own lock. Raises as `held` does.
    """
    file = path.parent / f".{path.name}.lock"
    with held(file, f"another process is writing {path}; wait for it or choose another output"):
        try:
            yield
        finally:
            with suppress(OSError):  # removed while held: a process that waits notices, and opens a new file
                file.unlink()


def write_text(file: Path, text: str) -> None:
    """As `write_bytes`."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Write `content` to `file` so that a reader sees the old content or the new, never a part."""
    for leftover in file.parent.glob(f".{glob.escape(file.name)}.????????.tmp"):
        _remove_abandoned(leftover)
    handle, temporary = _held_temporary(file)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing to files of `folder`, which need not be there."""
    for file in folder.glob(".*.tmp"):
        if LEFTOVER.fullmatch(file.name):
            _remove_abandoned(file)


def _held_temporary(file: Path) -> tuple[int, Path]:
    """A new file beside `file`, which is locked so that others see that it is being written."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".tmp", dir=file.parent)
        try:
            _lock(handle)
        except BlockingIOError:  # another takes it for abandoned, and removes it
            os.close(handle)
            continue
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                os.close(handle)
                Path(name).unlink(missing_ok=True)
                raise
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)


def _remove_abandoned(leftover: Path) -> None:
    """Remove what a killed process was writing, unless another writes it now."""
    with suppress(OSError):
        handle = os.open(leftover, os.O_RDWR)
        try:
            _lock(handle)
            leftover.unlink()
        finally:
            os.close(handle)


def _lock(handle: int) -> None:
    """Lock an open file without waiting. Raises OSError as `flock` does; ENOLCK on Windows."""
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOLCK, "this system has no such locks") from None
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def flush(path: Path) -> None:
    """Return when the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
