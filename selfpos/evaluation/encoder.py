"""A sentence-transformers folder as an encoder for mteb, with an identity of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import get_prompt_name
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer

from selfpos.errors import OperationError
from selfpos.evaluation.embed import EncodingOptions, constant_features, embed, tokenise, tokenizer_identity
from selfpos.evaluation.load import adapter_base, load_model
from selfpos.evaluation.store import DiskStore, Key, MemoryStore, Store, kept_keys, key_of
from selfpos.storage.hashing import REVISION_LENGTH, content_hash
from selfpos.storage.locate import hub_snapshot
from selfpos.version import versions_of

# Bytes of embeddings kept in memory without a cache on disk: 200,000 embeddings of 384 numbers. Beyond it
# texts are embedded again.
MEMORY = 300_000_000
# Texts that are sorted by length together; their tokens are in memory at once.
AT_ONCE = 50_000
# Fields of mteb's metadata that it finds in the model itself.
MEASURED = (
    *("max_tokens", "embed_dim", "similarity_fn_name", "framework"),
    *("n_embedding_parameters", "adapted_from", "loader", "model_type"),
)
# Whose versions are part of what cached tokens and embeddings are of.
PACKAGES = ("sentence-transformers", "transformers")
EncodeFunction = Callable[[list[str]], np.ndarray]
INSTRUCTED, PLAIN = "InstructSentenceTransformerModel", "SentenceTransformerEncoderWrapper"
# The prompts that sentence-transformers uses for a side, in the order in which it looks for them.
NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}


def model_name(name: str) -> str:
    """The name under which mteb files a model: `organisation/name`, or `local/` and the end of the path."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        return name
    return f"local/{re.sub(r'[^A-Za-z0-9_.-]+', '-', Path(name).name) or 'model'}"


def identity(folder: Path, name: str) -> ModelMeta:
    """The model's name and revision in result files: those of the Hub, else a local name and its content
    hash.
    """
    snapshot = hub_snapshot(folder)
    if snapshot and name.partition("@")[0] == snapshot["repo"]:
        name = snapshot["repo"]
    revision = snapshot.get("revision") or content_hash(folder)[:REVISION_LENGTH]
    return ModelMeta.create_empty(overwrites={"name": model_name(name), "revision": revision})


def measured_meta(meta: ModelMeta, measured: ModelMeta, model: Any) -> ModelMeta:
    """`meta` with what mteb's wrapper `measured` says of the model itself, and the size of its weights."""
    fields = {name: getattr(measured, name) for name in MEASURED}
    weights = list(model.parameters())
    fields["n_parameters"] = sum(tensor.numel() for tensor in weights)
    fields["memory_usage_mb"] = sum(tensor.nbytes for tensor in weights) / 2**20
    return meta.model_copy(update=fields)


class Embedder:
    """Embeds each text once: keeps embeddings by model, prompt, side and text, and tokens by tokenizer.

    Both are kept in the folder `cache`; without it, embeddings are kept in memory up to a limit.
    """

    def __init__(self, model: SentenceTransformer, about: dict[str, Any], cache: Path | None) -> None:
        self.model, self._about, self._cache = model, about, cache
        self._stores: dict[tuple[str, EncodingOptions], Store] = {}
        self.dimension = int(model.encode(["a"], show_progress_bar=False).shape[1])

    def rows(
        self, texts: list[str], options: EncodingOptions, batch_size: int, plain: EncodeFunction
    ) -> np.ndarray:
        """The embeddings of `texts`, float32, n×d. `plain` embeds texts of models with unknown features."""
        store = self._store("embeddings", options, self._described(options), MEMORY)
        unique = list(dict.fromkeys(texts))
        rows = np.empty((len(unique), self.dimension), np.float32)
        missing = []
        for index, text in enumerate(unique):
            record = store.get(key_of(text))
            if record is None:
                missing.append(index)
            else:
                rows[index] = np.frombuffer(record, np.float32)
        missing.sort(key=lambda index: -len(unique[index]))
        for start in range(0, len(missing), AT_ONCE):
            chunk = missing[start : start + AT_ONCE]
            for batch, embeddings in self._embedded([unique[i] for i in chunk], options, batch_size, plain):
                indices = [chunk[position] for position in batch]
                rows[indices] = embeddings
                for index in indices:
                    if not np.isfinite(rows[index]).all():
                        raise OperationError(
                            f"the model's embedding of {unique[index][:60]!r} is not finite (NaN or "
                            "infinity): its weights are damaged"
                        )
                store.put((key_of(unique[index]), rows[index].tobytes()) for index in indices)
        if len(unique) == len(texts):
            return rows
        position_of = {text: index for index, text in enumerate(unique)}
        return rows[[position_of[text] for text in texts]]

    def kept(self, options: EncodingOptions) -> set[Key]:
        """The keys of the texts whose embeddings are in the cache. Nothing is written."""
        if self._cache is None:
            return set()
        return kept_keys(self._cache / "embeddings", {**self._described(options), **versions_of(*PACKAGES)})

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def _embedded(
        self, texts: list[str], options: EncodingOptions, batch_size: int, plain: EncodeFunction
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Indices of `texts` and their embeddings, by batch."""
        extra = constant_features(self.model, options)
        if extra is None:
            for start in range(0, len(texts), 16 * batch_size):
                some = texts[start : start + 16 * batch_size]
                yield list(range(start, start + len(some))), plain(some)
            return
        self.model.eval()
        store = self._store("tokens", options, tokenizer_identity(self.model, options), 0)
        yield from embed(self.model, tokenise(self.model, texts, options, store), options, extra, batch_size)

    def _store(self, kind: str, options: EncodingOptions, about: dict[str, Any] | None, limit: int) -> Store:
        if (kind, options) not in self._stores:
            store: Store = MemoryStore(limit)
            if self._cache is not None and about is not None:
                store = DiskStore(self._cache / kind, {**about, **versions_of(*PACKAGES)})
            self._stores[kind, options] = store
        return self._stores[kind, options]

    def _described(self, options: EncodingOptions) -> dict[str, Any]:
        return {**self._about, "prompt": options.prompt, "side": options.side}


@dataclass(frozen=True)
class ListedPrompts:
    """mteb's entry for a model.

    `template` goes around the instruction of each task; for documents only if they are `instructed`. `loader`
    is mteb's special code for the model, which is not used.
    """

    prompts: dict[str, str] = field(default_factory=dict)
    template: Any = None
    instructed: bool = True
    loader: str | None = None


def listed_prompts(name: str) -> ListedPrompts:
    """mteb's entry for the model called `name`; empty for models that mteb does not know."""
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


class Encoder(SentenceTransformerEncoderWrapper):
    """A model for `mteb.evaluate`, which embeds each text once although tasks share texts."""

    mteb_model_meta: Any

    def __init__(
        self, model: SentenceTransformer, meta: ModelMeta, listed: ListedPrompts, embedder: Embedder
    ) -> None:
        super().__init__(model, model_prompts=listed.prompts or None)
        self.listed, self.embedder = listed, embedder
        self.instruction_template, self.prompts_dict = listed.template, None
        self.mteb_model_meta = measured_meta(meta, self.mteb_model_meta, model)
        routed = any(type(module).__name__ in ("Router", "Asym") for module in model.modules())
        lengths = ("query_length", "document_length", "query_expansion")
        self.sided = routed or any(getattr(model[0], name, None) for name in lengths)

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **kwargs: Any) -> Any:
        if {"image", "audio", "video"} & set(inputs.dataset.features):
            return super().encode(inputs, task_metadata=task_metadata, prompt_type=prompt_type, **kwargs)
        options = encoding_options(self, task_metadata, prompt_type)
        texts = [text for batch in inputs for text in batch["text"]]
        batch_size = int(kwargs.get("batch_size", 32))
        functions = {"query": self.model.encode_query, "document": self.model.encode_document}
        encode = functions.get(options.side or "", self.model.encode)

        def plain(some: list[str]) -> np.ndarray:
            rows = encode(some, prompt=options.prompt or "", batch_size=batch_size, show_progress_bar=False)
            return np.asarray(rows, np.float32)

        return self.embedder.rows(texts, options, batch_size, plain)


def encoding_options(encoder: Encoder, task_metadata: Any, prompt_type: Any) -> EncodingOptions:
    """The prompt as mteb and sentence-transformers choose it, and the side if the model distinguishes it."""
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


def load_encoder(folder: Path, meta: ModelMeta, cache: Path | None = None) -> Encoder:
    """The model in `folder` for `mteb.evaluate`, with its own prompts, length limit, pooling and similarity.

    Without prompts of its own it gets those that mteb lists under its name. With `cache`, embeddings and
    tokens are kept in that folder. Raises SelfposError where the model cannot be loaded or used.
    """
    model = load_model(folder)
    listed = ListedPrompts() if any((model.prompts or {}).values()) else listed_prompts(str(meta.name))
    return Encoder(model, meta, listed, Embedder(model, embedding_identity(folder, model), cache))


def embedding_identity(folder: Path, model: SentenceTransformer) -> dict[str, Any]:
    """What determines the embedding of a text besides prompt and side, as JSON."""
    base = adapter_base(folder)  # the adapter's hash does not include its base
    return {
        "model": content_hash(folder),
        "base": content_hash(base) if base is not None else None,
        "max_length": model.max_seq_length,
        "dtype": next((str(weights.dtype) for weights in model.parameters()), None),
        "device": model.device.type,
        "truncate_dim": model.truncate_dim,
    }


def describe_encoder(encoder: Encoder) -> list[tuple[str, str]]:
    """What determines scores besides the weights, as rows of label and text."""
    model = encoder.model
    modules = " → ".join(type(module).__name__ for module in model)
    for module in model:
        if type(module).__name__ == "Pooling" and "pooling_mode" in module.get_config_dict():
            modules += f" (pooling: {module.get_config_dict()['pooling_mode']})"
            break
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return [
        ("modules", modules),
        ("prompts", describe_prompts(encoder)),
        ("max length", f"{model.max_seq_length} tokens" if model.max_seq_length else "the model's own"),
        ("embeddings", f"{encoder.embedder.dimension} numbers, computed in {dtype}"),
        ("similarity", str(model.similarity_fn_name)),
    ]
