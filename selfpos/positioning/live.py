"""One live model whose weights are θ0 + Σ c_i V_i for coefficients that change.

The gradient is ∂L/∂c_i = <∇θL, V_i>, one inner product a tensor, taken as the backward pass delivers the
tensor's gradient. The weights are linear in the coefficients, so an ordinary backward pass is all it needs:
no graph over the merge, one model in memory whatever N is, and coefficients for each tensor at no extra cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from selfpos.errors import SelfposError
from selfpos.passes import TOKENISED_AT_ONCE, batches, budget_of, packed_layers
from selfpos.positioning.comparing import similarities_with_gradient
from selfpos.positioning.deltas import open_deltas
from selfpos.positioning.processes import Processes
from selfpos.positioning.recompute import Recompute
from selfpos.storage.loading import loading
from selfpos.storage.model_class import (
    EMBEDDER,
    MULTI_VECTOR,
    OTHERS,
    RERANKER,
    SPARSE,
    check_embeds,
    check_one_output,
    check_one_way,
    check_works,
    class_of,
    default_prompt,
)
from selfpos.storage.model_folder import check_tokenizer
from selfpos.tasks.similarity import scores_of_pairs

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from selfpos.storage.model_folder import ModelFolder
    from selfpos.vectors import TaskVector

POOLER = ".pooler."
CHUNK = 32  # texts of a forward pass with gradients where several processes share a batch


@dataclass(frozen=True)
class _Tokenised:
    """Texts in padded batches: the rows of each batch, and what the model takes of this process's share."""

    texts: list[str]
    chunks: list[Sequence[int]]
    features: list[dict[str, Any]]


class LiveModel:
    """A sentence-transformers model, in memory once, whose weights are set from the base and N task vectors.

    `keys` are the tensors that take part, in the order of the coefficient tables (T, N): all stored ones that
    the model uses (no language-model head, no position ids). `kind` is its class. But for those that embed
    texts, a pair of texts stands where else a text does, and its score where else an embedding does: of a
    CrossEncoder that before the activation, of the others their similarity.
    """

    def __init__(
        self,
        base: ModelFolder,
        vectors: Sequence[TaskVector],
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_length: int | None = None,
        exclude: Sequence[str] = (),
        autocast: torch.dtype | None = None,
        vectors_in: str = "auto",
        processes: Processes | None = None,
        specialists: Sequence[TaskVector] | None = None,
        kind: str = EMBEDDER,
    ) -> None:
        self.base, self.vectors, self.autocast = base, list(vectors), autocast
        self.specialists = list(specialists or vectors)  # vectors as they were before they were separated
        self.processes = processes or Processes()
        self.kind = kind
        self.model = _load(base, device, dtype, max_length, kind)
        self.model.eval()
        self.width: int | None = getattr(self.model, "truncate_dim", None)  # numbers that are kept
        self.parameters = _without(match_parameters(base, self.model), exclude, base)
        self.keys = list(self.parameters)
        self.deltas = open_deltas(base, self.vectors, self.keys, self.device, vectors_in)
        self.model.requires_grad_(False)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self.recompute = Recompute(self.model, products=False, autocast=self.autocasting)
        self.embedded = 0  # texts so far: the cost by which searches are compared
        self._tokenised: _Tokenised | None = None
        self._kept: dict[int | None, dict[str, Tensor]] = {}  # model → text → its embedding

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @property
    def separated(self) -> bool:
        """Whether the vectors are the specialists' no longer, but separated ones."""
        return any(
            vector is not specialist
            for vector, specialist in zip(self.vectors, self.specialists, strict=True)
        )

    @torch.no_grad()
    def set_coefficients(self, table: Tensor) -> None:
        """Set the weights to θ0 + Σ_i table[t, i]·V_i, in the model's dtype; `table` is float64 (T, N)."""
        check_finite(table)
        for key, row in zip(self.keys, table.tolist(), strict=True):
            self.deltas.merge_into(key, row, self.parameters[key])

    @torch.no_grad()
    def set_specialist(self, index: int) -> None:
        """Set the weights to those of a specialist, θ0 + V_i before separation."""
        if not self.separated:
            alone = torch.zeros(len(self.keys), len(self.vectors), dtype=torch.float64)
            alone[:, index] = 1.0
            self.set_coefficients(alone)
            return
        where = "disk" if self.device.type == "cpu" else "float32"
        deltas = open_deltas(self.base, [self.specialists[index]], self.keys, self.device, where)
        for key in self.keys:
            deltas.merge_into(key, [1.0], self.parameters[key])

    @contextmanager
    def collect(self) -> Iterator[Tensor]:
        """A block in which every backward pass adds ∂L/∂c of each tensor to the table (T, N) that it yields.

        The gradients of weights are freed at once.
        """
        table = torch.zeros(len(self.keys), len(self.vectors), dtype=torch.float64, device=self.device)

        def hook_for(row: int, key: str) -> torch.utils.hooks.RemovableHandle:
            @torch.no_grad()
            def take(parameter: Tensor) -> None:
                gradient = parameter.grad
                assert gradient is not None  # autograd calls the hook just after storing it
                parameter.grad = None
                table[row] += self.deltas.products(key, gradient)

            return self.parameters[key].register_post_accumulate_grad_hook(take)

        handles = [hook_for(row, key) for row, key in enumerate(self.keys)]
        try:
            yield table
        finally:
            for handle in handles:
                handle.remove()

    def embed(self, texts: Sequence[str], *, whole: bool = False) -> Tensor:
        """Embeddings (len(texts), d) at the current weights, cut to what the model keeps unless `whole`.

        Texts of like length share a forward pass. Several processes share the work, and each gets all
        embeddings. Without gradients, the tokens of the last texts are kept: a search embeds the same ones at
        many points. Of models with a similarity of their own each process compares all.
        """
        if self.kind in (SPARSE, MULTI_VECTOR):
            return self._compare(texts)
        processes = self.processes
        if torch.is_grad_enabled():
            # a batch of a step is small and is split evenly; a probe set is not
            chunks = processes.chunks(self.by_length(texts), CHUNK, even=True)
            mine = chunks[processes.rank :: processes.count]
            embedded = [self._embeddings(self._features([texts[i] for i in chunk])) for chunk in mine]
        else:
            if self._tokenised is None or self._tokenised.texts != list(texts):
                self._tokenised = self._tokenise(texts)
            chunks = self._tokenised.chunks
            with packed_layers(self.model):
                embedded = [self._embeddings(features) for features in self._tokenised.features]
        if not embedded:  # fewer texts than processes: say at least how wide an embedding is
            embedded = [self._embeddings(self._features(list(texts[:1])))[:0]]
        parts = processes.gather(embedded, [len(chunk) for chunk in chunks])
        self.embedded += len(texts)
        order = torch.tensor([row for chunk in chunks for row in chunk], device=self.device)
        rows = torch.cat(parts)[torch.argsort(order)]
        return rows if whole else rows[..., : self.width]

    @torch.no_grad()
    def embed_by(self, model: int | None, texts: Sequence[str], *, keep: bool = False) -> Tensor:
        """Embeddings (len(texts), d) by a specialist, or the base (None), in float32 on the CPU.

        Those that an earlier call was to `keep` are not computed again.
        """
        rows = dict(self._kept.get(model, {}))
        if missing := [text for text in texts if text not in rows]:
            if model is None:
                self.set_coefficients(torch.zeros(len(self.keys), len(self.vectors), dtype=torch.float64))
            else:
                self.set_specialist(model)
            rows.update(zip(missing, self.embed(missing).float().cpu(), strict=True))
        if keep:
            self._kept[model] = rows
        return torch.stack([rows[text] for text in texts])

    def _compare(self, pairs: Sequence[Any]) -> Tensor:
        """Similarities (len(pairs), 1) of questions and texts."""
        if torch.is_grad_enabled():
            return similarities_with_gradient(self, pairs)
        with packed_layers(self.model), self.autocasting():
            scores, count = scores_of_pairs(self.model, pairs)
        self.embedded += count
        return scores

    def _tokenise(self, texts: Sequence[str]) -> _Tokenised:
        tokens = self.token_counts(texts)
        chunks: list[Sequence[int]] = list(batches(tokens, budget_of(self.device)))
        mine = chunks[self.processes.rank :: self.processes.count]
        features = [self._features([texts[row] for row in chunk]) for chunk in mine]
        return _Tokenised(list(texts), chunks, features)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text; of models without an attention mask its characters."""
        tokens = self._characters(texts)
        order = self.by_length(texts)
        for start in range(0, len(order), TOKENISED_AT_ONCE):
            chunk = order[start : start + TOKENISED_AT_ONCE]
            mask = self._features([texts[row] for row in chunk]).get("attention_mask")
            if mask is not None:
                for row, count in zip(chunk, mask.sum(1).tolist(), strict=True):
                    tokens[row] = count
        return tokens

    def by_length(self, texts: Sequence[str]) -> list[int]:
        """Row numbers of `texts`, the shortest first."""
        return sorted(range(len(texts)), key=self._characters(texts).__getitem__)

    def _characters(self, texts: Sequence[str]) -> list[int]:
        return [sum(map(len, text)) if self.kind == RERANKER else len(text) for text in texts]

    def forward(self, texts: list[str]) -> Tensor:
        """Embeddings of one padded batch of texts, with a graph where gradients are on."""
        return self._embeddings(self._features(texts))[..., : self.width]

    def _features(self, texts: list[str]) -> dict[str, Any]:
        from sentence_transformers.util import batch_to_device

        # other texts come with theirs
        prompt = default_prompt(self.model) if self.kind == RERANKER else None
        return batch_to_device(self.model.preprocess(texts, prompt=prompt), self.device)

    def _embeddings(self, features: dict[str, Any]) -> Tensor:
        saving = self.recompute.forgetting() if torch.is_grad_enabled() else nullcontext()
        with saving, self.autocasting():
            outputs = self.model(dict(features))  # in which modules note what they find
        embeddings: Tensor = outputs["scores" if self.kind == RERANKER else "sentence_embedding"]
        return embeddings if self.autocast is None else embeddings.float()

    def autocasting(self) -> AbstractContextManager[None]:
        """A block in which forward passes are in the precision of the search."""
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)


def check_live(base: ModelFolder) -> None:
    """Raise SelfposError where a search over `base` would: its parameters cannot be told apart, or it has no
    tokenizer.
    """
    match_parameters(base, _load(base, "cpu", torch.float32, None, class_of(base.path)))


def check_finite(table: Tensor) -> None:
    """Raise SelfposError for coefficients that are not finite."""
    if not torch.isfinite(table).all():
        raise SelfposError(
            "the coefficients are no longer finite; lower the learning rate or use another space"
        )


def _load(base: ModelFolder, device: str, dtype: torch.dtype, max_length: int | None, kind: str) -> Any:
    import sentence_transformers

    check_embeds(base.path, *(other for other in OTHERS if other == kind))
    check_tokenizer(base.path, base.modules)
    with loading(base.path):
        model = getattr(sentence_transformers, kind)(
            str(base.path), device=device, local_files_only=True, model_kwargs={"dtype": torch.float32}
        )
    if kind == RERANKER:
        check_one_output(base.path, model)
    check_works(base.path, model)
    check_one_way(base.path, model)
    model.to(dtype)
    if max_length is not None:
        model.max_seq_length = min(max_length, model.max_seq_length or max_length)
    return model


def _without(
    parameters: dict[str, nn.Parameter], exclude: Sequence[str], base: ModelFolder
) -> dict[str, nn.Parameter]:
    """`parameters` that no pattern of `exclude` matches. A pattern without a match is refused."""
    for pattern in exclude:
        if not any(fnmatchcase(key, pattern) for key in base.tensors):
            raise SelfposError(
                f"the pattern '{pattern}' of exclude fits no tensor of {base.path}, "
                f"whose first is {next(iter(base.tensors))}"
            )
    kept = [key for key in parameters if not any(fnmatchcase(key, pattern) for pattern in exclude)]
    if not kept:
        raise SelfposError(
            f"no tensor of {base.path} is left to position: "
            f"the patterns {', '.join(exclude)} exclude them all"
        )
    return {key: parameters[key] for key in kept}


def match_parameters(base: ModelFolder, model: SentenceTransformer) -> dict[str, nn.Parameter]:
    """Stored tensor name → the parameter of the loaded model that holds it.

    Names in memory have other prefixes than on disk, and some architectures rename tensors. A match therefore
    needs equal shape and content; among several, the longest common ending of the name decides.
    """
    stored = [key for key, entry in base.tensors.items() if entry.mergeable]
    matched: dict[str, nn.Parameter] = {}
    for module in base.modules:
        prefix = f"{module.path}/" if module.path else ""
        others = tuple(f"{other.path}/" for other in base.modules if other.path and other.path != module.path)
        keys = [key for key in stored if key.startswith(prefix) and (prefix or not key.startswith(others))]
        for name, parameter in model[module.idx].named_parameters():
            if POOLER in f".{name}" and not any(POOLER in f".{key}" for key in keys):
                continue  # random at each load, and no embedding reads it
            key = _stored_name(base, keys, prefix, name, parameter)
            if key in matched:
                raise SelfposError(
                    f"{base.path}: the stored tensor {key} fits two parameters of the loaded model"
                )
            matched[key] = parameter
    return {key: matched[key] for key in stored if key in matched}


def _stored_name(base: ModelFolder, keys: list[str], prefix: str, name: str, parameter: nn.Parameter) -> str:
    def common_ending(key: str) -> int:
        sides = (name.split(".")[::-1], key.removeprefix(prefix).replace("/", ".").split(".")[::-1])
        return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False))))

    same_shape = [key for key in keys if tuple(base.tensors[key].shape) == tuple(parameter.shape)]
    fitting: list[str] = []
    for key in sorted(same_shape, key=common_ending, reverse=True):
        if fitting and common_ending(key) < common_ending(fitting[0]):
            break
        if torch.equal(base.read(key).to(parameter.device, parameter.dtype), parameter.detach()):
            fitting.append(key)
    if len(fitting) == 1:
        return fitting[0]
    reason = f"{len(fitting)} tensors fit: {', '.join(fitting[:3])}" if fitting else "none has its content"
    raise SelfposError(
        f"{base.path}: cannot tell which stored tensor is the parameter {name} of the loaded model ({reason})"
    )
