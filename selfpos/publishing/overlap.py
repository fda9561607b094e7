"""What `selfpos overlap`, or the guard of a run, found that training data shares with test data, as sentences for the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError

FILE = "overlap.yaml"  # in a published model; as JSON it would be taken for a part of the model


def read_overlap(files: Sequence[Path]) -> Mapping[str, Any] | None:
    """The report in the first of `files` that is there; None where none is. Raises SelfposError where it is no such report."""
    import yaml

    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    try:
        report = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError):
        report = None
    sources = report.get("sources") if isinstance(report, dict) else None
    if not isinstance(sources, dict) or not all(
        isinstance(found, dict) and isinstance(found.get("tasks"), dict) for found in sources.values()
    ):
        raise SelfposError(f"{file} is no report of `selfpos overlap`; make it anew with --out")
    return report


def overlap_sentences(report: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What is to be said of the training data called `names` (all, where the report knows none of them): a sentence for each source and task that
    it gives test items of away, and one for the tasks where nothing was found."""
    settings = report.get("settings") or {}
    sources = {name: found for name, found in report["sources"].items() if name in names} or report["sources"]
    threshold = settings.get("threshold")
    how = f"word for word or nearly (Jaccard similarity from {threshold:g})" if threshold else "word for word"
    lines, touched, asked = [], set(), dict[str, None]()
    for name, found in sources.items():
        for task, one in found["tasks"].items():
            asked[task] = None
            given = one["exact"] + one["near"]
            if not given:
                continue
            touched.add(task)
            nearly = (
                f", {one['near']:,} of them nearly so and the others word for word"
                if one["near"]
                else ", word for word"
            )
            fate = "; the records that do were left out of training" if settings.get("remove") else ""
            lines.append(
                f"Training data of {name} gives {given:,} of the {one['items']:,} test items of {task} away{nearly}{fate}."
            )
    clean = [task for task in asked if task not in touched]
    if clean:
        other = "other " if touched else ""
        lines.append(
            f"No training record was found to give a test item of {other}tasks away, {how}: {', '.join(clean)}."
        )
    if report.get("not checked"):
        lines.append(
            f"Not checked for overlap, since their test items are not known: {', '.join(report['not checked'])}."
        )
    return lines
