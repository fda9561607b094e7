"""A run whose models are scored, as files in MTEB's layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean


def write_manifest(folder: Path, **fields: object) -> Path:
    (folder / "selfpos.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


ACCURACY = [0.5, 0.6, 0.7]


HUB_REVISION = "b0fddb56ed78048fa8b90373c8a3cfc37b684831"  # of the data that MTEB has for STSBenchmark


def write_result(
    root: Path,
    model: str,
    task: str,
    value: float,
    revision: str = HUB_REVISION,
    content: str = "rev",
    **more: object,
) -> Path:
    """One of MTEB's result files, in MTEB's own layout below `root`; `content` stands for the model's
    revision.
    """
    entry = {"main_score": value, "hf_subset": "default", "languages": ["eng-Latn"], **more}
    record = {
        "dataset_revision": revision,
        "task_name": task,
        "mteb_version": "2.26.24",
        "evaluation_time": 1.0,
        "scores": {"test": [entry]},
    }
    file = root / "results" / model.replace("/", "__") / content / f"{task}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))
    return file


def write_last(root: Path, model: str, tasks: dict[str, tuple[str, str, float]]) -> None:
    listed = {
        task: {
            "type": kind,
            "metric": metric,
            "main_score": value,
            "file": f"results/{model.replace('/', '__')}/rev/{task}.json",
        }
        for task, (kind, metric, value) in tasks.items()
    }
    (root / "last.json").write_text(json.dumps({"model": model, "revision": "rev", "tasks": listed}))


def write_run(tiny_base: Path, run: Path) -> Path:
    """A run `quick` with a base, a specialist and the merged model `sp`, all scored on a task of MTEB's and
    on two of our own.
    """
    tasks = {"retrieval": {"type": "retrieval", "data": "corpus"}}
    recipe = {"name": "quick", "tasks": tasks, "merges": {"sp": {"method": "ties"}}}
    run.mkdir()
    (run / "recipe.yaml").write_text(json.dumps(recipe))
    model = Path(shutil.copytree(tiny_base, run / "merged" / "sp"))
    sources = [{"name": "retrieval", "hash": "a" * 64}]
    write_manifest(
        model,
        kind="merge",
        licence="mit",
        base={"name": "model", "hash": "b" * 64},
        merge={"method": "ties", "sources": sources},
    )
    for name, sts, docs in (("base", 0.82, 0.3), ("retrieval", 0.7, 0.5), ("sp", 0.81234, 0.6)):
        root = run / "scores" / name
        write_result(root, f"quick/{name}", "STSBenchmark", sts)
        write_result(root, f"quick/{name}", "OwnDocsRetrieval", docs)
        write_result(
            root,
            f"quick/{name}",
            "OwnLabels",
            fmean(ACCURACY),
            scores_per_experiment=[{"accuracy": value} for value in ACCURACY],
        )
        known = {
            "STSBenchmark": ("STS", "cosine_spearman", sts),
            "OwnDocsRetrieval": ("Retrieval", "ndcg_at_10", docs),
        }
        write_last(
            root, f"quick/{name}", known | {"OwnLabels": ("Classification", "accuracy", fmean(ACCURACY))}
        )
    return run
