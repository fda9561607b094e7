"""The drift correction of a kept index, as the last modules of a saved model.

Query drift compensation (arXiv 2506.00037) subtracts the mean change of the questions' embeddings, so that
they meet the documents that the base has embedded. A `Dense` of sentence-transformers with the identity for a
matrix and −drift for a bias does it, and loads everywhere. A `Normalize` follows where the model had one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from selfpos.merging.output.modules import TYPES
from selfpos.storage.atomic import write_text
from selfpos.storage.file_kinds import MODULES


def add_correction(folder: Path, drift: Sequence[float]) -> None:
    """Add q − `drift` (d,) to the end of the model in `folder`."""
    from sentence_transformers.sentence_transformer import modules as st

    width = len(drift)
    dense = st.Dense(width, width, activation_function=torch.nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(torch.eye(width))
        dense.linear.bias.copy_(-torch.tensor(drift))
    entries = json.loads((folder / MODULES).read_text(encoding="utf-8"))
    added = [("Dense", dense)]
    if entries[-1]["type"].rpartition(".")[2] == "Normalize":
        added.append(("Normalize", st.Normalize()))
    for kind, module in added:
        number = len(entries)
        path = folder / f"{number}_{kind}"
        path.mkdir(exist_ok=True)
        module.save(str(path))
        entries.append({"idx": number, "name": str(number), "path": path.name, "type": f"{TYPES}.{kind}"})
    write_text(folder / MODULES, json.dumps(entries, indent=2) + "\n")
