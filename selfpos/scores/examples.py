"""What a model got right, example by example: kept beside MTEB's result files, so that two models can be compared on the same examples later.

A result file of MTEB holds one number per task. Its interval, and that of a difference between two models, needs the pairs, queries or texts behind it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from selfpos.storage.atomic import write_bytes

FOLDER = "examples"  # beside MTEB's `results`


@dataclass(frozen=True)
class Part:
    """One model on the examples of one split and subset of a task. `kind` says how the task's main score comes from the arrays:

    - `mean`: "values" (n,), of which the score is the mean: a query's nDCG, a question's p-MRR, the share of experiments that classified a text
      rightly, a sentence's F1 among translations, a text's label ranking average precision, a document's correlation over its summaries
    - `spearman`, `pearson`: the correlation of "scores" (n,), what the model said of each pair, with "gold" (n,)
    - `average-precision`: of "scores" (n,), higher for likelier pairs, with "gold" (n,) of 0 and 1
    - `macro-f1`: mean over experiments of the mean F1 over labels, of "predicted" (e, n) against "gold" (n,), both numbers of labels
    - `v-measure`: mean over draws of the V-measure of "clusters" (d, k) against "labels" (d, k), drawn from documents "index" (d, k) of n

    `key` tells one set of examples from another: only parts of equal keys can be paired.
    """

    split: str
    subset: str
    kind: str
    count: int
    key: str
    arrays: Mapping[str, np.ndarray] = field(repr=False)


def examples_file(result: Path) -> Path:
    """Where the examples behind MTEB's file `result` are kept: `examples/<model>/<revision>/<task>.npz` beside `results`."""
    root, model, revision = result.parents[3], result.parents[1].name, result.parent.name
    return root / FOLDER / model / revision / f"{result.stem}.npz"


def write_examples(file: Path, parts: Sequence[Part], revision: str) -> None:
    """Write `parts`, on data of `revision`, to `file`; other parts on that data that are there already stay."""
    fresh = {(part.split, part.subset) for part in parts}
    kept = [part for part in read_examples(file, revision) if (part.split, part.subset) not in fresh]
    heads: list[dict[str, object]] = []
    arrays: dict[str, np.ndarray] = {}
    for number, part in enumerate([*kept, *parts]):
        heads.append(
            {
                "split": part.split,
                "subset": part.subset,
                "kind": part.kind,
                "count": part.count,
                "key": part.key,
            }
        )
        arrays |= {f"{number}.{name}": array for name, array in part.arrays.items()}
    stream = io.BytesIO()
    head = np.frombuffer(json.dumps({"revision": revision, "parts": heads}).encode(), np.uint8)
    np.savez_compressed(stream, allow_pickle=False, head=head, **arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, stream.getvalue())


def read_examples(file: Path, revision: str) -> list[Part]:
    """The parts in `file`; none when there is no such file, it is damaged, or it is of other data than `revision`."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            head = json.loads(stored["head"].tobytes())
            if head["revision"] != revision:
                return []
            names = [name.partition(".") for name in stored.files if name != "head"]
            arrays = {
                number: {name: stored[f"{number}.{name}"] for other, _, name in names if other == number}
                for number, _, _ in names
            }
            return [Part(**found, arrays=arrays[str(number)]) for number, found in enumerate(head["parts"])]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return []
