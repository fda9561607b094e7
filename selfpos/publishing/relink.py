"""A model's own records as strangers may read them: parents by their place on the Hub, not by folders of the disk it was made on."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.publishing.facts import parse_parent
from selfpos.publishing.shape import read_json
from selfpos.publishing.story import Facts

ADAPTER = "adapter_config.json"
PUBLISHED = "published"  # what is added to the records; it is no part of those that the weight files hold


@dataclass(frozen=True)
class Place:
    """Where a model stands on the Hub: repository and commit. The commit is None while it is still to be made."""

    repo: str
    revision: str | None


def public_manifest(
    told: Mapping[str, Any], published: Mapping[str, Place], probe: str | None = None
) -> dict[str, Any]:
    """`told`, the content of a `selfpos.json`, with every parent that is on the Hub named by repository and commit, and no local folder named.

    `published` maps a parent's name to where it was published; `probe` is the Hub id of the probe set, where that was published.
    """
    public: dict[str, Any] = copy.deepcopy(dict(told))
    merge = public.get("merge")
    parents = [public.get("base"), *((merge.get("sources") or ()) if isinstance(merge, dict) else ())]
    for record in parents:
        parent = parse_parent(record)
        if not isinstance(record, dict) or parent is None:
            continue
        for key in ("path", "source"):
            record.pop(key, None)
        record["name"] = parent.name
        place = published.get(parent.name)
        if place is not None:
            record |= {"repo": place.repo, "revision": place.revision}
        elif parent.repo:
            record |= {"repo": parent.repo} | ({"revision": parent.revision} if parent.revision else {})
    if probe is not None:
        public[PUBLISHED] = {"probe_set": probe}
    return public


def public_adapter(folder: Path, facts: Facts) -> bytes | None:
    """`adapter_config.json` naming its base by Hub id and commit, where it names a folder of this disk; None where it need not change."""
    named = str((facts.shape.adapter or {}).get("base_model_name_or_path") or "")
    if not facts.adapter or facts.base is None or not facts.base.repo or named == facts.base.repo:
        return None
    config = read_json(folder / ADAPTER) | {
        "base_model_name_or_path": facts.base.repo,
        "revision": facts.base.revision,
    }
    return json.dumps(config, indent=2, sort_keys=True).encode()
