"""The report on test items in training data, by `selfpos overlap` or a run, as sentences for the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError

FILE = "overlap.yaml"  # in a published model; a JSON file would count as part of the model


def read_overlap(files: Sequence[Path]) -> Mapping[str, Any] | None:
    """The report in the first file that exists, None where none does; refused where it is no such report."""
    import yaml

    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    try:
        report = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError):
        report = None
    if not isinstance(report, dict) or not isinstance(report.get("sources"), dict):
        raise SelfposError(f"{file} is no report of `selfpos overlap`; write a new one with --out")
    return report


def overlap_sentences(report: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """A sentence for each source among `names` and task whose test items it contains, and one for all others.

    All sources count if the report has none of `names`.
    """
    settings = report.get("settings") or {}
    sources = {name: entry for name, entry in report["sources"].items() if name in names} or report["sources"]
    removed = " Those records were removed before training." if settings.get("remove") else ""
    sentences = []
    clean: dict[str, bool] = {}  # task → whether no source contains its test items
    for name, source in sources.items():
        for task, counts in source["tasks"].items():
            total = counts["exact"] + counts["near"]
            clean[task] = clean.get(task, True) and not total
            if total:
                near = f", {counts['near']:,} of them nearly and the others" if counts["near"] else ""
                sentences.append(
                    f"The training data of {name} contains {total:,} of the {counts['items']:,} test items "
                    f"of {task}{near} word for word.{removed}"
                )
    if any(clean.values()):
        threshold = settings.get("threshold")
        how = f" or nearly (Jaccard similarity from {threshold:g})" if threshold else ""
        sentences.append(
            f"No training record contains a test item of {'' if all(clean.values()) else 'other '}tasks word "
            f"for word{how}: {', '.join(task for task in clean if clean[task])}."
        )
    if report.get("not checked"):
        unchecked = ", ".join(report["not checked"])
        sentences.append(f"Not checked for overlap, since their test items are unknown: {unchecked}.")
    return sentences
