"""Rerankers, sparse and multi-vector models for mteb, which has a wrapper for each class."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mteb.models
from mteb.models.search_wrappers import SearchCrossEncoderWrapper

from selfpos.console import log
from selfpos.errors import OperationError, SelfposError
from selfpos.evaluation.encoder import PLAIN, describe_encoder, load_encoder, measured_meta
from selfpos.evaluation.load import load_model
from selfpos.storage.manifest import read_json
from selfpos.storage.model_class import EMBEDDER, RERANKER, class_of

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.models import ModelMeta

WRAPPERS = {
    RERANKER: "CrossEncoderWrapper",
    "SparseEncoder": "SparseEncoderWrapper",
    "MultiVectorEncoder": "MultiVectorWrapper",
}
SEARCHING = {RERANKER: "reranking", "MultiVectorEncoder": "retrieval and reranking"}
"""Classes that mteb scores on tasks with questions and candidates alone → those tasks in words."""


class Reranker(SearchCrossEncoderWrapper):
    """A CrossEncoder for mteb's tasks with candidates, whose scores are all numbers."""

    def search(self, queries: Any, *, top_ranked: Any = None, **options: Any) -> Any:
        if top_ranked is None:
            raise OperationError(
                "a CrossEncoder orders the candidates of each question, and the questions of this task have "
                "none, for they are asked of all documents; score it on reranking tasks"
            )
        results = super().search(queries, top_ranked=top_ranked, **options)
        if not all(isfinite(score) for scores in results.values() for score in scores.values()):
            raise OperationError(
                "the model's scores are not finite (NaN or infinity): its weights are damaged"
            )
        return results


def check_suited(folder: Path, tasks: Sequence[AbsTask]) -> None:
    """Raise SelfposError for tasks that mteb does not score models of this class on."""
    from mteb.abstasks import AbsTaskRetrieval

    kind = class_of(folder)
    if kind not in (EMBEDDER, *WRAPPERS):
        raise SelfposError(
            f"{folder} is a {kind}, which mteb has no wrapper for; it scores models of the classes "
            f"{EMBEDDER}, {', '.join(WRAPPERS)}"
        )
    unsuited = [task for task in tasks if not isinstance(task, AbsTaskRetrieval)]
    if kind in SEARCHING and unsuited:
        task = unsuited[0].metadata
        raise SelfposError(
            f"{folder} is a {kind}, which mteb scores on {SEARCHING[kind]} tasks only, not on "
            f"{task.name} ({task.type}); leave such tasks out, as with --task-types Reranking, or in a "
            "recipe's evaluation"
        )


def check_candidates(model: Any, task: AbsTask) -> None:
    """Raise OperationError for a retrieval `task` with candidates and a SparseEncoder, of whose embeddings
    mteb then takes rows, which torch does not of sparse ones. Reads the data.
    """
    from mteb.abstasks import AbsTaskRetrieval

    if not isinstance(model, mteb.models.SparseEncoderWrapper) or not isinstance(task, AbsTaskRetrieval):
        return
    if "Reranking" in task.metadata.type:  # where mteb makes them dense
        return
    task.load_data()
    if any(part.get("top_ranked") for subset in task.dataset.values() for part in subset.values()):
        raise OperationError(
            "mteb does not order candidates of a retrieval task by sparse embeddings; score a SparseEncoder "
            "on reranking tasks, or on this one without its candidates"
        )


def load_scored(
    folder: Path, meta: ModelMeta, cache: Path | None = None
) -> tuple[Any, list[tuple[str, str]]]:
    """The model in `folder` for `mteb.evaluate`, and what determines its scores besides the weights, as rows
    of label and text.

    Raises SelfposError when it does not load, or mteb is too old to have a wrapper of its class.
    """
    kind = class_of(folder)
    if kind == EMBEDDER:
        encoder = load_encoder(folder, meta, cache)
        return encoder, describe_encoder(encoder)
    wrapper = getattr(mteb.models, WRAPPERS[kind], None)
    if wrapper is None:
        raise SelfposError(
            f"{folder} is a {kind}, which mteb {mteb.__version__} does not score; install a newer mteb"
        )
    wrapped = wrapper(load_model(folder, kind))
    wrapped.mteb_model_meta = measured_meta(meta, wrapped.mteb_model_meta, wrapped.model)
    return Reranker(wrapped) if kind == RERANKER else wrapped, _described(wrapped.model, kind)


def _described(model: Any, kind: str) -> list[tuple[str, str]]:
    prompts = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt}
    if kind == RERANKER:  # one before each pair
        prompts = {name: prompt for name, prompt in prompts.items() if name == model.default_prompt_name}
    rows = [
        ("class", f"{kind}, by mteb's {WRAPPERS[kind]}"),
        ("modules", " → ".join(type(module).__name__ for module in model)),
        ("prompts", ", ".join(f"{name} {prompt!r}" for name, prompt in prompts.items()) or "none"),
        ("max length", f"{model.max_seq_length} tokens" if model.max_seq_length else "the model's own"),
    ]
    if kind == RERANKER:
        return [*rows, ("scores", f"one a pair, after {type(model.activation_fn).__name__}")]
    return [*rows, ("similarity", str(model.similarity_fn_name))]


def drop_results_of_another_class(folder: Path, out: Path, meta: ModelMeta) -> None:
    """Remove results in `out` for which the model was loaded as one that embeds texts, and is none."""
    results = mteb.ResultCache(out).get_task_result_path("any", meta).parent
    if class_of(folder) == EMBEDDER:
        return
    if read_json(results / "model_meta.json", missing_ok=True).get("loader") != PLAIN:
        return
    log.warning(
        "the results in %s are of the model loaded in another class; they are computed again", results
    )
    for file in results.glob("*.json"):
        file.unlink()
