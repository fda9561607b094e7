"""The records of tasks on the user's own files, and what decides their scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from selfpos.data.beir import Beir, beir_files, read_beir
from selfpos.errors import SelfposError
from selfpos.recipe import Settings

Splits = Mapping[str, Any]
"""Split → its records with canonical columns; for retrieval a `Beir`."""


class ClassificationSettings(Settings):
    """How mteb trains and tests its logistic regression."""

    samples_per_label: int = Field(8, ge=1, description="training texts drawn of each label")
    n_experiments: int = Field(10, ge=1, description="draws; the score is their mean")
    seed: int = Field(42, ge=0)


class ClusteringSettings(Settings):
    """How mteb draws the documents that it clusters: all of them here, for 4 % of a user's 200 would be 8."""

    max_fraction_of_documents_to_embed: float | None = Field(None, gt=0, le=1)
    max_document_to_embed: int | None = Field(None, ge=2)
    max_documents_per_cluster: int = Field(
        16_384, ge=2, description="documents in one clustering, drawn with repeats"
    )
    n_clusters: int = Field(10, ge=1, description="clusterings; the score is their mean")
    seed: int = Field(42, ge=0)

    @model_validator(mode="after")
    def _one_limit(self) -> ClusteringSettings:
        if None not in (self.max_fraction_of_documents_to_embed, self.max_document_to_embed):
            raise ValueError("give 'max_fraction_of_documents_to_embed' or 'max_document_to_embed', not both")
        return self


class RetrievalSettings(Settings):
    """What mteb ranks."""

    ignore_identical_ids: bool = Field(
        False, description="leave the document with a query's id out of that query's ranking"
    )


class NoSettings(Settings):
    """Of the types whose score follows from the data alone."""


SETTINGS: dict[str, type[Settings]] = {
    "classification": ClassificationSettings,
    "clustering": ClusteringSettings,
    "retrieval": RetrievalSettings,
}


def read_split(
    kind: str, source: Path, split: str, columns: Mapping[str, str] | None = None
) -> tuple[Any, str]:
    """The records in the file or folder `source`, and what was left out of them, in words.

    Raises SelfposError for records without text or value: a score over the others would be another task's.
    """
    from selfpos.data.sources import load_source
    from selfpos.tasks import get_task

    if kind == "retrieval":
        found = read_beir(source, beir_files(source, split))
        if blank := sum(not found.queries[key].strip() for key in found.relevant):
            raise SelfposError(
                f"{source}: of {len(found.relevant)} queries {blank} with a blank text; fill them in, or "
                "remove their judgements"
            )
        return found, found.remark
    if not source.exists():
        raise SelfposError(f"there is no data file {source}")
    loaded = load_source(str(source), get_task(kind), split=split, columns=columns)
    lacking = {reason: count for reason, count in loaded.dropped.items() if reason != "type"}
    if lacking:
        counts = ", ".join(f"{count} with a {reason}" for reason, count in lacking.items())
        raise SelfposError(f"{source}: of {loaded.found} records {counts}; fill them in, or remove them")
    left_out = loaded.dropped.get("type", 0)
    why = "without a label left out"
    if kind == "reranking":
        why = "gathered with others of their question, or left out without a right and a wrong answer"
    return loaded.dataset.to_list(), f"{left_out} records {why}" if left_out else ""


def check_records(kind: str, splits: Splits, where: str) -> None:
    """Raise SelfposError for records on which mteb would compute nothing, or nonsense."""
    if kind in ("sts", "retrieval", "reranking"):
        return
    labels = {split: {str(record["label"]) for record in records} for split, records in splits.items()}
    for split, found in labels.items():
        if len(found) < 2:
            raise SelfposError(
                f"{where}: all {len(splits[split])} records of {split} have the label "
                f"{next(iter(found), '')}; a task needs two labels or more"
            )
    if kind == "classification" and (strange := sorted(labels["test"] - labels["train"])):
        raise SelfposError(
            f"{where}: {len(strange)} labels of test are not in train ({', '.join(strange[:5])}), so that no "
            "classifier can learn them; add training texts, or remove those records"
        )


def describe(kind: str, splits: Splits, settings: Settings) -> str:
    """How much data there is, and every setting that decides the score, in words."""
    parts = [f"own {kind} task"]
    for split, records in splits.items():
        if isinstance(records, Beir):
            same = len(records.relevant.keys() & records.documents.keys())
            parts.append(f"{len(records.relevant)} queries, {len(records.documents)} documents")
            if same:
                parts.append(f"{same} queries have the id of a document")
        else:
            parts.append(f"{split}: {len(records)} records")
    parts += [f"{name} {value}" for name, value in settings.model_dump().items()]
    return "; ".join(parts)
