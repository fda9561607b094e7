"""One live model whose weights are θ0 + Σ c_i V_i for coefficients that change: placed without a graph, read back tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from selfpos.errors import SelfposError
from selfpos.positioning.deltas import open_deltas
from selfpos.positioning.gradient import collect
from selfpos.positioning.processes import Processes
from selfpos.positioning.recompute import Recompute
from selfpos.storage.model_folder import check_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from selfpos.storage.model_folder import ModelFolder
    from selfpos.vectors import TaskVector


class LiveModel:
    """A sentence-transformers model kept in memory once, whose weights are set from the base and N task vectors on disk.

    `keys` are the tensors that take part, in the order of the coefficient tables (T, N). A stored tensor that the model does not use
    (a language-model head, position ids) has no place in it and no influence on embeddings, and is left out.
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
        dropout: bool = False,
        chunk: int = 32,
        autocast: torch.dtype | None = None,
        vectors_in: str = "auto",
        processes: Processes | None = None,
    ) -> None:
        self.base, self.vectors, self.chunk, self.autocast, self.dropout = (
            base,
            list(vectors),
            chunk,
            autocast,
            dropout,
        )
        self.processes = processes or Processes()
        self.model = _load(base, device, dtype, max_length)
        self.model.eval()
        places = find_places(base, self.model)
        self.parameters = {
            key: p for key, p in places.items() if not any(fnmatchcase(key, pattern) for pattern in exclude)
        }
        if strange := [
            pattern for pattern in exclude if not any(fnmatchcase(key, pattern) for key in base.tensors)
        ]:
            raise SelfposError(
                f"the pattern '{strange[0]}' of exclude fits no tensor of {base.path}, whose first is {next(iter(base.tensors))}"
            )
        if not self.parameters:
            raise SelfposError(
                f"no tensor of {base.path} is left to position: the patterns {', '.join(exclude)} exclude them all"
            )
        self.keys = list(self.parameters)
        self.deltas = open_deltas(base, self.vectors, self.keys, self.device, vectors_in)
        self.model.requires_grad_(False)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self.recompute = Recompute(self.model, products=False, autocast=self._autocast)
        self.embedded = 0  # texts so far: the cost that searches are compared by

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @torch.no_grad()
    def place(self, table: Tensor) -> None:
        """Set the weights to θ0 + Σ_i table[t, i]·V_i; `table` float64 (T, N). The arithmetic is done in the model's own dtype."""
        if not torch.isfinite(table).all():
            raise SelfposError(
                "the coefficients are no longer finite; lower the learning rate or use another space"
            )
        for key, row in zip(self.keys, table.tolist(), strict=True):
            self.deltas.merge_into(key, row, self.parameters[key])

    def collect(self) -> AbstractContextManager[Tensor]:
        """A block in which every backward pass adds ∂L/∂c of each tensor to the table (T, N) that it yields."""
        return collect(self.parameters, self.deltas, len(self.vectors))

    def embed(self, texts: Sequence[str], *, alone: bool = False) -> Tensor:
        """Embeddings (len(texts), d) at the weights now placed. Texts of like length share a forward pass, so that little padding is run.

        Several processes share the work, and each is given all embeddings, unless one asks for what it needs `alone`, which is not
        counted.
        """
        processes = Processes() if alone else self.processes
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        chunks = processes.chunks(
            order, self.chunk, even=torch.is_grad_enabled()
        )  # a batch of a step is small, a probe is not
        own = [self.forward([texts[i] for i in chunk]) for chunk in chunks[processes.rank :: processes.count]]
        # with fewer texts than processes, one that has none still has to say what embeddings look like
        parts = processes.gather(own or [self.forward(list(texts[:1]))[:0]], [len(chunk) for chunk in chunks])
        if not alone:
            self.embedded += len(texts)
        back = torch.empty(len(order), dtype=torch.long, device=self.device)
        back[torch.tensor(order, device=self.device)] = torch.arange(len(order), device=self.device)
        return torch.cat(parts)[back]

    def forward(self, texts: list[str]) -> Tensor:
        """Embeddings of one padded batch of texts, with a graph where gradients are on, and only there with dropout: else two looks would differ."""
        from sentence_transformers.util import batch_to_device

        self.model.train(self.dropout and torch.is_grad_enabled())
        features: dict[str, Any] = batch_to_device(self.model.preprocess(texts), self.device)
        saving = self.recompute.forgetting() if torch.is_grad_enabled() else nullcontext()
        with saving, self._autocast():
            embeddings: Tensor = self.model(features)["sentence_embedding"]
        return embeddings if self.autocast is None else embeddings.float()

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)


def _load(base: ModelFolder, device: str, dtype: torch.dtype, max_length: int | None) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    check_tokenizer(base.path)
    model = SentenceTransformer(
        str(base.path), device=device, local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    model.to(dtype)
    if max_length is not None:
        model.max_seq_length = min(max_length, model.max_seq_length or max_length)
    return model


def find_places(base: ModelFolder, model: SentenceTransformer) -> dict[str, nn.Parameter]:
    """Where each stored tensor lives in the loaded model: stored name → parameter.

    Names in memory carry other prefixes than on disk and some architectures rename; a place is therefore accepted only if shape and
    content agree, and among those the one with the longest common ending of the name. Raises SelfposError when a trainable parameter of
    the model has no stored tensor, or more than one that fits equally well.
    """
    stored = [key for key, entry in base.tensors.items() if entry.mergeable]
    places: dict[str, nn.Parameter] = {}
    for module in base.modules:
        prefix = f"{module.path}/" if module.path else ""
        others = [f"{other.path}/" for other in base.modules if other.path and other.path != module.path]
        own = [
            key
            for key in stored
            if key.startswith(prefix) and not (prefix == "" and key.startswith(tuple(others)))
        ]
        for name, parameter in model[module.idx].named_parameters():
            key = _stored_name(base, own, prefix, name, parameter)
            if key in places:
                raise SelfposError(
                    f"{base.path}: the stored tensor {key} fits two parameters of the loaded model"
                )
            places[key] = parameter
    return {key: places[key] for key in stored if key in places}


def _stored_name(base: ModelFolder, keys: list[str], prefix: str, name: str, parameter: nn.Parameter) -> str:
    def common_ending(key: str) -> int:
        ours, theirs = name.split(".")[::-1], key.removeprefix(prefix).split(".")[::-1]
        return next(
            (n for n, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y),
            min(len(ours), len(theirs)),
        )

    candidates = sorted(
        (key for key in keys if tuple(base.tensors[key].shape) == tuple(parameter.shape)),
        key=common_ending,
        reverse=True,
    )
    fitting: list[str] = []
    for key in candidates:
        if fitting and common_ending(key) < common_ending(fitting[0]):
            break
        if torch.equal(base.read(key).to(parameter.device, parameter.dtype), parameter.detach()):
            fitting.append(key)
    if len(fitting) == 1:
        return fitting[0]
    found = (
        f"{len(fitting)} tensors fit: {', '.join(fitting[:3])}"
        if fitting
        else "none has its shape and content"
    )
    raise SelfposError(
        f"{base.path}: cannot tell which stored tensor is the parameter {name} of the loaded model ({found})"
    )
