"""The contamination check in a run and at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfpos.data.tasks import load_tasks
from selfpos.errors import SelfposError
from selfpos.overlap.contamination import ContaminationCheck
from selfpos.overlap.index import ItemIndex
from selfpos.recipe import OverlapSettings, Recipe, load_recipe
from tests.helpers.command import CommandLine, said

PAIRS = [
    {"sentence1": f"sentence number {n} of them", "sentence2": f"another thing, counted {n}", "score": n % 5}
    for n in range(30)
]


def lines(file: Path, records: list[dict]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


def recipe_of(file: Path, **more: object) -> Recipe:
    made = {
        "name": "g",
        "tasks": {"sts": {"type": "sts", "data": str(file)}},
        "probe": {"per_task": 4},
        "merges": {"a": {"method": "average"}},
    }
    return Recipe.model_validate(made | more)


def check(remove: bool) -> ContaminationCheck:
    tests = {
        "STS12": [(row["sentence2"].upper(), row["sentence1"]) for row in PAIRS[:7]],
        "Other": [("nothing",)],
    }
    return ContaminationCheck(ItemIndex(tests, None), OverlapSettings(remove=remove))


def test_records_that_give_items_away_reach_neither_training_nor_probe(tmp_path: Path) -> None:
    recipe = recipe_of(lines(tmp_path / "train.jsonl", PAIRS))
    plain, looking, removing = (
        load_tasks(recipe, None, inspect)["sts"]
        for inspect in (None, check(False).inspect, check(True).inspect)
    )
    assert len(plain.training) + len(plain.probe) == 30 == len(looking.training) + len(looking.probe)
    assert plain.hash == looking.hash != removing.hash
    left = {row["sentence1"] for row in [*removing.training, *removing.probe]}
    assert left == {row["sentence1"] for row in PAIRS[7:]}
    assert "7 dropped as overlapping with test data" in removing.description


def test_a_probe_from_another_split_holds_nothing_out_and_is_looked_at_too(tmp_path: Path) -> None:
    lines(tmp_path / "set/train.jsonl", PAIRS[10:])
    lines(tmp_path / "set/dev.jsonl", PAIRS[:10])
    recipe, removing = recipe_of(tmp_path / "set", probe={"per_task": 2, "split": "dev"}), check(True)
    found = load_tasks(recipe, None, removing.inspect)["sts"]
    assert found.training["sentence1"][:] == [row["sentence1"] for row in PAIRS[10:]]
    assert len(found.probe) == 2 and {row["sentence1"] for row in found.probe} <= {
        row["sentence1"] for row in PAIRS[7:10]
    }
    assert [row[0] for row in removing.rows()] == ["sts, probe"]


def test_the_report_is_kept_and_tells_each_task(tmp_path: Path) -> None:
    recipe, seen = recipe_of(lines(tmp_path / "train.jsonl", PAIRS)), check(True)
    load_tasks(recipe, None, seen.inspect)
    seen.write(tmp_path / "overlap.json")
    found = json.loads((tmp_path / "overlap.json").read_text(encoding="utf-8"))["sources"]["sts"]
    assert (found["records"], found["overlapping"]) == (30, 7)
    assert found["tasks"]["STS12"] == {"items": 7, "exact": 7, "near": 0, "texts": 14, "records": 7}
    assert [row[:2] for row in seen.rows()] == [["sts", "STS12"]]


def test_the_report_of_a_run_has_a_section_of_it(tmp_path: Path) -> None:
    recipe, seen = recipe_of(lines(tmp_path / "train.jsonl", PAIRS)), check(True)
    assert "None was found." in seen.section() and "<table>" not in seen.section()
    load_tasks(recipe, None, seen.inspect)
    assert "Left out, though they contain test items: 7 of 30 records of sts." in seen.section()
    assert (
        "<tr><td>sts</td><td>STS12</td><td>7</td><td>7</td><td>0</td><td>14</td><td>7</td></tr>"
        in seen.section()
    )


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match="nothing is left to train on"):
        load_tasks(recipe_of(lines(tmp_path / "train.jsonl", PAIRS[:7])), None, check(True).inspect)


@pytest.mark.slow
def test_the_verb_reports_and_writes_cleaned_data_and_a_run_keeps_the_report(
    selfpos: CommandLine, tmp_path: Path, tiny_base: Path
) -> None:
    from selfpos.pipeline import run as pipeline

    train = lines(tmp_path / "data/train.jsonl", PAIRS)
    lines(tmp_path / "mteb/sts12/test.jsonl", PAIRS[:5])
    out, report = tmp_path / "clean", tmp_path / "report.json"
    done = selfpos(
        "overlap", f"sts={train}", "--data-dir", tmp_path / "mteb", "--remove", out, "--out", report
    )
    assert done.returncode == 0, done.stderr
    assert "STS12" in done.stdout
    assert json.loads(report.read_text())["sources"]["data"]["tasks"]["STS12"]["exact"] == 5
    assert [json.loads(line) for line in (out / "data/train.jsonl").read_text().splitlines()] == PAIRS[5:]
    assert json.loads((out / "overlap.json").read_text())["sources"]["data"]["overlapping"] == 5

    started = []

    def begin(jobs: list, folder: object) -> list[str]:
        started.extend(jobs)
        return []

    evaluation = {"tasks": ["STS12"], "data_dir": str(tmp_path / "mteb")}
    training = {"batch_size": 8}  # fewer than are left
    recipe = recipe_of(
        train, base=str(tiny_base), evaluation=evaluation, overlap={"remove": True}, training=training
    )
    run = pipeline.run_recipe(recipe, tmp_path / "run", executor=begin)
    assert started
    assert json.loads(run.overlap.read_text())["sources"]["sts"]["overlapping"] == 5
    assert load_recipe(run.recipe).overlap == OverlapSettings(remove=True)


def test_data_as_fetched_from_the_hub_is_looked_at(selfpos: CommandLine, tmp_path: Path) -> None:
    train = lines(tmp_path / "data/train.jsonl", PAIRS)
    lines(tmp_path / "fetched/mteb/sts16-sts/test.jsonl", PAIRS[:5])
    lines(tmp_path / "fetched/sts12/test.jsonl", PAIRS[:3])
    report = tmp_path / "report.json"
    done = selfpos("overlap", f"sts={train}", "--data-dir", tmp_path / "fetched", "--out", report)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())["sources"]["data"]["tasks"]
    assert {task: entry["exact"] for task, entry in found.items()} == {"STS12": 3, "STS16": 5}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["nonsense"],
            "'nonsense' is no recipe (a .yaml file, or one of `selfpos recipes`) and not TYPE=DATA",
        ),
        (["stss=x.jsonl", "--data-dir", "."], "did you mean 'sts'?"),
        (["missing.yaml"], "there is no recipe file missing.yaml"),
        (["sts=DATA"], "say what to compare with: --tasks, --benchmark, or --data-dir"),
        (["sts=DATA", "--remove", "FULL"], "exists already and is not overwritten"),
    ],
)
def test_bad_input_is_one_sentence(
    selfpos: CommandLine, tmp_path: Path, words: list[str], sentence: str
) -> None:
    data, full = lines(tmp_path / "data.jsonl", PAIRS), tmp_path / "full"
    full.mkdir()
    done = selfpos("overlap", *(word.replace("DATA", str(data)).replace("FULL", str(full)) for word in words))
    assert sentence in " ".join(said(done).split())
