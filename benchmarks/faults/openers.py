"""What the fuzzers try: an opener, and files near a valid one."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headers import joined, split
from hypothesis import strategies as st
from mutations import as_yaml, damaged, documents, mutated
from outside import adapter_of
from place import Place

from selfpos.errors import SelfposError
from selfpos.storage.file_kinds import ADAPTER, ADAPTER_WEIGHTS, CONFIG, INDEX, MANIFEST, MODULES, WEIGHTS


@dataclass(frozen=True)
class Opener:
    """`open` reads the file after `write` put a drawn content there. Of several files, the content's first
    byte says which it is for.
    """

    name: str
    content: st.SearchStrategy[bytes]
    write: Callable[[bytes], object]
    open: Callable[[], object]


def openers(place: Place) -> list[Opener]:
    return [
        *weights(place),
        *settings(place),
        *manifests(place),
        *recipes(place),
        records(place),
        probe(place),
    ]


def weights(place: Place) -> list[Opener]:
    """Headers, indices and adapters."""
    from selfpos.storage.model_folder import open_model
    from selfpos.storage.tensor_file import read_header
    from selfpos.vectors.task_vector import open_vectors

    header, data = split(place.base / "2_Dense" / WEIGHTS)
    file = place.fresh() / "x.safetensors"

    def write_header(content: bytes) -> None:
        joined(file, content, data)

    whole = (place.base / "2_Dense" / WEIGHTS).read_bytes()
    sharded = place.copy(place.base)
    shard = "model-00001-of-00002.safetensors"
    names = [name for name in split(sharded / WEIGHTS)[0] if name != "__metadata__"]
    (sharded / WEIGHTS).rename(sharded / shard)
    shutil.copy(place.base / "2_Dense" / WEIGHTS, sharded / "model-00002-of-00002.safetensors")
    index = {"metadata": {"total_size": 5}, "weight_map": dict.fromkeys(names[:6], shard)}
    adapter = adapter_of(place)
    settings = json.loads((adapter / ADAPTER).read_text())
    full = settings | {"alpha_pattern": {"query": 4}, "rank_pattern": {"value": 4}}
    base = open_model(place.base)
    factors, kept = split(adapter / ADAPTER_WEIGHTS)
    other = Path(shutil.copytree(adapter, place.fresh() / "adapter"))
    return [
        Opener("a safetensors header", documents(header), write_header, lambda: read_header(file)),
        Opener("a safetensors file", damaged(whole), file.write_bytes, lambda: read_header(file)),
        Opener(
            "a weight index", documents(index), (sharded / INDEX).write_bytes, lambda: open_model(sharded)
        ),
        Opener(
            "an adapter_config.json",
            documents(full),
            (adapter / ADAPTER).write_bytes,
            lambda: open_vectors(base, [adapter]),
        ),
        Opener(
            "an adapter's header",
            documents(factors),
            lambda content: joined(other / ADAPTER_WEIGHTS, content, kept),
            lambda: open_vectors(base, [other]),
        ),
    ]


def settings(place: Place) -> list[Opener]:
    """The JSON files of a model."""
    from selfpos.merging.plan import check_base
    from selfpos.storage.model_folder import open_model
    from selfpos.training.models import check_trainable
    from selfpos.vectors.task_vector import open_vectors

    base = open_model(place.base)

    def opener(name: str, files: list[str]) -> Opener:
        models = [place.copy(place.vectors[0]) for _ in files]
        drawn = [documents(json.loads((place.vectors[0] / file).read_text())) for file in files]

        def opened(number: int) -> None:
            check_base(models[number], allow_code=True)
            check_trainable(models[number], 16)
            open_vectors(base, [models[number]])

        paths = [model / file for model, file in zip(models, files, strict=True)]
        return of_several(name, drawn, paths, opened)

    others = ["sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json"]
    parts = ["1_Pooling/config.json", "2_Dense/config.json"]
    return [opener(MODULES, [MODULES]), opener("settings of a model", [CONFIG, *others, *parts])]


def of_several(
    name: str,
    drawn: Sequence[st.SearchStrategy[bytes]],
    paths: Sequence[Path],
    opened: Callable[[int], object],
) -> Opener:
    """An opener of several files, each with contents of its own; `opened` gets the number of the last."""
    latest = [0]

    def write(content: bytes) -> None:
        latest[0] = content[0] % len(paths) if content else 0
        paths[latest[0]].write_bytes(content[1:])

    numbered = [one.map(partial(bytes.__add__, bytes([number]))) for number, one in enumerate(drawn)]
    return Opener(name, st.one_of(numbered), write, lambda: opened(latest[0]))


def manifests(place: Place) -> list[Opener]:
    """Manifests, as the card, a push and a repetition read them."""
    from selfpos.operations import merge, probe_of
    from selfpos.publishing.plan import plan_push

    model = merge(str(place.base), place.vectors[:2], "ties", place.fresh() / "merged")
    valid = json.loads((model / MANIFEST).read_text()) | {
        "licence": "mit",
        "finetune": {"source": {"type": "sts", "data": str(place.pairs)}, "hash": "x", "probe": 4, "seed": 0},
        "positioning": {
            "settings": {"search": "linearised"}, "steps": 4, "step": 2, "seconds": 1.5,
            "losses": {"one": 0.5}, "coefficients": [0.5, 0.4], "intervals": [[0.4, 0.6], [0.3, 0.5]],
            "probe": {"one": {"type": "sts", "records": 4, "hash": "x"}},
        },
        "tasks": {"one": {"type": "sts", "records": 4, "hash": "x"}},
        "published": {"probe_set": "alice/probe"},
    }  # fmt: skip

    def opened() -> None:
        faults = []
        for read in (lambda: plan_push(model, "alice/x", licence="mit"), lambda: probe_of([model])):
            try:
                read()
            except SelfposError as error:
                faults.append(error)
        if faults:
            raise faults[0]

    counts = {"items": 9, "exact": 1, "near": 0}
    step = {"step": 1, "losses": {"one": 0.5}, "coefficients": [0.5, 0.4], "validation": {"one": 0.4}}
    beside = {
        "overlap.yaml": {
            "settings": {"threshold": 0.8},
            "sources": {"one": {"tasks": {"Banking77": counts}}},
        },
        "recipe.yaml": {"name": "small", "base": str(place.base), "tasks": {"one": {"data": "x"}}},
        "trajectory.jsonl": step,
    }
    others = [place.copy(place.base) for _ in beside]
    paths = [other / name for other, name in zip(others, beside, strict=True)]
    return [
        Opener("a manifest selfpos.json", documents(valid), (model / MANIFEST).write_bytes, opened),
        of_several(
            "files beside a manifest",
            [documents(content) for content in beside.values()],
            paths,
            lambda number: plan_push(others[number], "alice/x", licence="mit"),
        ),
    ]


def recipes(place: Place) -> list[Opener]:
    """Recipes of a run and of mergekit."""
    import yaml

    from selfpos.mergekit.recipe import translate_recipes
    from selfpos.recipe import load_recipe

    own = yaml.safe_load(place.recipe().read_text())
    own |= {
        "joint": {"steps": 4, "mixture": "resampled", "ratio": {"one": 2}},
        "bagging": {"shares": [0.5]},
        "overlap": {"threshold": 0.5},
        "merges": own["merges"] | {"sp": {"method": "self-positioning", "positioning": {"steps": 3}}},
    }
    theirs = {
        "merge_method": "ties",
        "base_model": str(place.base),
        "models": [
            {"model": str(path), "parameters": {"weight": 0.5, "density": [0.1, 0.9]}}
            for path in place.vectors[:2]
        ],
        "parameters": {"normalize": True, "weight": [{"filter": "mlp", "value": 0.5}, {"value": 1}]},
        "dtype": "float32",
    }
    file = place.fresh() / "recipe.yaml"
    made = []
    for name, valid, read in (
        ("a recipe", own, partial(load_recipe, file)),
        ("a recipe of mergekit", theirs, partial(translate_recipes, file)),
    ):
        content = st.one_of(mutated(valid).map(as_yaml), mutated(valid).map(as_yaml), damaged(as_yaml(valid)))
        made.append(Opener(name, content, file.write_bytes, read))
    return made


def records(place: Place) -> Opener:
    """Records in files of every kind of text, read for a task."""
    from selfpos.data.sources import load_task
    from selfpos.recipe import TaskSource

    folder = place.fresh()
    valid = [
        {"sentence1": "a b", "sentence2": f"c {number}", "score": number, "id": 5} for number in range(8)
    ]
    drawn, paths = [], []
    for kind in ("jsonl", "json", "csv", "tsv"):
        write = partial(_as_records, kind)
        drawn.append(st.one_of(mutated(valid).map(write), damaged(write(valid))))
        paths.append(folder / f"x.{kind}")

    def opened(number: int) -> None:
        load_task(TaskSource(type="sts", data=str(paths[number])), seed=0)

    return of_several("records", drawn, paths, opened)


def _as_records(kind: str, rows: Any) -> bytes:
    """The rows as a file of a kind."""
    if kind == "json" or not isinstance(rows, list):
        return json.dumps(rows).encode()
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="," if kind == "csv" else "\t", lineterminator="\n")
    writer.writerow(["sentence1", "sentence2", "score", "id"])
    writer.writerows(row.values() if isinstance(row, dict) else [row] for row in rows)
    return stream.getvalue().encode(errors="surrogatepass")


def probe(place: Place) -> Opener:
    """A probe set, a line of JSON each."""
    from selfpos.data.probe import read_probe

    file = place.fresh() / "probe.jsonl"
    valid = [json.loads(line) for line in (place.probe / "probe.jsonl").read_text().splitlines()[:6]]

    def written(rows: Any) -> bytes:
        rows = rows if isinstance(rows, list) else [rows]
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    content = st.one_of(mutated(valid).map(written), damaged(written(valid)))
    return Opener("a probe set", content, file.write_bytes, lambda: read_probe(file))
