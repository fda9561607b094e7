"""Where facts about a model come from: its files, the run that it is part of, the report on overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, load_recipe
from selfpos.storage.documents import parse_yaml, read_text
from selfpos.storage.file_kinds import ADAPTER, CONFIG, MODULES, PROMPTS_CONFIG
from selfpos.storage.inside import leads_out
from selfpos.storage.manifest import read_json
from selfpos.storage.model_class import EMBEDDER, RERANKER, class_of
from selfpos.storage.model_folder import read_modules
from selfpos.storage.run_folder import RunFolder
from selfpos.storage.tensor_file import read_header
from selfpos.training.models import token_limit

OVERLAP = "overlap.yaml"  # in a published model; a JSON file would count as part of the model

POOLINGS = ("mean", "cls", "lasttoken")  # those that the card shows code for


@dataclass(frozen=True)
class ModelSummary:
    """A model from the outside.

    `dimension` is that of an embedding, `max_tokens` of a text, `parameters` counts weights. `pooling`,
    `dimension`, `max_tokens`, `default_prompt` and `similarity` are None where the folder does not say;
    `adapter` is an adapter's configuration, None for a whole model.
    """

    modules: tuple[str, ...]
    pooling: str | None
    dimension: int | None
    max_tokens: int | None
    prompts: Mapping[str, str]
    default_prompt: str | None
    similarity: str | None
    parameters: int
    dtypes: tuple[str, ...]
    adapter: Mapping[str, Any] | None
    kind: str = EMBEDDER
    """The class of sentence-transformers that loads it."""

    @property
    def transformers_pooling(self) -> str | None:
        """The pooling to show plain transformers code for; None where more code would be needed."""
        inner = [kind for kind in self.modules if kind != "Normalize"]
        return self.pooling if inner == ["Transformer", "Pooling"] and self.pooling in POOLINGS else None


def read_summary(folder: Path) -> ModelSummary:
    """Summarise the sentence-transformers model or PEFT adapter in `folder` from settings and headers.

    Raises SelfposError where it is neither, or where a weights file is not a whole safetensors file.
    """
    adapter = read_json(folder / ADAPTER, missing_ok=True) or None
    modules = []
    plain = not (folder / MODULES).is_file() and class_of(folder) != EMBEDDER
    if (folder / MODULES).is_file() or plain:
        modules = [(module.kind, folder / module.path) for module in read_modules(folder, plain=plain)]
    elif adapter is None:
        raise SelfposError(
            f"{folder} is neither a sentence-transformers model (no modules.json) "
            f"nor a PEFT adapter (no {ADAPTER})"
        )
    settings = read_json(folder / PROMPTS_CONFIG, missing_ok=True)
    pooling, dimension = _output(modules)
    weights, kind = _weights(folder), class_of(folder)
    return ModelSummary(
        modules=tuple(kind for kind, _ in modules),
        pooling=pooling,
        dimension=None if kind in (RERANKER, "SparseEncoder") else dimension,
        max_tokens=token_limit(next((path for kind, path in modules if kind == "Transformer"), folder)),
        prompts=settings.get("prompts") or {},
        default_prompt=settings.get("default_prompt_name"),
        similarity=settings.get("similarity_fn_name"),
        parameters=sum(weights.values()),
        dtypes=tuple(sorted(weights, key=lambda dtype: (-weights[dtype], dtype))),
        adapter=adapter,
        kind=kind,
    )


def _output(modules: list[tuple[str, Path]]) -> tuple[str | None, int | None]:
    """Pooling mode and dimension of the embedding, which the last module that changes it decides."""
    pooling, dimension = None, None
    for kind, path in modules:
        config = read_json(path / CONFIG, missing_ok=True)
        if kind == "Pooling":
            # Older versions of sentence-transformers wrote `pooling_mode_mean_tokens: true`.
            older = [name for name in config if name.startswith("pooling_mode_") and config[name] is True]
            modes = [name.removeprefix("pooling_mode_").partition("_token")[0] for name in older]
            mode = config.get("pooling_mode") or modes
            pooling = mode if isinstance(mode, str) else "+".join(mode)
            width = config.get("embedding_dimension") or config.get("word_embedding_dimension")
            dimension = width * len(pooling.split("+")) if width else None
        elif kind == "Dense":
            dimension = config.get("out_features") or dimension
        elif kind == "Transformer" and dimension is None:
            dimension = config.get("hidden_size")
    return pooling, dimension


def _weights(folder: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        for entry in read_header(file)[0].values():
            if entry.mergeable:  # not a buffer of integers, such as position ids
                counts[entry.dtype] = counts.get(entry.dtype, 0) + entry.numel
    return counts


@dataclass(frozen=True)
class ModelRun:
    """A run and one of its models."""

    folder: RunFolder
    recipe: Recipe
    model: Path

    @property
    def sources(self) -> Mapping[str, str | list[str]]:
        """Task → the source of its data."""
        return {name: task.data for name, task in self.recipe.tasks.items()}

    @property
    def trajectory(self) -> Path:
        """The steps of the search behind the model; the file need not exist."""
        return self.folder.trajectory(self.model.name)

    @property
    def is_bagged(self) -> bool:
        """Whether the model, or what it was merged from, is of the bagging pipeline."""
        merge = self.recipe.merges.get(self.model.name)
        return self.model.name in self.recipe.bags or (merge is not None and merge.vectors == "bagging")

    @property
    def seconds(self) -> float | None:
        """Seconds of the job that made the model; None where unknown."""
        return self._seconds(self.folder.places(self.model.name)[self.model])

    def trained(self, name: str) -> Path | None:
        """The folder of the model `name` if the run trained, rather than merged, it."""
        places = [path for path in self.folder.places(name) if path != self.folder.merged(name)]
        return next((path for path in places if path.is_dir()), None)

    def training_seconds(self, names: Sequence[str]) -> float | None:
        """Seconds of training all models `names`; None where that of one is unknown."""
        paths = [self.trained(name) for name in names]
        seconds = [self._seconds(self.folder.places(path.name)[path]) for path in paths if path]
        measured = [value for value in seconds if value is not None]
        return sum(measured) if measured and len(measured) == len(paths) else None

    def _seconds(self, job: str) -> float | None:
        mark = self.folder.mark(job)
        return read_json(mark).get("seconds") if mark.is_file() else None


def run_of(model: Path) -> ModelRun | None:
    """The run whose folder holds `model`; None for a model outside a run."""
    path = model.resolve()
    for parent in path.parents[:2]:
        folder = RunFolder(parent)
        if folder.recipe.is_file() and path in folder.places(path.name):
            return ModelRun(folder, load_recipe(folder.recipe), path)
    return None


def read_overlap(files: Sequence[Path]) -> Mapping[str, Any] | None:
    """The report in the first file that exists, None where none does; refused where it is no such report."""
    file = next((file for file in files if file.is_file() and not leads_out(file.parent, file)), None)
    if file is None:
        return None
    from selfpos.storage.manifest_types import OverlapReport

    try:
        report = parse_yaml(read_text(file))  # JSON is YAML
        OverlapReport.model_validate(report)
    except ValueError:
        raise SelfposError(f"{file} is no report of `selfpos overlap`; write a new one with --out") from None
    return report


def overlap_sentences(report: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """A sentence for each source and task whose test items it contains, and one for all other tasks.

    Sources are those in `names`, or all if the report has none of them.
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
        similarly = f" or nearly (Jaccard similarity from {threshold:g})" if threshold else ""
        sentences.append(
            f"No training record contains a test item of {'' if all(clean.values()) else 'other '}tasks word "
            f"for word{similarly}: {', '.join(task for task in clean if clean[task])}."
        )
    if report.get("not checked"):
        unchecked = ", ".join(report["not checked"])
        sentences.append(f"Not checked for overlap, since their test items are unknown: {unchecked}.")
    return sentences
