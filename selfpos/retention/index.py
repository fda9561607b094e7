"""A base's index that stays: a linear map takes new questions to where the base has put their documents.

The idea is that of Drift-Adapter (arXiv 2509.23471): what two models make of the same texts differs by little
more than a linear map. It is fitted to documents and general texts, never to the domain's questions, which
are to come to their documents and not back to where the base had them. A `Dense` of sentence-transformers at
the end of the saved model applies it, and loads everywhere. A `Normalize` follows where the model had one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from selfpos.errors import SelfposError
from selfpos.merging.output.modules import TYPES
from selfpos.storage.atomic import write_text
from selfpos.storage.file_kinds import MODULES

RIDGE = 1.0  # pull to the identity, in mean eigenvalues of the texts' covariance


@dataclass(frozen=True)
class Correction:
    """q ↦ q·`matrix` + `bias` for embeddings q (d,); `matrix` (d, d) and `bias` (d,) in float32."""

    matrix: Tensor
    bias: Tensor

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Embeddings (n, d) moved."""
        return embeddings @ self.matrix + self.bias

    @property
    def hash(self) -> str:
        """The SHA-256 of its numbers."""
        digest = hashlib.sha256()
        for tensor in (self.matrix, self.bias):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def fit(embeddings: Tensor, targets: Tensor) -> tuple[Correction, Tensor]:
    """The map from `embeddings` (n, d) to `targets` (n, d), and what it makes of each text fitted without it.

    It minimises the mean of |x_i·M + b − y_i|² plus λ|M − 1|². A ridge regression with the leverages h has
    the residual r_i / (1 − h_i) at a text that is left out (Golub, Heath and Wahba, Technometrics 21, 1979),
    so one solution serves all texts.
    """
    x, y = embeddings.double(), targets.double()
    count, width = x.shape
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, moved = x - mean_x, (y - mean_y) - (x - mean_x)
    covariance = x.T @ x / count
    identity = torch.eye(width, dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance + RIDGE * covariance.trace() / width * identity)
    change = torch.cholesky_solve(x.T @ moved / count, factor)
    matrix = identity + change
    leverages = (1 + torch.linalg.solve_triangular(factor, x.T, upper=False).square().sum(0)) / count
    residuals = (moved - x @ change) / (1 - leverages)[:, None]
    correction = Correction(matrix.float(), (mean_y - mean_x @ matrix).float())
    return correction, (y - residuals).float()


def recorded_correction(model: Path, digest: str) -> Correction:
    """The correction of a saved model.

    Raises:
        SelfposError: it is not the one with the hash `digest`, which the merge recorded.
    """
    from safetensors.torch import load_file

    entries = json.loads((model / MODULES).read_text(encoding="utf-8"))
    folders = [model / entry["path"] for entry in entries if entry["type"].endswith("Dense")]
    file = folders[-1] / "model.safetensors" if folders else model
    tensors = load_file(file) if file.is_file() else {}
    if {"linear.weight", "linear.bias"} <= tensors.keys():
        correction = Correction(tensors["linear.weight"].T.contiguous(), tensors["linear.bias"])
        if correction.hash == digest:
            return correction
    raise SelfposError(
        f"{model} was merged for the base's index, and its last Dense module is not the correction of "
        "questions that was recorded: give the model as it was merged"
    )


def add_correction(folder: Path, correction: Correction) -> None:
    """Add `correction` to the end of the model in `folder`."""
    from sentence_transformers.sentence_transformer import modules as st

    width = len(correction.bias)
    dense = st.Dense(width, width, activation_function=torch.nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(correction.matrix.T)
        dense.linear.bias.copy_(correction.bias)
    entries = json.loads((folder / MODULES).read_text(encoding="utf-8"))
    added = [("Dense", dense)]
    if entries[-1]["type"].rpartition(".")[2] == "Normalize":
        added.append(("Normalize", st.Normalize()))
    for kind, module in added:
        # names and folders of the others need not be their numbers
        taken = {entry["name"] for entry in entries}
        free = next(
            number
            for number in itertools.count(len(entries))
            if str(number) not in taken and not (folder / f"{number}_{kind}").exists()
        )
        path = folder / f"{free}_{kind}"
        path.mkdir()
        module.save(str(path))
        entry = {"idx": len(entries), "name": str(free), "path": path.name, "type": f"{TYPES}.{kind}"}
        entries.append(entry)
    write_text(folder / MODULES, json.dumps(entries, indent=2) + "\n")
