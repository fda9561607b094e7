"""safetensors headers that lie, indices and adapters of wrong types, and names that a terminal obeys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outside import adapter_of
from place import Place
from trial import DONE, REFUSED, Trial

from selfpos.storage.file_kinds import ADAPTER, ADAPTER_WEIGHTS, INDEX, WEIGHTS

METHODS = ("average", "ties", "slerp", "tsv-m")


def trials(place: Place) -> Iterator[Trial]:
    yield from headers(place)
    yield from raw_headers(place)
    yield from indices(place)
    yield from adapters(place)
    yield from names(place)


def split(file: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the bytes of a safetensors file."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(file: Path, header: bytes, data: bytes) -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)


def _changed(header: dict[str, Any], fault: str) -> dict[str, Any]:
    """The header with one tensor that lies."""
    name = next(name for name, entry in header.items() if len(entry.get("shape", [])) == 2)
    entry = header[name]
    shape, (start, stop) = entry["shape"], entry["data_offsets"]
    lies: dict[str, dict[str, Any]] = {
        "negative dimensions, all": {"shape": [-size for size in shape]},
        "negative dimensions, one": {"shape": [-shape[0], shape[1]]},
        "true in a shape": {"shape": [*shape, True]},
        "a float in a shape": {"shape": [float(shape[0]), shape[1]]},
        "a text for a shape": {"shape": "22"},
        "no shape": {"shape": None},
        "a shape beyond 64 bits": {"shape": [2**64, 0]},
        "a shape too large": {"shape": [10**9, 10**9]},
        "zero in a shape": {"shape": [0, shape[1]]},
        "offsets swapped": {"data_offsets": [stop, start]},
        "offsets negative": {"data_offsets": [start - stop, 0]},
        "offsets beyond the file": {"data_offsets": [start + 10**9, stop + 10**9]},
        "offsets of another tensor": {"data_offsets": [0, stop - start]},
        "three offsets": {"data_offsets": [start, stop, stop]},
        "an unknown number format": {"dtype": "F99"},
        "a number format of no type": {"dtype": 5},
        "another number format of that size": {"dtype": "I32"},
    }
    return header | {name: entry | lies[fault]}


LIES = [
    *("negative dimensions, all", "negative dimensions, one", "true in a shape", "a float in a shape"),
    *("a text for a shape", "no shape", "a shape beyond 64 bits", "a shape too large", "zero in a shape"),
    *("offsets swapped", "offsets negative", "offsets beyond the file", "offsets of another tensor"),
    *("three offsets", "an unknown number format", "a number format of no type"),
    "another number format of that size",
]


def headers(place: Place) -> Iterator[Trial]:
    for lie in LIES:
        for method in METHODS:
            for part in ("base", "vector"):
                model = place.copy(place.base if part == "base" else place.vectors[0])
                header, data = split(model / WEIGHTS)
                joined(model / WEIGHTS, json.dumps(_changed(header, lie)).encode(), data)
                out = place.fresh() / "out"
                vectors = place.vectors[:2] if part == "base" else [model, place.vectors[1]]
                base = model if part == "base" else None
                words = place.merge(out, base=base, vectors=vectors, method=method)
                yield Trial(f"a header with {lie}", words, out)


def raw_headers(place: Place) -> Iterator[Trial]:
    """Headers that are no object of tensors, and files that are cut."""
    header, data = split(place.base / WEIGHTS)
    text = json.dumps(header).encode()
    texts = {
        "nested deeply": [
            b"[" * 200_000,
            b'{"__metadata__":' * 100_000,
            b'{"__metadata__": ' + b"[" * 100_000,
        ],
        "thousands of digits": [text.replace(b"[0, ", b"[" + b"0" * 1 + b"9" * 5000 + b", ", 1)],
        "half a surrogate pair": [text.replace(b'"embeddings', b'"\\ud800embeddings', 1)],
        "a tensor twice": [text[:-1] + b", " + text[1:]],
        "no JSON": [b"", b"{", b"\xff\xfe", b"\0" * 100, b"null", b"[]", b"5", b"{}"],
        "metadata of a wrong type": [
            json.dumps(header | {"__metadata__": odd}).encode() for odd in (5, [], {"format": 5}, {"a": {}})
        ],
    }
    for fault, written in texts.items():
        for content in written:
            for verb in ("merge", "finetune", "eval-mteb"):
                model = place.copy(place.base)
                joined(model / WEIGHTS, content, data)
                yield _verb(place, f"a header of {fault}", model, verb)
    whole = (place.base / WEIGHTS).read_bytes()
    cuts = [b"", whole[:4], whole[:8], whole[:100], whole[:-1], whole + b"x", b"\xff" * 8 + whole[8:]]
    for content in [*cuts, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"]:
        for verb in ("merge", "finetune", "eval-mteb"):
            model = place.copy(place.base)
            (model / WEIGHTS).write_bytes(content)
            yield _verb(place, "a weight file that is cut, longer or a pointer", model, verb)


def _verb(
    place: Place, fault: str, model: Path, verb: str, statuses: tuple[int, ...] = REFUSED, says: str = ""
) -> Trial:
    out = place.fresh() / "out"
    words = {"merge": place.merge, "finetune": place.finetune}.get(verb)
    line = words(out, base=model) if words else place.score(out, model=model)
    return Trial(fault, line, out, statuses, memory=2000, says=says)


def indices(place: Place) -> Iterator[Trial]:
    """Indices that do not say where the tensors are."""
    names = list(split(place.base / WEIGHTS)[0])
    shard = "model-00001-of-00001.safetensors"
    good = {name: shard for name in names if name != "__metadata__"}
    odd: dict[str, list[Any]] = {
        "an index of tensors that are not there": [good | {"nothing.weight": shard}, {"nothing": shard}],
        "an index of shards that are not there": [dict.fromkeys(good, "model-00001-of-00002.safetensors")],
        "an index of a wrong type": [
            *(dict.fromkeys(good, value) for value in (5, None, True, [shard], {"a": shard}, "", ".", "\0")),
            [],
            5,
            None,
            "x",
        ],
        "an index that names other files": [
            dict.fromkeys(good, "config.json"),
            dict.fromkeys(good, "2_Dense"),
        ],
    }
    for fault, maps in odd.items():
        for weight_map in maps:
            for verb in ("merge", "finetune", "eval-mteb"):
                model = place.copy(place.base)
                (model / WEIGHTS).rename(model / shard)
                (model / INDEX).write_text(json.dumps({"weight_map": weight_map}))
                yield _verb(place, fault, model, verb)
    for text in ("[" * 200_000, "{", "5", "[]", '{"weight_map": {"a": "b", "a": "b"}}', "\0"):
        for verb in ("merge", "finetune", "eval-mteb"):
            model = place.copy(place.base)
            (model / WEIGHTS).rename(model / shard)
            (model / INDEX).write_text(text)
            yield _verb(place, "an index that is no JSON object", model, verb)


def adapters(place: Place) -> Iterator[Trial]:
    """Settings of adapters."""
    module = "encoder.layer.0.attention.self.query"
    wrong: list[dict[str, Any]] = [
        *({"lora_alpha": value} for value in ("x", None, True, [16], {}, 10**400, -(10**30), float("inf"))),
        *({"alpha_pattern": value} for value in ({"[": 4}, {"a": "b"}, ["a"], 5, {"query": None})),
        {"peft_type": "NOTHING"},
        {"peft_type": 5},
        {"init_lora_weights": "pissa"},
        {"trainable_token_indices": "x"},
        {"use_dora": "yes"},
    ]
    unread: list[dict[str, Any]] = [  # the factors say it, or it is of the training only
        *({"r": value} for value in ("x", 10**30, -1)),
        {"target_modules": 5},
        {"trainable_token_indices": [10**30]},
        {"fan_in_fan_out": True},
    ]
    endless = [r"(([a-z._0-9]+)+)+$!", r"(a|a|[a-z.]*)*\d{9}$", r"(.*)*(.*)*(.*)*!", r"(\w|\w\w|\.)+d\d"]
    for change in wrong:
        yield _adapter(place, "an adapter with a setting of a wrong type", change, REFUSED)
    for change in unread:
        yield _adapter(place, "an adapter with a wrong setting that is read nowhere", change, DONE)
    for pattern in endless:
        change = {"alpha_pattern": {pattern: 4}}
        yield _adapter(place, "an adapter with a pattern that never ends", change, DONE)
    large = ["((a{1000}){1000}){1000}", "a{4000000000}", "(?R)", "(" * 5000 + ")" * 5000, "a" * 10**6]
    for patterns in ([pattern] for pattern in large):
        change = {"alpha_pattern": dict.fromkeys(patterns, 4)}
        yield _adapter(place, "an adapter with a pattern too large to be read", change, REFUSED)
    many = {"alpha_pattern": {f"x{number}": 4 for number in range(200_000)}}
    yield _adapter(place, "an adapter with a pattern too large to be read", many, REFUSED)
    yield from scored(place, endless[0])
    change = {"rank_pattern": {endless[0]: 4}}
    yield _adapter(place, "an adapter with a pattern that never ends", change, DONE)
    for text in ("[" * 200_000, "{", "5", '{"a": ' + "9" * 5000 + "}", '{"r": 1, "r": 2}', "\0", ""):
        adapter = adapter_of(place)
        (adapter / ADAPTER).write_text(text)
        out = place.fresh() / "out"
        yield Trial("an adapter_config.json that is no JSON object", place.merge(out, vectors=[adapter]), out)
    for change in ("drop", "rename", "transpose", "empty"):
        adapter = adapter_of(place)
        _spoilt(adapter / ADAPTER_WEIGHTS, module, change)
        out = place.fresh() / "out"
        yield Trial("an adapter whose factors do not fit", place.merge(out, vectors=[adapter]), out)


def _adapter(place: Place, fault: str, change: dict[str, Any], statuses: tuple[int, ...]) -> Trial:
    adapter = adapter_of(place)
    settings = json.loads((adapter / ADAPTER).read_text())
    (adapter / ADAPTER).write_text(json.dumps(settings | change))
    out = place.fresh() / "out"
    return Trial(fault, place.merge(out, vectors=[adapter]), out, statuses, seconds=5)


def scored(place: Place, endless: str) -> Iterator[Trial]:
    """Adapters in folders of sentence-transformers, which PEFT loads."""
    wrong: list[tuple[dict[str, Any], tuple[int, ...]]] = [
        ({}, DONE),
        *(({name: {endless: 4}}, REFUSED) for name in ("rank_pattern", "alpha_pattern")),
        *(({name: endless}, REFUSED) for name in ("target_modules", "exclude_modules")),
        ({"r": 10**12}, REFUSED),
        ({"r": "x"}, REFUSED),
    ]
    for change, statuses in wrong:
        model, adapter = place.copy(place.base), adapter_of(place)
        settings = json.loads((adapter / ADAPTER).read_text())
        (model / ADAPTER).write_text(json.dumps(settings | change))
        shutil.copy(adapter / ADAPTER_WEIGHTS, model)
        for name in (WEIGHTS, "config.json"):
            (model / name).unlink()
        out = place.fresh() / "out"
        fault = "an adapter that PEFT loads: patterns without end, ranks"
        yield Trial(fault, place.score(out, model=model), out, statuses, memory=2000)


def _spoilt(file: Path, module: str, change: str) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    tensors = load_file(file)
    name = f"base_model.model.{module}.lora_A.weight"
    factor = tensors.pop(name)
    if change == "rename":
        tensors[name.replace("query", "nothing")] = factor
    elif change == "transpose":
        tensors[name] = np.ascontiguousarray(factor.T)
    elif change == "empty":
        tensors[name] = factor[:0]
    save_file(tensors, file)


def names(place: Place) -> Iterator[Trial]:
    """Names of tensors, files and folders that would write on the terminal."""
    hostile = [
        "a\nselfpos: all is well",
        "a\x1b[2J\x1b[31m",
        "a\u202eb",
        "a\u2028b",
        "a\x00b",
        "a\x07",
        "a\rb",
    ]
    for name in hostile:
        for part in ("base", "vector"):
            model = place.copy(place.base if part == "base" else place.vectors[0])
            header, data = split(model / WEIGHTS)
            first = next(key for key in header if key != "__metadata__")
            renamed = {name if key == first else key: entry for key, entry in header.items()}
            joined(model / WEIGHTS, json.dumps(renamed).encode(), data)
            out = place.fresh() / "out"
            base = model if part == "base" else None
            vectors = place.vectors[:2] if part == "base" else [model]
            yield Trial(
                "a tensor name that a terminal obeys", place.merge(out, base=base, vectors=vectors), out
            )
        if "\0" in name:
            continue
        for verb in ("merge", "finetune", "eval-mteb"):
            model = place.copy(place.base).rename(place.fresh() / name)
            (model / "modules.json").write_text("[]")
            yield _verb(place, "a folder's name that a terminal obeys", model, verb)
