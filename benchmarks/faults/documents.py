"""JSON and YAML without bounds, absurd numbers, wrong types, encodings and words in what users give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from place import Place
from trial import DONE, REFUSED, Trial

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
FLOW_BOMB = "[&a [x,x,x,x,x,x,x,x,x]" + "".join(
    f", &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
VALUES = {
    "nested": ["[" * 100_000, "[" * 10_000 + "]" * 10_000, "{a: " * 10_000 + "1" + "}" * 10_000],
    "aliases that multiply": [FLOW_BOMB + "]"],
    "aliases of themselves": ["&a [*a]", "&a {b: *a}", "&a {? *a : 1}"],
    "thousands of digits": ["9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 20_000, "1e" + "9" * 400],
    "no number": [".nan", ".inf", "-.inf", "1e400"],
}
FIELDS = {
    "absurd numbers": [
        {"training": {"steps": 10**30}},
        {"training": {"steps": -1}},
        {"training": {"max_length": 10**12}},
        {"training": {"checkpoint_every": 10**30}},
        {"training": {"batch_size": 10**18}},
        {"training": {"epochs": float("inf")}},
        {"training": {"learning_rate": float("nan")}},
        {"training": {"learning_rate": 10**30}},
        {"training": {"temperature": 1e-300}},
        {"probe": {"per_task": 10**30}},
        {"seed": 10**30},
        {"seed": -1},
        {"evaluation": {"tasks": ["STSBenchmark"], "batch_size": 10**30}},
        {"joint": {"steps": 10**30}},
        {"bagging": {"shares": [10**30]}},
    ],
    "a wrong type": [
        {"seed": True},
        {"seed": "zero"},
        {"seed": [1]},
        {"training": {"steps": True}},
        {"training": {"steps": [4]}},
        {"training": []},
        {"training": {"matryoshka": [True]}},
        {"tasks": []},
        {"tasks": {"one": "sts"}},
        {"tasks": {1: {"type": "sts", "data": "x"}}},
        {"merges": {"m": None}},
        {"merges": {"m": {"method": 5}}},
        {"base": {"a": 1}},
        {"name": None},
        {"evaluation": {"tasks": "STSBenchmark"}},
    ],
    "names too long or too many": [
        {"name": "n" * 300},
        {"name": "n" * 100_000},
        {"base": "b" * 100_000},
        {"merges": {"m" * 300: {"method": "average"}}},
        {"merges": {f"m{number}": {"method": "average"} for number in range(2000)}},
    ],
    "names that are paths": [
        {"name": "../x"},
        {"name": "/tmp/x"},
        {"name": "a\nb"},
        {"name": "\x1b[31mx"},
        {"merges": {"../../m": {"method": "average"}}},
        {"tasks": {"..": {"type": "sts", "data": "x"}}},
    ],
    "patterns that never end": [
        {"merges": {"m": {"method": "average", "exclude": ["(([a-z._0-9]+)+)+$!"]}}},
        {"merges": {"m": {"method": "average", "exclude": ["["]}}},
    ],
}


def trials(place: Place) -> Iterator[Trial]:
    yield from recipes(place)
    yield from values(place)
    yield from mergekit(place)
    yield from json_files(place)


def recipes(place: Place) -> Iterator[Trial]:
    """Recipes of `run`."""
    for fault, changes in FIELDS.items():
        for change in changes:
            yield _run(place, f"recipe: {fault}", place.recipe(**change))
    good = place.recipe().read_text()
    texts = {
        "nested": [f"{good}x: {value}" for value in VALUES["nested"]],
        "aliases that multiply": [BOMB, good + BOMB, f"{good}notes: {FLOW_BOMB}]"],
        "aliases of themselves": [f"{good}x: {value}" for value in VALUES["aliases of themselves"]],
        "thousands of digits": [f"{good}x: {value}" for value in VALUES["thousands of digits"]],
        "a key twice": [f"{good}seed: 1\nseed: 2\n", f"{good}name: other\n"],
        "several documents": [f"{good}---\n{good}"],
        "tags": [f"{good}x: !!python/object/apply:os.system ['true']\n", f"{good}x: !!binary abc\n"],
        "nothing": ["", "# nothing", "[]", "5", "null"],
    }
    for fault, written in texts.items():
        for text in written:
            yield _run(place, f"recipe: {fault}", _file(place, "r.yaml", text.encode()))
    for encoding in ("utf-16", "utf-32", "latin-1", "cp1252"):
        content = (good + "# größe\n").encode(encoding)
        yield _run(place, "recipe: not UTF-8", _file(place, "r.yaml", content))
    yield _run(
        place, "recipe: with a byte order mark", _file(place, "r.yaml", good.encode("utf-8-sig")), DONE
    )
    yield _run(place, "recipe: not UTF-8", _file(place, "r.yaml", good.encode() + b"\0"))
    yield _run(place, "recipe: not UTF-8", _file(place, "r.yaml", bytes(range(256)) * 100))


def _run(place: Place, fault: str, file: Path, statuses: tuple[int, ...] = REFUSED) -> Trial:
    out = place.fresh() / "out"
    return Trial(fault, ["run", file, "--out", out, "--dry-run"], out, statuses, seconds=5)


def _file(place: Place, name: str, content: bytes) -> Path:
    file = place.fresh() / name
    file.write_bytes(content)
    return file


def values(place: Place) -> Iterator[Trial]:
    """Values on the command line."""
    for fault, written in VALUES.items():
        for value in written:
            out = place.fresh() / "out"
            words = [*place.merge(out), "--param", f"density={value}"]
            yield Trial(f"--param: {fault}", words, out, seconds=5)
            out = place.fresh() / "out"
            words = [*place.merge(out), "--weights", value, "--weights", "1"]
            yield Trial(f"--weights: {fault}", words, out, seconds=5)
    out = place.fresh() / "out"
    words = [*place.search(out), "--param", f"exclude={'*a' * 40}!"]
    yield Trial("--param: a pattern that never ends", words, out)
    for given in (
        "density=",
        "density= ",
        "=1",
        "density",
        "density=true",
        "density=~",
        "denstiy=0.5",
        "density=-1",
    ):
        out = place.fresh() / "out"
        yield Trial("--param: empty or of a wrong type", [*place.merge(out), "--param", given], out)


def mergekit(place: Place) -> Iterator[Trial]:
    """Recipes of mergekit."""
    models = f"models: [{{model: {place.vectors[0]}}}, {{model: {place.vectors[1]}}}]\n"
    good = f"merge_method: ties\nbase_model: {place.base}\n{models}"
    texts = {
        "nested": [f"{good}parameters: {value}" for value in VALUES["nested"]],
        "aliases that multiply": [BOMB, good + BOMB, f"{good}parameters: {{density: {FLOW_BOMB}]}}"],
        "aliases of themselves": [f"{good}parameters: {value}" for value in VALUES["aliases of themselves"]],
        "thousands of digits": [
            f"{good}parameters: {{density: {value}}}" for value in VALUES["thousands of digits"]
        ],
        "a wrong type": [
            f"{good}parameters: 5",
            f"{good}parameters: [density]",
            f"merge_method: [ties]\n{models}",
            f"merge_method: ties\nbase_model: 5\n{models}",
            "merge_method: ties\nmodels: 5\n",
            "merge_method: ties\nmodels: [5]\n",
            "merge_method: ties\nmodels: [{model: {a: b}}]\n",
            f"{good}dtype: [float32]",
            f"{good}dtype: float999",
            f"{good}slices: 5",
            f"{good}tokenizer: 5",
            "5",
            "",
        ],
        "a key twice": [f"{good}merge_method: average\n"],
    }
    for fault, written in texts.items():
        for text in written:
            out = place.fresh() / "out"
            file = _file(place, "merge.yml", text.encode())
            yield Trial(f"mergekit recipe: {fault}", ["merge", file, "--out", out], out, seconds=5)


def json_files(place: Place) -> Iterator[Trial]:
    """The JSON files of a model, for the verbs that read it."""
    broken = {
        "nested": ["[" * 200_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "[" * 500 + "]" * 500],
        "thousands of digits": ['{"a": ' + "9" * 5000 + "}"],
        "no JSON": ["", "{", "\0" * 100, "not json"],
        "no object": ["5", "null", '"text"', "[5]", "true"],
        "half a pair": ['{"a": "\\ud800"}', '{"\\udfff": 1}'],
        "a key twice": ['{"a": 1, "a": 2}'],
    }
    for number in ("1e999", "NaN", '"x"'):
        for verb in (place.merge, place.finetune):
            model = place.copy(place.base)
            listed = (model / "modules.json").read_text()
            (model / "modules.json").write_text(listed.replace('"idx": 0', f'"idx": {number}'))
            out = place.fresh() / "out"
            yield Trial("modules.json: no number of a module", verb(out, base=model), out)
    for name in ("modules.json", "config.json", "1_Pooling/config.json", "selfpos.json"):
        for fault, texts in broken.items():
            for text in texts:
                for verb in ("merge", "finetune", "eval-mteb"):
                    model = place.copy(place.vectors[0])
                    (model / name).write_text(text)
                    out = place.fresh() / "out"
                    words = {"merge": place.merge, "finetune": place.finetune}.get(verb)
                    line = words(out, base=model) if words else place.score(out, model=model)
                    # nobody reads the manifest of a model that is only scored, nor a key that says nothing
                    statuses = (*DONE, *REFUSED) if name == "selfpos.json" else REFUSED
                    yield Trial(f"{name.split('/')[-1]}: {fault}", line, out, statuses, memory=2000)
    own = {"config_sentence_transformers.json": "prompts", "sentence_bert_config.json": "max_seq_length"}
    for name, setting in own.items():
        for text in ("[" * 200_000, "5", "{", json.dumps({setting: 5.5})):
            for verb in (place.merge, place.finetune):
                model = place.copy(place.base)
                (model / name).write_text(text)
                out = place.fresh() / "out"
                yield Trial("settings of sentence-transformers: broken", verb(out, base=model), out)
    yield from settings(place)


BOUNDED = {"num_hidden_layers", "max_seq_length", "prompts"}
"""Settings that every verb checks; what it makes of others depends on what it reads."""


def settings(place: Place) -> Iterator[Trial]:
    """Settings of a model of wrong types and of absurd size."""
    tried = {
        "config.json": [
            {"num_hidden_layers": 10**9},
            {"num_hidden_layers": -1},
            {"num_hidden_layers": "2"},
            {"hidden_size": 10**12},
            {"vocab_size": 10**12},
            {"num_attention_heads": 0},
            {"max_position_embeddings": 10**15},
            {"model_type": 5},
            {"model_type": "../x"},
            {"hidden_act": "os.system"},
            {"architectures": "BertModel"},
            {"dtype": "float999"},
            {"auto_map": {"AutoModel": "x.Y"}},
        ],
        "sentence_bert_config.json": [
            {"max_seq_length": 10**30},
            {"max_seq_length": "many"},
            {"max_seq_length": [1]},
            {"max_seq_length": -1},
            {"unknown": 1},
            {"module_output_name": "nothing"},
            {"processing_kwargs": {"text": {"max_length": 10**12, "padding": "max_length"}}},
        ],
        "sentence_roberta_config.json": [{"max_seq_length": value} for value in ("x", [1], 1e999)],
        "config_sentence_transformers.json": [
            {"prompts": 5},
            {"prompts": {"query": 5}},
            {"prompts": ["query"]},
            {"default_prompt_name": "nothing"},
            {"similarity_fn_name": 5},
            {"model_type": 5},
        ],
        "tokenizer_config.json": [
            {"model_max_length": 10**30},
            {"model_max_length": "many"},
            {"tokenizer_class": 5},
            {"tokenizer_class": "Nothing"},
            {"cls_token": 5},
        ],
        "1_Pooling/config.json": [{"word_embedding_dimension": 10**12}, {"pooling_mode": 5}, {"x": 1}],
        "2_Dense/config.json": [
            {"in_features": 10**12},
            {"in_features": "x"},
            {"activation_function": "os.system"},
        ],
    }
    for name, changes in tried.items():
        for change in changes:
            for verb in ("merge", "finetune", "eval-mteb", "search"):
                model = place.copy(place.base)
                file = model / name
                kept = json.loads(file.read_text()) if file.exists() else {}
                file.write_text(json.dumps(kept | change))
                out = place.fresh() / "out"
                line = {
                    "merge": lambda model=model, out=out: place.merge(out, base=model),
                    "search": lambda model=model, out=out: [*place.search(out, base=model), "--dry-run"],
                    "finetune": lambda model=model, out=out: place.finetune(out, base=model),
                    "eval-mteb": lambda model=model, out=out: place.score(out, model=model),
                }[verb]()
                fault = f"{name.split('/')[-1]}: absurd numbers and wrong types"
                statuses = REFUSED if change.keys() & BOUNDED else (*DONE, *REFUSED)
                yield Trial(fault, line, out, statuses, memory=2000)
