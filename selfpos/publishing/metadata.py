"""The card's metadata, by `huggingface_hub`'s classes, and its licence, which follows from the parents."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import log
from selfpos.errors import SelfposError, on_one_line
from selfpos.publishing.facts import Facts, Parent, parse_parent
from selfpos.publishing.scores import Scores
from selfpos.publishing.session import hub
from selfpos.recipe import LEARNED
from selfpos.storage.documents import parse_yaml, read_text
from selfpos.storage.locate import DEFAULT_MODEL, packaged_base
from selfpos.storage.manifest import read_manifest

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

RELATIONS = {"merged": "merge", "specialist": "finetune", "joint": "finetune"}
EMBEDDING_TAGS = (("sentence-similarity", "feature-extraction"), "sentence-similarity")
CLASS_TAGS = {
    "CrossEncoder": (("cross-encoder", "reranker"), "text-ranking"),
    "SparseEncoder": (("sparse-encoder", "sparse"), "feature-extraction"),
    "MultiVectorEncoder": (("multi-vector", "colbert", "late-interaction"), "feature-extraction"),
}
"""Class of sentence-transformers → its tags and pipeline on the Hub, as the library writes them."""
CATEGORIES = {"STS": "sentence-similarity", "Retrieval": "text-retrieval", "Reranking": "text-ranking"}

Lookup = Callable[[str, str | None], "Licence | None"]  # of a Hub repository and a revision of it
GENERATIONS = 5  # of parents on this disk
MOST_CARD = 5_000_000  # bytes: long ones have all of MTEB's results in their metadata


@dataclass(frozen=True)
class Licence:
    """A licence as the Hub writes it: an identifier, and for `other` its name and where its text is."""

    id: str
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        return f"{self.id} ({self.name})" if self.name else self.id


def parse_licence(text: str) -> Licence:
    """The licence given with `--license`: a Hub identifier such as `apache-2.0`, or `other:NAME:LINK`."""
    if re.fullmatch(r"(?!other$)[a-z0-9][a-z0-9.+-]*", text.strip()):
        return Licence(text.strip())
    other = re.fullmatch(r"other:([^:]+):((?:https?://|LICENSE).*)", text.strip())
    if other is None:
        raise SelfposError(
            f"--license '{text}' is no licence identifier of the Hub; write one such as apache-2.0, mit or "
            "cc-by-nc-4.0, or other:NAME:LINK, where LINK is a URL or the file LICENSE in the model folder"
        )
    return Licence("other", other[1], other[2])


def derive_licence(facts: Facts, lookup: Lookup | None = None) -> Licence:
    """The licence that the base and all parents share; `lookup` asks the Hub for those not on this disk.

    Raises SelfposError, asking for `--license`, where one is unknown or two differ.
    """
    if recorded := facts.record.get("licence"):
        return parse_licence(recorded)
    if not facts.family:
        raise SelfposError(f"{facts.name} records no parent to take a licence from; name one with --license")
    licences = {parent.name: _licence_of(parent, facts.base, lookup) for parent in facts.family}
    unknown = [name for name, licence in licences.items() if licence is None]
    if unknown:
        raise SelfposError(
            f"the licence of {', '.join(unknown)} is not known, so {facts.name} cannot inherit it; "
            "name it with --license"
        )
    first, *others = dict.fromkeys(licence for licence in licences.values() if licence is not None)
    if others:
        listed = ", ".join(f"{name}: {licence}" for name, licence in licences.items())
        raise SelfposError(
            f"the parents of {facts.name} have different licences ({listed}); "
            "decide which applies and name it with --license"
        )
    return first


def _licence_of(parent: Parent, base: Parent | None, lookup: Lookup | None) -> Licence | None:
    """The licence in the card of the parent's folder, else of what that was made from, else of the Hub.

    A parent whose base has the same content hash as `base` was fine-tuned from it.
    """
    for _ in range(GENERATIONS):
        folder = parent.folder
        if folder is None and parent.name.removeprefix("sentence-transformers/") == DEFAULT_MODEL:
            folder = packaged_base()
        if folder is None:
            break
        if licence := card_licence(folder / "README.md"):
            return licence
        origin = parse_parent(read_manifest(folder).get("base"))
        if origin is None:
            break
        parent = base if base and base.hash and base.hash == origin.hash else origin
    return lookup(parent.repo, parent.revision) if lookup and parent.repo else None


def card_licence(card: Path) -> Licence | None:
    """The licence in the metadata of the model card at `card`; None where there is none."""
    if not card.is_file():
        return None
    try:
        return _from_metadata(front_matter(read_text(card, MOST_CARD)))
    except (SelfposError, ValueError) as error:
        log.warning("%s names no licence that can be read: %s", card, on_one_line(error, 300))
        return None


def front_matter(text: str) -> dict[str, Any]:
    """The metadata with which the card `text` begins. Raises ValueError where it is none, or beyond the
    bounds of YAML here.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(text)
    data = parse_yaml(block[2]) if block else None
    if not isinstance(data, dict | None):
        raise ValueError("it is no mapping")
    return data or {}


def hub_licence(repo: str, revision: str | None) -> Licence | None:
    """The licence in the card of `repo` on the Hub; None where it names none or the Hub cannot be asked."""
    try:
        with hub(f"looking up the licence of {repo}", repo) as api:
            card = api.model_info(repo, revision=revision).card_data
    except SelfposError as error:
        log.warning("%s", error)
        return None
    return _from_metadata(card.to_dict()) if card else None


def _from_metadata(data: dict[str, Any]) -> Licence | None:
    """The licence in a card's metadata; of a list only a single one, and `unknown` is none."""
    licence = data.get("license")
    if isinstance(licence, list) and len(licence) == 1:
        licence = licence[0]
    if not isinstance(licence, str) or licence == "unknown":
        return None
    if licence == "other":
        return Licence(licence, data.get("license_name"), data.get("license_link"))
    return Licence(licence)


def card_data(
    facts: Facts, licence: Licence | None, title: str, scores: Scores | None = None, model: str | None = None
) -> ModelCardData:
    """Metadata of the card titled `title`; `model` is this model's name in `scores`."""
    from huggingface_hub import ModelCardData

    bases = list(dict.fromkeys(parent.repo for parent in facts.family if parent.repo))
    relation = "adapter" if facts.adapter else RELATIONS.get(facts.kind)
    results = eval_results(scores, model) if scores and model else []
    of_class, pipeline = CLASS_TAGS.get(facts.summary.kind, EMBEDDING_TAGS)
    tags = ["sentence-transformers", *of_class, "selfpos"]
    if facts.kind == "merged":
        tags += ["merge", *([facts.method] if facts.method else [])]
    if facts.adapter:
        tags.append("lora")
    if facts.search and facts.method not in LEARNED:
        tags.append("self-positioning")
    return ModelCardData(
        library_name="peft" if facts.adapter else "sentence-transformers",
        pipeline_tag=pipeline,
        license=licence.id if licence else None,
        license_name=licence.name if licence else None,
        license_link=licence.link if licence else None,
        base_model=bases or None,
        base_model_relation=relation if bases else None,
        datasets=facts.dataset_repos or None,
        tags=tags,
        model_name=title if results else None,
        eval_results=results or None,
    )


def eval_results(scores: Scores, model: str) -> list[EvalResult]:
    """This model's scores for the Hub's model-index, in percent, by MTEB's data sets, subsets and splits."""
    from huggingface_hub import EvalResult

    entries = []
    for result in scores.models[model]:
        task, from_hub = scores.tasks[result.task], scores.from_hub(result)
        name = result.task
        if task.dataset:
            name = f"MTEB {result.task}" if from_hub else f"MTEB {result.task}, data kept locally"
        for score in result.scores:
            entries.append(
                EvalResult(
                    task_type=task.category or CATEGORIES.get(str(task.type), "feature-extraction"),
                    task_name=task.type,
                    dataset_type=task.dataset if task.dataset and from_hub else "unknown",
                    dataset_name=name,
                    dataset_config=score.subset,
                    dataset_split=score.split,
                    # of local data its hash, without which the Hub's classes join the sets of one type
                    dataset_revision=result.data_revision,
                    metric_type=task.metric or "main_score",
                    metric_value=round(100 * score.value, 3),
                )
            )
    return entries


def check_metadata(text: str) -> list[str]:
    """Faults in the metadata of the card `text`, as sentences."""
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id
    from yaml import YAMLError

    try:
        front_matter(text)
        data = ModelCard(text, ignore_metadata_errors=False).data.to_dict()
    except (ValueError, YAMLError) as error:
        return [f"the card's metadata is not valid: {on_one_line(error)}"]
    faults = []
    for key in ("base_model", "datasets"):
        names = data.get(key) or []
        for name in [names] if isinstance(names, str) else names:
            try:
                validate_repo_id(name)
            except HFValidationError:
                faults.append(f"the card names '{name}' under {key}, which is no id of the Hub")
    if data.get("license") == "other" and not (data.get("license_name") and data.get("license_link")):
        faults.append("licence 'other' needs a name and a link: --license other:NAME:LINK")
    return faults


def check_repo(repo: str) -> list[str]:
    """Faults in the Hub id `repo`, which is to be USER/NAME, as sentences."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        return [f"'{repo}' is no repository id of the Hub: {on_one_line(error)}"]
    return [] if "/" in repo else [f"'{repo}' names no owner; write USER/NAME"]
