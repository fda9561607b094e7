"""A model's records as they are published: parents by their repository on the Hub, without folders of this
disk.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpos.publishing.facts import PUBLISHED, Facts, HubModel, parse_parent
from selfpos.publishing.model_summary import ADAPTER
from selfpos.storage.model_folder import read_json


def public_manifest(
    record: Mapping[str, Any], published: Mapping[str, HubModel], probe_set: str | None
) -> dict[str, Any]:
    """The content of `selfpos.json` with parents on the Hub named by repository and commit, and no local
    folder.

    `published` maps a parent's name to where it is published; `probe_set` is the Hub id of the probe set, if
    any.
    """
    public: dict[str, Any] = copy.deepcopy(dict(record))
    merge = public.get("merge")
    entries = [public.get("base"), *((merge.get("sources") or ()) if isinstance(merge, dict) else ())]
    for entry in entries:
        parent = parse_parent(entry)
        if not isinstance(entry, dict) or parent is None:
            continue
        for key in ("path", "source"):
            entry.pop(key, None)
        entry["name"] = parent.name
        hub = published.get(parent.name)
        if hub is not None:
            entry |= {"repo": hub.repo, "revision": hub.revision}
        elif parent.repo:
            entry["repo"] = parent.repo
            if parent.revision:
                entry["revision"] = parent.revision
    if probe_set is not None:
        public[PUBLISHED] = {"probe_set": probe_set}
    return public


def public_adapter(folder: Path, facts: Facts) -> bytes | None:
    """`adapter_config.json` naming its base by Hub id and commit; None where it need not change."""
    if not facts.adapter or facts.base is None or not facts.base.repo:
        return None
    if str((facts.summary.adapter or {}).get("base_model_name_or_path") or "") == facts.base.repo:
        return None
    config = read_json(folder / ADAPTER)
    config |= {"base_model_name_or_path": facts.base.repo, "revision": facts.base.revision}
    return json.dumps(config, indent=2, sort_keys=True).encode()
