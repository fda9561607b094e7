"""The card's metadata, made and checked with `huggingface_hub`'s own classes so that the Hub accepts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfpos.publishing.facts import Facts
from selfpos.publishing.licence import Licence
from selfpos.publishing.scores import Scores
from selfpos.recipe import LEARNED

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

RELATIONS = {"merged": "merge", "specialist": "finetune", "joint": "finetune"}
CATEGORIES = {"STS": "sentence-similarity", "Retrieval": "text-retrieval", "Reranking": "text-ranking"}


def card_data(
    facts: Facts, licence: Licence | None, title: str, scores: Scores | None = None, model: str | None = None
) -> ModelCardData:
    """Metadata of the card titled `title`; `model` is this model's name in `scores`."""
    from huggingface_hub import ModelCardData

    bases = list(dict.fromkeys(parent.repo for parent in facts.family if parent.repo))
    relation = "adapter" if facts.adapter else RELATIONS.get(facts.kind)
    results = eval_results(scores, model) if scores and model else []
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "selfpos"]
    if facts.kind == "merged":
        tags += ["merge", *([facts.method] if facts.method else [])]
    if facts.adapter:
        tags.append("lora")
    if facts.search and facts.method not in LEARNED:
        tags.append("self-positioning")
    return ModelCardData(
        library_name="peft" if facts.adapter else "sentence-transformers",
        pipeline_tag="sentence-similarity",
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
                    dataset_revision=result.data_revision if from_hub else None,
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
        data = ModelCard(text, ignore_metadata_errors=False).data.to_dict()
    except (ValueError, YAMLError) as error:
        return [f"the card's metadata is not valid: {' '.join(str(error).split())}"]
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
        return [f"'{repo}' is no repository id of the Hub: {' '.join(str(error).split())}"]
    return [] if "/" in repo else [f"'{repo}' names no owner; write USER/NAME"]
