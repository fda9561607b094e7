"""The plan to publish a probe set as a data set of the Hub, with a card that says what is in it."""

from __future__ import annotations

import json
from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.publishing.card import MARK
from selfpos.publishing.checks import target_problems
from selfpos.publishing.files import files_of, planned
from selfpos.publishing.licence import Licence
from selfpos.publishing.markdown import environment
from selfpos.publishing.plan import CARD, PushPlan, in_order
from selfpos.publishing.story import DataSource, Facts

FILE = "probe.jsonl"


def plan_probe(
    folder: Path, repo: str, model: str, facts: Facts, licence: Licence, *, private: bool = True
) -> PushPlan:
    """Plan to send the probe set in `folder` to the data set repository `repo`. `model` is the Hub id of the model that was found with it.

    Raises SelfposError where `folder` holds no probe set.
    """
    rows = _count(folder / FILE, facts)
    text = environment().get_template("probe.md.j2").render(
        metadata=_metadata(facts, licence), mark=MARK, title=repo.rpartition("/")[2], model=model, file=FILE, rows=rows,
        total=sum(row.records or 0 for row in rows),
    )  # fmt: skip
    files, notes = files_of(folder)
    files |= planned({CARD: (text.strip() + "\n").encode()})
    return PushPlan(
        repo=repo, repo_type="dataset", private=private, branch=None, pull_request=False, replace=False,
        message=f"Upload the probe set of {model} with selfpos", files=in_order(files), card=text, licence=licence,
        problems=tuple(target_problems(repo, None, False)), notes=tuple(notes),
    )  # fmt: skip


def _count(file: Path, facts: Facts) -> list[DataSource]:
    """Tasks of the probe set with their types and numbers of records, as the file holds them, and the sources that are known."""
    if not file.is_file():
        raise SelfposError(f"there is no probe set {file}")
    found: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            found[record["task"]] = (record["type"], found.get(record["task"], ("", 0))[1] + 1)
        except (ValueError, KeyError, TypeError):
            raise SelfposError(
                f"{file}, line {number} is no record of a probe set; expected the fields task, type and record"
            ) from None
    sources = {entry.task: entry.source for entry in (facts.search.probe if facts.search else ())}
    return [DataSource(task, kind, sources.get(task), records) for task, (kind, records) in found.items()]


def _metadata(facts: Facts, licence: Licence) -> str:
    from huggingface_hub import DatasetCardData

    sources = [name for name in facts.dataset_repos if not (facts.search and name == facts.search.probe_set)]
    data = DatasetCardData(
        license=licence.id, license_name=licence.name, license_link=licence.link, tags=["selfpos", "sentence-transformers"],
        source_datasets=sources or None, configs=[{"config_name": "default", "data_files": FILE}],
    )  # fmt: skip
    return str(data.to_yaml())
