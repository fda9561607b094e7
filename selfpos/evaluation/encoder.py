"""A sentence-transformers folder as an encoder for mteb, with an identity of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.errors import OperationError
from selfpos.evaluation.embed import Manner, embed, packing, tokenise, tokenizer_identity
from selfpos.evaluation.load import load_model
from selfpos.evaluation.prompts import ListedPrompts, listed_prompts
from selfpos.evaluation.store import DiskStore, MemoryStore, Store, key_of

if TYPE_CHECKING:
    from mteb.models import ModelMeta
    from sentence_transformers import SentenceTransformer

# What is kept in memory when nothing is kept on disk; beyond it texts are embedded again. 300 MB are 200,000 embeddings of 384 numbers.
MEMORY = 300_000_000
# Texts that are sorted by length together; their tokens are in memory at once.
AT_ONCE = 50_000
# What mteb finds out about a model by itself, for its metadata beside the results.
TOLD = (
    "max_tokens",
    "embed_dim",
    "similarity_fn_name",
    "framework",
    "n_embedding_parameters",
    "adapted_from",
)


def model_name(name: str) -> str:
    """The name under which mteb files a model: `organisation/name` as it is, else `local/` and the last part of the name or path."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        return name
    return f"local/{re.sub(r'[^A-Za-z0-9_.-]+', '-', Path(name).name) or 'model'}"


def identity(folder: Path, name: str) -> ModelMeta:
    """The metadata that tells this model from every other: mteb gives all local models one name and revision, and one model's scores to all of them."""
    from mteb.models import ModelMeta

    from selfpos.storage.hashing import REVISION_LENGTH, content_hash

    return ModelMeta.create_empty(
        overwrites={"name": model_name(name), "revision": content_hash(folder)[:REVISION_LENGTH]}
    )


class Embedder:
    """Embeds texts, each once: embeddings are kept by model, prompt, side and text, tokens by tokenizer, prompt, side and text.

    With `cache` both are kept in that folder, where the next process finds them, and merges of one base find each other's tokens; without,
    embeddings are kept in memory up to a limit. An embedding that is not finite raises OperationError.
    """

    def __init__(self, model: SentenceTransformer, about: dict[str, Any], cache: Path | None) -> None:
        self.model, self._about, self._cache = model, about, cache
        self._stores: dict[tuple[str, Manner], Store] = {}
        self.dimension = int(model.encode(["a"], show_progress_bar=False).shape[1])

    def rows(
        self, texts: list[str], manner: Manner, batch_size: int, plain: Callable[[list[str]], np.ndarray]
    ) -> np.ndarray:
        """The embeddings of `texts`, float32, n×d. `plain` embeds texts of models whose features are not known here."""
        store = self._embeddings(manner)
        place: dict[str, int] = {}
        for text in texts:
            place.setdefault(text, len(place))
        unique = list(place)
        rows = np.empty((len(unique), self.dimension), np.float32)
        missing = []
        for number, text in enumerate(unique):
            record = store.get(key_of(text))
            if record is None:
                missing.append(number)
            else:
                rows[number] = np.frombuffer(record, np.float32)
        missing.sort(key=lambda number: -len(unique[number]))
        for start in range(0, len(missing), AT_ONCE):
            self._fill(rows, missing[start : start + AT_ONCE], unique, manner, batch_size, plain, store)
        return rows if len(unique) == len(texts) else rows[[place[text] for text in texts]]

    def close(self) -> None:
        """Let go of the files of the cache."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def _fill(
        self,
        rows: np.ndarray,
        missing: list[int],
        unique: list[str],
        manner: Manner,
        batch_size: int,
        plain: Any,
        store: Store,
    ) -> None:
        texts = [unique[number] for number in missing]
        extra = packing(self.model, manner)
        if extra is None:
            parts: Any = (
                (
                    range(start, min(start + 16 * batch_size, len(texts))),
                    plain(texts[start : start + 16 * batch_size]),
                )
                for start in range(0, len(texts), 16 * batch_size)
            )
        else:
            self.model.eval()
            parts = embed(
                self.model,
                tokenise(self.model, texts, manner, self._tokens(manner)),
                manner,
                extra,
                batch_size,
            )
        for places, new in parts:
            if not np.isfinite(new).all():
                bad = next(
                    texts[place] for place, row in zip(places, new, strict=True) if not np.isfinite(row).all()
                )
                raise OperationError(
                    f"the model's embedding of {bad[:60]!r} is not finite (NaN or infinity): its weights are damaged"
                )
            rows[[missing[place] for place in places]] = new
            store.put(
                (key_of(texts[place]), row.tobytes())
                for place, row in zip(places, np.asarray(new, np.float32), strict=True)
            )

    def _embeddings(self, manner: Manner) -> Store:
        return self._store(
            "embeddings", manner, {**self._about, "prompt": manner.prompt, "side": manner.side}, MEMORY
        )

    def _tokens(self, manner: Manner) -> Store:
        return self._store("tokens", manner, tokenizer_identity(self.model, manner), 0)

    def _store(self, kind: str, manner: Manner, about: dict[str, Any] | None, in_memory: int) -> Store:
        if (kind, manner) not in self._stores:
            if self._cache is None or about is None:
                self._stores[kind, manner] = MemoryStore(in_memory)
            else:
                self._stores[kind, manner] = DiskStore(self._cache / kind, {**about, **_versions()})
        return self._stores[kind, manner]


def _versions() -> dict[str, str]:
    """Those of the libraries that make tokens and embeddings."""
    import sentence_transformers
    import transformers

    return {
        "sentence-transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
    }


def load_encoder(folder: Path, meta: ModelMeta, cache: Path | None = None) -> Any:
    """The model in `folder` for `mteb.evaluate`. Prompts, length limit, pooling and similarity are the model's own; each text is embedded once.

    A model without prompts, whose name mteb knows, gets those that mteb's list has for it (see `prompts`).
    With `cache`, embeddings and tokens are kept in that folder (see Embedder). Raises SelfposError when the model cannot be loaded or used.
    """
    from mteb.models.abs_encoder import get_prompt_name
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    model = load_model(folder)
    listed = ListedPrompts() if any((model.prompts or {}).values()) else listed_prompts(str(meta.name))

    class Encoder(SentenceTransformerEncoderWrapper):
        """Tasks share texts (the documents of one corpus, both sides of pairs), so embeddings are kept by prompt and text."""

        mteb_model_meta: Any

        def __init__(self) -> None:
            super().__init__(model, model_prompts=listed.prompts or None)
            self.listed, self.instruction_template, self.prompts_dict = listed, listed.template, None
            own = self.mteb_model_meta
            size = sum(weights.numel() * weights.element_size() for weights in model.parameters())
            found = {field: getattr(own, field) for field in TOLD} | {
                "n_parameters": sum(weights.numel() for weights in model.parameters()),
                "memory_usage_mb": size / 2**20,
            }
            self.mteb_model_meta = meta.model_copy(
                update={**found, "loader": SentenceTransformerEncoderWrapper}
            )
            self._sided = any(
                type(module).__name__ in ("Router", "Asym") for module in model.modules()
            ) or any(
                getattr(model[0], field, None)
                for field in ("query_length", "document_length", "query_expansion")
            )
            self.embedder = Embedder(model, embedding_identity(folder, model), cache)

        def _manner(self, task_metadata: Any, prompt_type: Any) -> Manner:
            """The prompt as mteb and sentence-transformers choose it, and the side where the model treats the two differently."""
            side = None if prompt_type is None else str(prompt_type.value)
            kept = side if self._sided else None
            if listed.template is not None:
                instructed = listed.instructed or side != "document"
                return Manner(
                    (self.get_task_instruction(task_metadata, prompt_type) if instructed else None) or None,
                    kept,
                )
            name = (
                get_prompt_name(self.model_prompts, task_metadata, prompt_type)
                if self.model_prompts
                else None
            )
            if name is not None and self.model_prompts:
                prompt = self.model_prompts[name]
            else:
                names = {"query": ["query"], "document": ["document", "passage", "corpus"]}.get(
                    side or "", []
                )
                chosen = next(
                    (name for name in names if name in model.prompts), model.default_prompt_name or ""
                )
                prompt = model.prompts.get(chosen) or ""
            return Manner(prompt or None, kept)

        def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **kwargs: Any) -> Any:
            if {"image", "audio", "video"} & set(inputs.dataset.features):
                return super().encode(inputs, task_metadata=task_metadata, prompt_type=prompt_type, **kwargs)
            manner = self._manner(task_metadata, prompt_type)
            texts = [text for batch in inputs for text in batch["text"]]
            size = int(kwargs.get("batch_size", 32))

            def plain(some: list[str]) -> np.ndarray:
                chosen = {"query": model.encode_query, "document": model.encode_document}.get(
                    manner.side or "", model.encode
                )
                return np.asarray(
                    chosen(some, prompt=manner.prompt or "", batch_size=size, show_progress_bar=False),
                    np.float32,
                )

            return self.embedder.rows(texts, manner, size, plain)

    return Encoder()


def embedding_identity(folder: Path, model: SentenceTransformer) -> dict[str, Any]:
    """What decides the embedding of a text besides prompt and side. JSON-serialisable."""
    from selfpos.evaluation.load import adapter_base
    from selfpos.storage.hashing import content_hash

    base = adapter_base(folder)  # the adapter's own hash does not tell it
    return {
        "model": content_hash(folder),
        "base": content_hash(base) if base is not None else None,
        "max_length": model.max_seq_length,
        "dtype": str(next(model.parameters()).dtype) if any(True for _ in model.parameters()) else None,
        "device": model.device.type,
        "truncate_dim": model.truncate_dim,
    }


def describe_encoder(encoder: Any) -> list[tuple[str, str]]:
    """What decides scores besides weights, as rows of label and text: length limit, pooling, prompts, number format, similarity."""
    model = encoder.model
    pooling: dict[str, Any] = next(
        (module.get_config_dict() for module in model if type(module).__name__ == "Pooling"), {}
    )
    prompts = {name: text for name, text in (model.prompts or {}).items() if text}
    kinds = " → ".join(type(module).__name__ for module in model)
    listed: ListedPrompts = encoder.listed
    own = ", ".join(f"{name} {text!r}" for name, text in prompts.items()) or "none"
    if listed.template is not None:
        own = f"the instruction of each task in {listed.template!r}" + (
            "" if listed.instructed else ", documents without"
        )
    from_list = (
        "; from mteb's list of models, for the folder has none"
        if listed.template is not None or listed.prompts
        else ""
    )
    if listed.loader is not None:
        from_list += f"; mteb itself loads this model with {listed.loader}, which is not used here"
    return [
        ("modules", kinds + (f" (pooling: {pooling['pooling_mode']})" if "pooling_mode" in pooling else "")),
        ("prompts", own + from_list),
        ("max length", f"{model.max_seq_length} tokens" if model.max_seq_length else "the model's own"),
        (
            "embeddings",
            f"{encoder.embedder.dimension} numbers, computed in {next(model.parameters()).dtype}".replace(
                "torch.", ""
            ),
        ),
        ("similarity", str(model.similarity_fn_name)),
    ]
