"""The settings of a stranger's adapter before PEFT applies them: it matches patterns without a limit of time,
and makes factors of any rank.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.manifest import read_json

LARGEST_RANK = 65_536
PATTERN_SECONDS = 10.0
REPEAT = re.compile(r"[*+}]")
MATCH = r"""
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for form in (r"(.*\.)?({})$", "{}$", r".*\.{}\.(\d+)\."):
        try:
            compiled = re.compile(form.replace("{}", pattern))
        except (re.error, OverflowError, RecursionError):
            continue
        for name in names:
            compiled.match(name)
"""
"""What PEFT does with patterns, in a process that can be ended. Of one that it cannot read, PEFT says so."""


def check_adapter_settings(file: Path, names: Iterable[str]) -> None:
    """Raise SelfposError where the settings in `file` have a rank that no adapter has, or patterns that take
    more than PATTERN_SECONDS to be matched with the tensors `names` of its base.
    """
    config = read_json(file)
    ranks = config.get("rank_pattern")
    for rank in (config.get("r"), *(ranks.values() if isinstance(ranks, dict) else ())):
        if isinstance(rank, int) and not 0 <= rank <= LARGEST_RANK:
            raise SelfposError(
                f"{file} has rank {str(rank)[:60]}; expected at most {LARGEST_RANK:,}: save the adapter "
                "again with PEFT"
            )
    slow = [pattern for pattern in _patterns(config) if len(REPEAT.findall(pattern)) > 1]
    if not slow:
        return
    modules = sorted({name.rpartition(".")[0] for name in names})
    words = [sys.executable, "-I", "-c", MATCH]
    try:
        subprocess.run(
            words, input=json.dumps([slow, modules]).encode(), timeout=PATTERN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise SelfposError(
            f"{file} has patterns that take more than {PATTERN_SECONDS:.0f} s to be matched, as "
            f"{slow[0][:100]!r}; mend them, or save the adapter again with PEFT"
        ) from None


def _patterns(config: dict[str, Any]) -> Iterator[str]:
    """The regular expressions of the settings; lists of modules are of names."""
    for name in ("rank_pattern", "alpha_pattern"):
        value = config.get(name)
        yield from value if isinstance(value, dict) else ()
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        value = config.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list) and name == "layers_pattern":
            yield from (pattern for pattern in value if isinstance(pattern, str))
