"""Nesting, aliases, digits and numbers without bounds: one sentence, at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from peft.utils.other import get_pattern_key

from selfpos.commands.options import parse_params, yaml_value
from selfpos.data.files import read_records
from selfpos.data.tables import from_records
from selfpos.errors import SelfposError
from selfpos.evaluation.task_files import SETTINGS
from selfpos.mergekit.recipe_file import read_recipe_file
from selfpos.recipe import load_recipe, validate
from selfpos.storage.documents import parse_json, parse_yaml
from selfpos.storage.manifest import read_json
from selfpos.vectors.scaling import Scaling
from tests.helpers.command import CommandLine

RECIPE = "name: r\ntasks: {t: {type: sts, data: x.jsonl}}\nmerges: {m: {method: average}}\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000))
DOCUMENTS = {
    "deep lists": "[" * 100_000,
    "deep lists, closed": "x: " + "[" * 10_000 + "]" * 10_000,
    "deep maps": "{a: " * 10_000 + "1" + "}" * 10_000,
    "deep blocks": "".join(" " * n + "a:\n" for n in range(300)),
    "self": "a: &a [*a]",
    "self in a key's map": "a: &a {b: *a}",
    "bomb": BOMB,
    "chain": CHAIN,
    "digits": "a: " + "9" * 5000,
    "hexadecimal": "a: 0x" + "f" * 5000,
    "twice": "a: 1\nb: 2\na: 3\n",
    "escape far beyond Unicode": 'a: "\\U88219069"',
    "escape beyond Unicode": 'a: "\\U00110000"',
    "half a surrogate pair": 'a: "\\ud800"',
    "no date": "a: 2026-13-45",
    "long": "a: " + "x" * 2_000_000,
    "unclosed": "a: [1, 2",
}


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < 3


@pytest.mark.parametrize("name", DOCUMENTS)
def test_yaml_without_bounds_is_one_sentence(name: str, tmp_path: Path) -> None:
    text = DOCUMENTS[name]
    with pytest.raises(ValueError):
        parse_yaml(text)
    file = tmp_path / "r.yaml"
    file.write_text(text)
    for read in (load_recipe, read_recipe_file):
        with pytest.raises(SelfposError, match="is not YAML") as refused:
            read(file)
        assert len(str(refused.value)) < 800
    with pytest.raises(SelfposError, match="cannot read the value"):
        yaml_value(text)


def test_yaml_that_people_write_is_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}, {"x": 1}],
    }
    assert parse_yaml(r'["\ud83d\ude00", "\U0001F600"]') == ["😀", "😀"]
    assert parse_yaml("") is None and parse_yaml("0x10") == 16 and parse_yaml("1:30") == 90


@pytest.mark.parametrize("text", ["{a: 1} b", "0.5\n---\n0.7", RECIPE + "---\n" + RECIPE])
def test_yaml_of_several_documents_is_refused_where_one_is_read(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        parse_yaml(text)
    with pytest.raises(SelfposError, match="cannot read the value"):
        yaml_value(text)
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(SelfposError, match="is not YAML"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" * 500 + "]" * 500,
        "9" * 5000,
        '{"a": 1, "a": 2}',
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        "{",
    ],
)
def test_json_without_bounds_is_one_sentence(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SelfposError, match="is not JSON"):
        read_json(tmp_path / "x.json")


def test_json_that_tools_write_is_read() -> None:
    written = {"model_max_length": 10**30, "text": "\U0001f600", "lists": [[[1]]] * 200}
    assert parse_json(json.dumps(written)) == written


@pytest.mark.parametrize(
    ("encoding", "refusal"), [("utf-16", "UTF-16"), ("latin-1", "not text in UTF-8"), ("utf-8-sig", None)]
)
def test_encodings_of_recipes(encoding: str, refusal: str | None, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes((RECIPE + "# é\n").encode(encoding))
    if refusal is None:
        assert load_recipe(file).name == "r"
        return
    with pytest.raises(SelfposError, match=refusal):
        load_recipe(file)


@pytest.mark.parametrize(
    "change",
    [
        f"training: {{steps: {10**30}}}",
        f"training: {{max_length: {10**12}}}",
        f"training: {{checkpoint_every: {10**30}}}",
        f"training: {{batch_size: {10**18}}}",
        "training: {epochs: .inf}",
        "training: {learning_rate: .nan}",
        "training: {steps: true}",
        "training: {matryoshka: [true]}",
        "seed: true",
        "base: " + "x" * 100_000,
        f"joint: {{steps: {10**30}}}",
        "evaluation: {tasks: [" + "x, " * 30_000 + "x]}",
    ],
)
def test_a_field_has_a_range(change: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE + change)
    with pytest.raises(SelfposError, match="field '") as refused:
        load_recipe(tmp_path / "r.yaml")
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("letters", [101, 300, 100_000])
def test_a_name_has_a_length(letters: int, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE.replace("name: r", "name: " + "n" * letters))
    with pytest.raises(SelfposError, match=r"at most (100|10,000) ") as refused:
        load_recipe(tmp_path / "r.yaml")
    assert len(str(refused.value)) < 1000


def test_merges_have_a_number(tmp_path: Path) -> None:
    merges = "".join(f"  m{number}: {{method: average}}\n" for number in range(2000))
    text = RECIPE.replace("merges: {m: {method: average}}", f"merges:\n{merges.rstrip()}")
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(SelfposError, match="at most 1000"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("classification", {"n_experiments": 10**9}),
        ("classification", {"samples_per_label": 10**12}),
        ("clustering", {"n_clusters": 10**12}),
        ("clustering", {"max_document_to_embed": 10**12}),
    ],
)
def test_a_setting_of_an_own_task_has_a_range(kind: str, change: dict[str, int]) -> None:
    with pytest.raises(SelfposError, match="should be less than or equal to"):
        validate(SETTINGS[kind], change, "task file x.yaml, settings")


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_parameter_is_refused(value: str) -> None:
    with pytest.raises(SelfposError, match="has no value"):
        parse_params((f"density={value}",))


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": "x"},
        {"lora_alpha": None},
        {"lora_alpha": True},
        {"lora_alpha": [16]},
        {"lora_alpha": 10**400},
        {"lora_alpha": float("inf")},
        {"alpha_pattern": {"[": 4}},
        {"alpha_pattern": {"a": "b"}},
        {"alpha_pattern": ["a"]},
    ],
)
def test_settings_of_an_adapter_are_checked(config: dict[str, object]) -> None:
    with pytest.raises(SelfposError, match=r"adapter a has (lora_alpha|alpha_pattern)"):
        scaling = Scaling(config, Path("a"))
        for number in range(100):
            scaling.of(f"encoder.layer.{number}.attention.output.dense.and.more.and.more", 8)


@pytest.mark.parametrize("pattern", [r"(([a-z._0-9]+)+)+$!", r"(a|a|[a-z.]*)*\d{9}$", r"(.*)*(.*)*(.*)*!"])
def test_patterns_that_never_end_elsewhere_end_here(pattern: str) -> None:
    scaling = Scaling({"lora_alpha": 16, "alpha_pattern": {pattern: 4}}, Path("a"))
    for number in range(100):
        assert scaling.of(f"encoder.layer.{number}.attention.output.dense.and.more.and.more", 8) == 2


def test_a_rank_below_one_is_refused() -> None:
    for stabilised in (False, True):
        with pytest.raises(SelfposError, match="adapter a has rank '0'; expected at least 1 at encoder"):
            Scaling({"use_rslora": stabilised}, Path("a")).of("encoder", 0)


def test_patterns_are_matched_as_peft_does() -> None:
    patterns = {"query": 4, r"layer\.1\..*": 8, r"^encoder": 2, "attention.self.key": 3}
    scaling = Scaling({"lora_alpha": 16, "alpha_pattern": patterns}, Path("a"))
    for module in (
        "encoder.layer.0.attention.self.query",
        "layer.1.x",
        "encoder",
        "x.attention.self.key",
        "y",
    ):
        expected = patterns.get(get_pattern_key(patterns, module), 16)
        assert scaling.of(module, 8) == expected / 8


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("[" * 100_000, "line 2"),
        ('{"sentence1": ' + "[" * 500 + "]" * 500 + "}", "line 2"),
        ('{"sentence1": "' + "x" * 20_000_000 + '"}', "line 2"),
        ('{"sentence1": "' + "x" * 3_000_000 + '"}', "3,000,000 characters"),
    ],
)
def test_records_without_bounds(line: str, refusal: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"sentence1": "a"}\n' + line + "\n")
    with pytest.raises(SelfposError, match=refusal):
        read_records(tmp_path / "x.jsonl")


def test_records_of_other_encodings_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes('{"sentence1": "é"}\n'.encode("utf-16"))
    with pytest.raises(SelfposError, match="not UTF-8"):
        read_records(tmp_path / "x.jsonl")


def test_integers_that_no_table_holds_stay_texts(tmp_path: Path) -> None:
    values = [2**63 - 1, 2**63, -(2**63), 10**5000 // 10**4900]
    lines = "".join('{"text": "a", "id": ' + str(value) + "}\n" for value in values)
    (tmp_path / "x.jsonl").write_text(lines + '{"text": "a", "id": ' + "9" * 5000 + "}\n")
    ids = [record["id"] for record in read_records(tmp_path / "x.jsonl")]
    assert ids == [values[0], str(values[1]), values[2], str(values[3]), "9" * 5000]


def test_integers_of_parquet_that_no_table_of_ours_holds_are_one_sentence(tmp_path: Path) -> None:
    table = pa.table({"sentence1": ["a"], "score": pa.array([2**64 - 1], pa.uint64())})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(
        SelfposError, match="'score' holds values of different kinds, or of more than 64 bits"
    ):
        from_records(read_records(tmp_path / "x.parquet"), list, "x.parquet")


def test_a_pattern_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfpos.vectors.scaling.PATTERN_SECONDS", 0.2)
    scaling = Scaling({"alpha_pattern": {r"(\w|\w\w|\.)+d": 4}}, Path("a"))
    with pytest.raises(SelfposError, match="matched at once"):
        scaling.of("encoder.layer.11.attention.output.dense.and.more.and.more", 8)


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "x", "--draws", "1000000000"],
        ["overlap", "x", "--threshold", "1e-300"],
        ["analyse", "x", "--batches", "1000000000"],
        ["analyse", "x", "--memory", "inf"],
    ],
)
def test_an_option_has_a_range(words: list[str], selfpos: CommandLine) -> None:
    done = selfpos(*words)
    assert done.returncode == 2 and "is not in the range" in done.stderr and done.stderr.count("\n") == 1
