"""Which prompt a text gets: the model's own, else the one that mteb lists for well-known models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from selfpos.evaluation.embed import EncodingOptions

if TYPE_CHECKING:
    from selfpos.evaluation.encoder import Encoder

INSTRUCTED, PLAIN = "InstructSentenceTransformerModel", "SentenceTransformerEncoderWrapper"
# The prompts that sentence-transformers uses for a side, in the order in which it looks for them.
NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}


@dataclass(frozen=True)
class ListedPrompts:
    """mteb's entry for a model.

    `prompts` have the names under which mteb looks for them. `template` goes around the instruction of each
    task; for documents only if they are `instructed`. `loader` is set when mteb loads the model with special
    code, which selfpos does not use.
    """

    prompts: dict[str, str] = field(default_factory=dict)
    template: Any = None
    instructed: bool = True
    loader: str | None = None


def listed_prompts(name: str) -> ListedPrompts:
    """mteb's entry for the model called `name`; empty for models that mteb does not know."""
    import mteb

    try:
        meta = mteb.get_model_meta(name, fetch_from_hf=False)
    except (KeyError, ValueError):
        return ListedPrompts()
    loader = getattr(meta.loader, "__name__", None)
    settings = meta.loader_kwargs or {}
    if loader == INSTRUCTED:
        instructed = settings.get("apply_instruction_to_passages", True)
        return ListedPrompts(template=settings.get("instruction_template"), instructed=instructed)
    special = None if loader in (PLAIN, None) else loader
    return ListedPrompts(prompts=dict(settings.get("model_prompts") or {}), loader=special)


def encoding_options(encoder: Encoder, task_metadata: Any, prompt_type: Any) -> EncodingOptions:
    """The prompt as mteb and sentence-transformers choose it, and the side if the model distinguishes it."""
    from mteb.models.abs_encoder import get_prompt_name

    side = None if prompt_type is None else str(prompt_type.value)
    kept_side = side if encoder.sided else None
    if encoder.listed.template is not None:
        prompt = None
        if encoder.listed.instructed or side != "document":
            prompt = encoder.get_task_instruction(task_metadata, prompt_type)
        return EncodingOptions(prompt or None, kept_side)
    if encoder.model_prompts:
        name = get_prompt_name(encoder.model_prompts, task_metadata, prompt_type)
        if name is not None:
            return EncodingOptions(encoder.model_prompts[name] or None, kept_side)
    prompts, default = encoder.model.prompts, encoder.model.default_prompt_name
    name = next((name for name in NAMES.get(side or "", ()) if name in prompts), default or "")
    return EncodingOptions(prompts.get(name) or None, kept_side)


def describe_prompts(encoder: Encoder) -> str:
    """The prompts in use and where they come from, in words."""
    listed = encoder.listed
    if listed.template is not None:
        text = f"the instruction of each task in {listed.template!r}"
        text += "" if listed.instructed else ", documents without"
    else:
        prompts = {name: prompt for name, prompt in (encoder.model.prompts or {}).items() if prompt}
        text = ", ".join(f"{name} {prompt!r}" for name, prompt in prompts.items()) or "none"
    if listed.template is not None or listed.prompts:
        text += "; from mteb's list of models, since the folder has none"
    if listed.loader is not None:
        text += f"; mteb itself loads this model with {listed.loader}, which is not used here"
    return text
