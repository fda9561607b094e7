"""What the fuzzers try: an opener, and files near a valid one."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
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
    """`open` reads the file after `write` put a drawn content there."""

    name: str
    content: st.SearchStrategy[Any]
    write: Callable[[Any], object]
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
        models = {file: place.copy(place.vectors[0]) for file in files}
        drawn = [
            documents(json.loads((models[file] / file).read_text())).map(partial(_named, file))
            for file in files
        ]
        latest = [files[0]]

        def write(content: tuple[str, bytes]) -> None:
            latest[0] = content[0]
            (models[content[0]] / content[0]).write_bytes(content[1])

        def opened() -> None:
            model = models[latest[0]]
            check_base(model, allow_code=True)
            check_trainable(model, 16)
            open_vectors(base, [model])

        return Opener(name, st.one_of(drawn), write, opened)

    others = ["sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json"]
    parts = ["1_Pooling/config.json", "2_Dense/config.json"]
    return [opener(MODULES, [MODULES]), opener("settings of a model", [CONFIG, *others, *parts])]


def _named(file: str, content: bytes) -> tuple[str, bytes]:
    return file, content


def manifests(place: Place) -> list[Opener]:
    """Manifests, as the card, a push and a repetition read them."""
    from selfpos.operations import merge, probe_of
    from selfpos.publishing.plan import plan_push

    model = merge(str(place.base), place.vectors[:2], "ties", place.fresh() / "merged")
    valid = json.loads((model / MANIFEST).read_text()) | {
        "licence": "mit",
        "finetune": {"source": {"type": "sts", "data": str(place.pairs)}, "hash": "x", "probe": 4, "seed": 0},
    }

    def opened() -> None:
        faults = []
        for read in (lambda: plan_push(model, "alice/x", licence="mit"), lambda: probe_of([model])):
            try:
                read()
            except SelfposError as error:
                faults.append(error)
        if faults:
            raise faults[0]

    return [Opener("a manifest selfpos.json", documents(valid), (model / MANIFEST).write_bytes, opened)]


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
    drawn = []
    for kind in ("jsonl", "json", "csv", "tsv"):
        write = partial(_as_records, kind)
        content = st.one_of(mutated(valid).map(write), damaged(write(valid)))
        drawn.append(content.map(partial(_named, kind)))
    latest = ["jsonl"]

    def put(content: tuple[str, bytes]) -> None:
        latest[0] = content[0]
        (folder / f"x.{content[0]}").write_bytes(content[1])

    def opened() -> None:
        load_task(TaskSource(type="sts", data=str(folder / f"x.{latest[0]}")), seed=0)

    return Opener("records", st.one_of(drawn), put, opened)


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
