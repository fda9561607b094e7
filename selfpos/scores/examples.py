"""What a model got right, example by example, kept beside MTEB's result files.

A result file of MTEB holds one number per task. An interval of that number, or of a difference between two
models, needs the pairs, queries or texts behind it.
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
class Examples:
    """The results of one model on the examples of one split and subset of a task.

    `kind` says how the task's main score follows from the arrays:

    - `mean`: the score is the mean of "values" (n,): a query's nDCG, or the share of experiments that
      classified a text correctly
    - `spearman`, `pearson`: the correlation of the model's "scores" (n,) of each pair with "gold" (n,)
    - `average-precision`: of "scores" (n,), higher for likelier pairs, with "gold" (n,) of 0 and 1
    - `macro-f1`: mean over experiments of the mean F1 over labels, of "predicted" (e, n) against "gold" (n,),
      both as label numbers
    - `v-measure`: mean over draws of the V-measure of "clusters" (d, k) against "labels" (d, k), drawn from
      documents "index" (d, k) of n

    `key` identifies the set of examples: only results with equal keys can be paired.
    """

    split: str
    subset: str
    kind: str
    count: int
    key: str
    arrays: Mapping[str, np.ndarray] = field(repr=False)


def examples_file(result: Path) -> Path:
    """The examples of MTEB's file `result`: `examples/<model>/<revision>/<task>.npz` beside `results`."""
    root, model, revision = result.parents[3], result.parents[1].name, result.parent.name
    return root / FOLDER / model / revision / f"{result.stem}.npz"


def write_examples(file: Path, parts: Sequence[Examples], revision: str) -> None:
    """Write `parts`, on data of `revision`, to `file`; its other parts on that data stay."""
    fresh = {(part.split, part.subset) for part in parts}
    kept = [part for part in read_examples(file, revision) if (part.split, part.subset) not in fresh]
    heads: list[dict[str, object]] = []
    arrays: dict[str, np.ndarray] = {}
    for number, part in enumerate([*kept, *parts]):
        heads.append({name: value for name, value in vars(part).items() if name != "arrays"})
        arrays |= {f"{number}.{name}": array for name, array in part.arrays.items()}
    stream = io.BytesIO()
    head = np.frombuffer(json.dumps({"revision": revision, "parts": heads}).encode(), np.uint8)
    np.savez_compressed(stream, allow_pickle=False, head=head, **arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, stream.getvalue())


def read_examples(file: Path, revision: str) -> list[Examples]:
    """The parts in `file`; empty when the file is missing, damaged, or of other data than `revision`."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            head = json.loads(stored["head"].tobytes())
            if head["revision"] != revision:
                return []
            arrays: list[dict[str, np.ndarray]] = [{} for _ in head["parts"]]
            for stored_name in stored.files:
                number, _, name = stored_name.partition(".")
                if name:
                    arrays[int(number)][name] = stored[stored_name]
            return [Examples(**fields, arrays=arrays[i]) for i, fields in enumerate(head["parts"])]
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile):
        return []
