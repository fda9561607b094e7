"""The report on test items in training data, by `selfpos overlap` or a run, as sentences for the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError

FILE = "overlap.yaml"  # in a published model; a JSON file would count as part of the model


def read_overlap(files: Sequence[Path]) -> Mapping[str, Any] | None:
    """The report in the first file that exists; None where none does.

    Raises SelfposError where it is no such report.
    """
    import yaml

    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    try:
        report = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError):
        report = None
    sources = report.get("sources") if isinstance(report, dict) else None
    valid = isinstance(sources, dict) and all(
        isinstance(source, dict) and isinstance(source.get("tasks"), dict) for source in sources.values()
    )
    if not valid:
        raise SelfposError(f"{file} is no report of `selfpos overlap`; write a new one with --out")
    return report


def overlap_sentences(report: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """A sentence for each source among `names` and task whose test items it contains, and one for all other
    tasks.

    All sources count if the report has none of `names`.
    """
    settings = report.get("settings") or {}
    sources = {name: entry for name, entry in report["sources"].items() if name in names} or report["sources"]
    removed = " Those records were removed before training." if settings.get("remove") else ""
    sentences, tasks, overlapping = [], dict[str, None](), set()
    for name, source in sources.items():
        for task, counts in source["tasks"].items():
            tasks[task] = None
            total = counts["exact"] + counts["near"]
            if total:
                overlapping.add(task)
                near = f", {counts['near']:,} of them nearly and the others" if counts["near"] else ""
                sentences.append(
                    f"The training data of {name} contains {total:,} of the {counts['items']:,} test items "
                    f"of {task}"
                    f"{near} word for word.{removed}"
                )
    clean = [task for task in tasks if task not in overlapping]
    if clean:
        threshold = settings.get("threshold")
        how = (
            f"word for word or nearly (Jaccard similarity from {threshold:g})"
            if threshold
            else "word for word"
        )
        sentences.append(
            f"No training record contains a test item of {'other ' if overlapping else ''}tasks {how}: "
            f"{', '.join(clean)}."
        )
    if report.get("not checked"):
        unchecked = ", ".join(report["not checked"])
        sentences.append(f"Not checked for overlap, since their test items are unknown: {unchecked}.")
    return sentences
