"""What may speak against a push, as sentences. All of it is looked at before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.publishing.files import PlannedFile
from selfpos.publishing.metadata import check_repo
from selfpos.publishing.session import TOKEN
from selfpos.storage.model_folder import check_tokenizer

BINARY = (".safetensors", ".parquet", ".png", ".model")
TEXT_LIMIT = 64 * 2**20  # bytes up to which a text file is searched for tokens


def target_problems(repo: str, branch: str | None, pull_request: bool) -> list[str]:
    """Faults in where it should go."""
    problems = []
    try:
        check_repo(repo)
    except SelfposError as error:
        problems.append(str(error))
    if branch is not None and pull_request:
        problems.append(
            "a pull request goes to the main branch; give a branch or ask for a pull request, not both"
        )
    if branch is not None and not re.fullmatch(r"(?!.*(\.\.|//))[A-Za-z0-9]([\w./-]*[\w-])?", branch):
        problems.append(f"'{branch}' is no name for a branch")
    return problems


def model_problems(folder: Path) -> list[str]:
    """What a whole model lacks to be loaded and to read texts."""
    try:
        check_tokenizer(folder)
    except SelfposError as error:
        return [str(error)]
    return []


def content_problems(name: str, files: Sequence[PlannedFile]) -> list[str]:
    """No weights, or an access token in a text file."""
    problems = []
    if not any(file.path.endswith(".safetensors") for file in files):
        problems.append(f"{name} holds no safetensors weights")
    for file in files:
        if (
            not file.path.endswith(BINARY)
            and file.bytes <= TEXT_LIMIT
            and TOKEN.search(file.read().decode("utf-8", errors="replace"))
        ):
            problems.append(
                f"{file.path} holds what looks like a Hugging Face access token; remove it before publishing"
            )
    return problems
