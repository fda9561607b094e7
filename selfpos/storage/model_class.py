"""Which class of sentence-transformers a model folder is of, and what a loaded model of such a class has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import CONFIG, MODULES, PROMPTS_CONFIG
from selfpos.storage.loading import strangers_files
from selfpos.storage.manifest import read_json
from selfpos.storage.model_folder import read_modules
from selfpos.storage.networks import architectures, task_of

EMBEDDER, RERANKER = "SentenceTransformer", "CrossEncoder"
SPARSE, MULTI_VECTOR = "SparseEncoder", "MultiVectorEncoder"
OTHERS = (RERANKER, SPARSE, MULTI_VECTOR)
"""The classes that do not make one vector of a text, or none that cosines compare."""
PYLATES_CLASS, PYLATES_MODULES = "ColBERT", "pylate"
"""What PyLate calls a MultiVectorEncoder, and the package of its modules."""
PYLATES_DENSE = "pylate.models.Dense.Dense"
"""The module of PyLate that sentence-transformers reads as its own."""
SIMILARITIES = {EMBEDDER: "cosine", SPARSE: "dot", MULTI_VECTOR: "maxsim"}
"""Class → the similarity that sentence-transformers takes where the model says none."""
STANFORDS_CLASS = "HF_ColBERT"
"""What config.json calls a ColBERT as Stanford's library stores it: plain, its projection in the file."""
PACKAGES = {
    "cross_encoder": RERANKER,
    "sparse_encoder": SPARSE,
    "multi_vector_encoder": MULTI_VECTOR,
    PYLATES_MODULES: MULTI_VECTOR,
}
"""Packages of modules that one class alone has → that class."""


SAMPLE = ("a", "The quick brown fox jumps over the lazy dog")
"""Texts that every model embeds."""


def class_of(folder: Path) -> str:
    """The class of sentence-transformers that the model in `folder` is of; its own where it says none.

    Loading it with another class gives no error, but another model: a mean over what a reranker reads, say.
    """
    if not (folder / MODULES).is_file():
        if task_of(folder) == "sequence-classification":
            return RERANKER
        colbert = STANFORDS_CLASS in architectures(read_json(folder / CONFIG, missing_ok=True))
        return MULTI_VECTOR if colbert else EMBEDDER
    stated = read_json(folder / PROMPTS_CONFIG, missing_ok=True).get("model_type")
    if stated:
        return MULTI_VECTOR if stated == PYLATES_CLASS else str(stated)
    modules = read_modules(folder)
    for package, name in PACKAGES.items():
        if any(f".{package}." in f".{module.type}" for module in modules):
            return name
    first = folder / modules[0].path
    return RERANKER if task_of(first) == "sequence-classification" else EMBEDDER


def similarity_of(folder: Path) -> str:
    """How the SentenceTransformer in `folder` compares embeddings, its `similarity_fn_name`."""
    stated = read_json(folder / PROMPTS_CONFIG, missing_ok=True).get("similarity_fn_name")
    return str(stated or SIMILARITIES[EMBEDDER])


def check_embeds(folder: Path, *allowed: str) -> None:
    """Raise SelfposError where the model at `folder` is no SentenceTransformer, and of no `allowed` class."""
    kind = class_of(folder)
    if kind not in (EMBEDDER, *allowed):
        raise SelfposError(
            f"{folder} is a {kind}: such models are trained by `selfpos finetune`, merged by "
            f"self-positioning, regmean and methods that use no data ({RERANKER}s by fisher too), and scored "
            f"by `selfpos eval-mteb`; {RERANKER}s are also trained in runs, and all else takes a {EMBEDDER}"
        )


def check_one_output(folder: Path, model: Any) -> None:
    """Raise SelfposError unless `model`, the CrossEncoder in `folder`, gives one number for a pair."""
    if model.num_labels != 1:
        raise SelfposError(
            f"{folder} gives {model.num_labels} numbers for a pair of texts, one for each class; a reranker "
            "gives one"
        )


def check_works(folder: Path, model: Any) -> None:
    """Raise SelfposError unless `model`, loaded from `folder`, makes finite numbers of texts, or pairs."""
    import torch

    pairs = [(text, "a") for text in SAMPLE]
    with strangers_files(f"{folder} loads, but its parts do not fit together: embedding a text failed"):
        rows = (
            model.predict(pairs, show_progress_bar=False)
            if type(model).__name__ == RERANKER
            else model.encode(list(SAMPLE), show_progress_bar=False)
        )
        finite = all(torch.as_tensor(row).to_dense().isfinite().all() for row in rows)
    if not finite:
        outputs = "scores" if type(model).__name__ == RERANKER else "embeddings"
        raise SelfposError(f"{folder} gives {outputs} that are not finite: its weights are damaged")


def check_one_way(folder: Path, model: Any) -> None:
    """Raise SelfposError where a Router of `model`, loaded from `folder`, has questions go another way."""
    from sentence_transformers.base.modules import Router

    for module in model.modules():
        if isinstance(module, Router):
            question, document = (_route(module, side) for side in ("query", "document"))
            if question != document:
                raise SelfposError(
                    f"{folder} has a Router that sends questions through other modules than documents, and "
                    "here all texts go one way: merge such models by a method that uses no data, such as "
                    "average or linear, and score the merges with `selfpos eval-mteb`"
                )


def _route(router: Any, side: str) -> str | None:
    """Which of its modules `router` sends texts of a side through."""
    named = [router.route_mappings.get((side, modality)) for modality in ("text", None)]
    by_itself = side if side in router.sub_modules else router.default_route
    return next((route for route in named if route is not None), by_itself)


def default_prompt(model: Any) -> str | None:
    """What `model`, loaded by sentence-transformers, sets before each text or pair unless told otherwise."""
    prompts: dict[str, str] = model.prompts or {}
    return prompts.get(model.default_prompt_name)
