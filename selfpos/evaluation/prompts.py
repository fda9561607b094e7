"""Prompts of models whose folders do not hold them: mteb keeps a list of what the authors of well-known models put before their texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

INSTRUCTED, PLAIN = "InstructSentenceTransformerModel", "SentenceTransformerEncoderWrapper"


@dataclass(frozen=True)
class ListedPrompts:
    """What mteb's list says of a model: `prompts` by the names under which mteb looks for them, or the `template` around the instruction that each
    task has, for documents only where they are `instructed`; `loader` when mteb loads the model in a way of its own, which is not used here."""

    prompts: dict[str, str] = field(default_factory=dict)
    template: Any = None
    instructed: bool = True
    loader: str | None = None


def listed_prompts(name: str) -> ListedPrompts:
    """What mteb's list says of the model called `name`; nothing where it does not know it."""
    import mteb

    try:
        meta = mteb.get_model_meta(name, fetch_from_hf=False)
    except (KeyError, ValueError):
        return ListedPrompts()
    loader = getattr(meta.loader, "__name__", None)
    options = meta.loader_kwargs or {}
    if loader == INSTRUCTED:
        return ListedPrompts(
            template=options.get("instruction_template"),
            instructed=options.get("apply_instruction_to_passages", True),
        )
    return ListedPrompts(
        prompts=dict(options.get("model_prompts") or {}), loader=None if loader in (PLAIN, None) else loader
    )
