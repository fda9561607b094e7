"""MTEB tasks whose data is kept in local files: which folder and fields serve which task. The only place that knows.

Folders hold JSON Lines, one file per split (`test.jsonl` or `test.jsonl.gz`), with `text` and `label`, or `sentence1`, `sentence2` and `score` or `label`,
or `query`, `positive` and `negative`; retrieval sets are in the BEIR layout. Tasks of our own, on data that MTEB has no task for or has otherwise,
are called `selfpos-…`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.data import files
from selfpos.evaluation.tasks import new_task, retrieval_data, with_data

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

LINES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class LocalSet:
    """How local files serve one task. `folders`: MTEB's subset -> folder; `splits`: MTEB's split -> ours, where the names differ or for our own tasks;
    `labels`: our labels in the order of MTEB's numbers; `shared_ids`: MTEB numbers queries as it does documents (`WHO-7` for ours, `WHO-test-7`), and
    its task leaves out of a query's ranking the document that has the query's id."""

    kind: str
    folders: Mapping[str, str]
    splits: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[Any, ...] | None = None
    shared_ids: bool = False
    description: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


def _one(kind: str, folder: str, **more: Any) -> LocalSet:
    return LocalSet(kind, {"default": folder}, **more)


MTEB_TASKS: dict[str, LocalSet] = {
    "STSBenchmark": _one("sts", "stsbenchmark"),
    **{f"STS{year}": _one("sts", f"sts{year}") for year in (12, 13, 14, 15, 16)},
    "Banking77Classification": _one("classification", "banking77"),
    "EmotionClassification": _one(
        "classification", "emotion", labels=("sadness", "joy", "love", "anger", "fear", "surprise")
    ),
    "AmazonCounterfactualClassification": LocalSet(
        "classification", {"en": "amazon_counterfactual_en", "en-ext": "amazon_counterfactual_en_ext"}
    ),
    "PoemSentimentClassification": _one("classification", "poem_sentiment", labels=(-1, 1, 0, 2)),
    "SciFact": _one("retrieval", "scifact"),
    "MLQuestions": _one("retrieval", "mlquestions", splits={"dev": "validation"}),
    "FeedbackQARetrieval": _one("retrieval", "feedbackqa", shared_ids=True),
    "BIRCO-Relic": _one("retrieval", "birco_relic"),
    "LIMITSmallRetrieval": _one("retrieval", "limit_small"),
}

OWN_TASKS: dict[str, LocalSet] = {
    "selfpos-StackOverflowTitles": _one(
        "clustering", "stackoverflow_short", description="Titles of Stack Overflow questions, by tag (20).",
        attributes={"max_fraction_of_documents_to_embed": None, "max_document_to_embed": 4000, "max_documents_per_cluster": 4000},
    ),
    "selfpos-TwentyNewsgroupsSubjects": _one(
        "clustering", "twentynewsgroups_subjects", splits={"test": "train"},
        description="The pool of subject lines of which TwentyNewsgroupsClustering scores ten random draws; scores are near its, not equal.",
        attributes={"max_fraction_of_documents_to_embed": None, "max_documents_per_cluster": 5000},
    ),
    "selfpos-MRPC": _one("pair-classification", "mrpc", description="Microsoft Research Paraphrase Corpus, official test split."),
    "selfpos-QuoraPairs": _one("pair-classification", "quora_pairs", description="Quora Question Pairs, test part of the BiMPM split (tokenised)."),
    "selfpos-WikiQAReranking": _one("reranking", "wikiqa", description="WikiQA, questions with right and wrong answers."),
    "selfpos-CLINC150": _one("classification", "clinc150", description="CLINC150, 150 intents, full split without out-of-scope queries."),
}  # fmt: skip


def local_task(name: str, data_dir: Path, task: AbsTask | None = None) -> AbsTask:
    """The task `name` on the files in `data_dir`: MTEB's own `task`, or one of ours. Its data is read when it is first run.

    The data revision is a hash of the files, so that scores on them are never taken for scores on the Hub's data, or on files since changed.
    """
    local = OWN_TASKS[name] if task is None else MTEB_TASKS[name]
    present = [
        subset
        for subset in local.folders
        if task is None or "default" in local.folders or subset in task.hf_subsets
    ]
    splits = {
        split: local.splits.get(split, split) for split in (["test"] if task is None else task.eval_splits)
    }
    revision = ("local-ids-" if local.shared_ids else "local-") + _hash(
        [
            file
            for subset in present
            for file in _needed(local, data_dir / local.folders[subset], splits).values()
            if file
        ]
    )[:16]
    load = partial(_load, local, {subset: data_dir / local.folders[subset] for subset in present}, splits)
    if task is None:
        return new_task(
            local.kind,
            name,
            local.description,
            load,
            revision=revision,
            source=f"selfpos/{local.folders['default']}",
            **local.attributes,
        )
    metadata = task.metadata.model_copy(update={"dataset": {**task.metadata.dataset, "revision": revision}})
    served = with_data(type(task), metadata, load)
    served._eval_splits = list(splits)
    served.hf_subsets = present
    return served


def missing_files(name: str, data_dir: Path, task: AbsTask | None = None) -> list[str]:
    """What `data_dir` lacks for the task `name`, as paths below it."""
    local = OWN_TASKS[name] if task is None else MTEB_TASKS[name]
    splits = {
        split: local.splits.get(split, split) for split in (["test"] if task is None else task.eval_splits)
    }
    wanted = [
        folder
        for subset, folder in local.folders.items()
        if task is None or subset == "default" or subset in task.hf_subsets
    ]
    return [
        f"{folder}/{part}"
        for folder in wanted
        for part, file in _needed(local, data_dir / folder, splits).items()
        if file is None
    ]


def _needed(local: LocalSet, folder: Path, splits: Mapping[str, str]) -> dict[str, Path | None]:
    """The files for `splits` by what they are called, None for one that is not there."""
    if local.kind == "retrieval":
        return {
            part: file for split in splits.values() for part, file in files.beir_files(folder, split).items()
        }
    names = dict.fromkeys([*(["train"] if local.kind == "classification" else []), *splits.values()])
    return {f"{name}.jsonl[.gz]": files.find(folder, name, LINES) for name in names}


def _hash(paths: list[Path]) -> str:
    from selfpos.storage.hashing import sha256_file

    return hashlib.sha256("".join(sha256_file(path) for path in paths).encode()).hexdigest()


def _load(local: LocalSet, folders: Mapping[str, Path], splits: Mapping[str, str]) -> Mapping[str, Any]:
    """What the abstract task keeps in `dataset`."""
    loaded = {subset: _load_subset(local, folder, splits) for subset, folder in folders.items()}
    # Retrieval keeps its data by subset always, the others only where there are several.
    return (
        loaded
        if local.kind in ("retrieval", "reranking") or list(loaded) != ["default"]
        else loaded["default"]
    )


def _load_subset(local: LocalSet, folder: Path, splits: Mapping[str, str]) -> Any:
    from datasets import DatasetDict

    if local.kind == "retrieval":
        return {split: _retrieval(local, folder, ours) for split, ours in splits.items()}
    if local.kind == "reranking":
        return {split: pools(_rows(folder, ours)) for split, ours in splits.items()}
    wanted = {"train": "train", **splits} if local.kind == "classification" else dict(splits)
    tables = {split: _rows(folder, ours) for split, ours in wanted.items()}
    return DatasetDict({split: columns(local, rows, tables) for split, rows in tables.items()})


def _retrieval(local: LocalSet, folder: Path, split: str) -> dict[str, Any]:
    documents, queries, relevant = files.read_beir(folder, split)
    if local.shared_ids:
        names = {key: key.replace(f"-{split}-", "-") for key in relevant}
        queries = {names[key]: queries[key] for key in queries if key in relevant}
        relevant = {names[key]: grades for key, grades in relevant.items()}
    return retrieval_data(documents, queries, relevant)


def _rows(folder: Path, split: str) -> list[dict[str, Any]]:
    return files.read_records(files.find(folder, split, LINES) or folder / f"{split}.jsonl")


def columns(local: LocalSet, rows: list[dict[str, Any]], tables: Mapping[str, list[dict[str, Any]]]) -> Any:
    """One split of `tables` with the column names of MTEB's abstract task; labels of classification as numbers."""
    from datasets import Dataset

    def column(name: str) -> list[Any]:
        return [row[name] for row in rows]

    if local.kind == "sts":
        return Dataset.from_dict({name: column(name) for name in ("sentence1", "sentence2", "score")})
    if local.kind == "pair-classification":
        return Dataset.from_dict(
            {"sentence1": column("sentence1"), "sentence2": column("sentence2"), "labels": column("label")}
        )
    if local.kind == "clustering":
        return Dataset.from_dict({"sentences": column("text"), "labels": column("label")})
    labels = local.labels or sorted({row["label"] for table in tables.values() for row in table})
    numbers = {label: number for number, label in enumerate(labels)}
    return Dataset.from_dict({"text": column("text"), "label": [numbers[label] for label in column("label")]})


def pools(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Reranking: each question ranks its own candidates. Questions without a wrong answer tell nothing and are left out."""
    documents: dict[str, dict[str, str]] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for row in rows:
        if not row["negative"]:
            continue
        key = str(row["query_id"])
        queries[key] = row["query"]
        graded = [(text, 1) for text in row["positive"]] + [(text, 0) for text in row["negative"]]
        relevant[key] = {f"{key}-{place}": grade for place, (_, grade) in enumerate(graded)}
        documents |= {f"{key}-{place}": {"text": text} for place, (text, _) in enumerate(graded)}
    return retrieval_data(
        documents, queries, relevant, pools={key: list(grades) for key, grades in relevant.items()}
    )
