"""A sentence-transformers folder as an encoder for mteb, with an identity of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mteb.models import ModelMeta

# Embeddings kept in memory; beyond it texts are embedded again. 200,000 of 384 numbers are 300 MB.
MOST_KEPT = 200_000
# Characters of the content hash that serve as revision: as many as in a commit of the Hub.
REVISION_LENGTH = 40


def model_name(name: str) -> str:
    """The name under which mteb files a model: `organisation/name` as it is, else `local/` and the last part of the name or path."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        return name
    return f"local/{re.sub(r'[^A-Za-z0-9_.-]+', '-', Path(name).name) or 'model'}"


def identity(folder: Path, name: str) -> ModelMeta:
    """The metadata that tells this model from every other: mteb gives all local models one name and revision, and one model's scores to all of them."""
    from mteb.models import ModelMeta

    from selfpos.storage.hashing import content_hash

    return ModelMeta.create_empty(overwrites={"name": model_name(name), "revision": content_hash(folder)[:REVISION_LENGTH]})


def load_encoder(folder: Path, meta: ModelMeta) -> Any:
    """The model in `folder` for `mteb.evaluate`. Prompts, length limit, pooling and similarity are the model's own; each text is embedded once."""
    import torch
    from datasets import Dataset
    from mteb.models.abs_encoder import get_prompt_name
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer
    from torch.utils.data import DataLoader

    class Encoder(SentenceTransformerEncoderWrapper):
        """Tasks share texts (the documents of one corpus, both sides of pairs), so embeddings are kept by prompt and text."""

        mteb_model_meta: Any

        def __init__(self) -> None:
            super().__init__(SentenceTransformer(str(folder), local_files_only=True))
            found = {
                field: getattr(self.mteb_model_meta, field) for field in ("max_tokens", "embed_dim", "similarity_fn_name", "framework")
            }
            self.mteb_model_meta = meta.model_copy(update={**found, "loader": SentenceTransformerEncoderWrapper})
            self._routed = any(type(module).__name__ in ("Router", "Asym") for module in self.model.modules())
            self._kept: dict[tuple[Any, ...], torch.Tensor] = {}

        def _key(self, task_metadata: Any, prompt_type: Any) -> tuple[Any, ...]:
            """What decides an embedding besides its text: the prompt, and the side where the model has one network for each."""
            name = get_prompt_name(self.model_prompts, task_metadata, prompt_type) if self.model_prompts else None
            if name is not None:
                return (self.model_prompts[name], self._routed and prompt_type)
            if prompt_type is not None:
                return (None, prompt_type)  # sentence-transformers chooses the prompt
            return (self.model.prompts.get(self.model.default_prompt_name or "") or "", False)

        def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **kwargs: Any) -> torch.Tensor:
            key = self._key(task_metadata, prompt_type)
            texts = [text for batch in inputs for text in batch["text"]]
            new = [text for text in dict.fromkeys(texts) if (*key, text) not in self._kept]
            fresh: dict[str, torch.Tensor] = {}
            if new:
                loader = DataLoader(Dataset.from_dict({"text": new}), batch_size=len(new))
                rows = super().encode(loader, task_metadata=task_metadata, prompt_type=prompt_type, **kwargs)
                fresh = dict(zip(new, torch.as_tensor(rows), strict=True))
            embeddings = torch.stack([fresh[text] if text in fresh else self._kept[*key, text] for text in texts])
            if len(self._kept) + len(fresh) <= MOST_KEPT:
                self._kept |= {(*key, text): row for text, row in fresh.items()}
            return embeddings

    return Encoder()
