"""A whole run on a tiny model, as a process: killed in the middle, started again, reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from selfpos.data.tasks import load_tasks
from selfpos.errors import SelfposError
from selfpos.pipeline.run import _Graph, run_recipe
from selfpos.recipe import Recipe
from selfpos.storage.run_folder import RunFolder
from tests.helpers.command import ROOT, CommandLine
from tests.helpers.stand_ins import interrupt_second_gradient

MODELS = ["base", "retrieval", "pairs", "joint", "average", "ties", "self-positioning", "linearised"]
TASKS = [
    "PythonDocsHeldOutClustering",
    "PythonDocsRetrieval",
    "PythonDocsSeeAlsoPairs",
    "PythonDocsSubpackageClassification",
]


@pytest.fixture(scope="module")
def killed_and_finished(
    tiny_base: Path, selfpos: CommandLine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, list[str], str]:
    """A run that was killed with SIGKILL after its first specialist and then started again: its folder, the
    jobs kept, the output.
    """
    folder = tmp_path_factory.mktemp("pipeline")
    recipe: dict = {
        "name": "tiny",
        "base": str(tiny_base),
        "tasks": {
            "retrieval": {"type": "retrieval", "data": "corpus", "limit": 200},
            "pairs": {"type": "pair-classification", "data": "corpus", "limit": 200},
        },
        "training": {"steps": 3, "batch_size": 8, "max_length": 16},
        "probe": {"per_task": 16},
        "merges": {name: {"method": name} for name in ["average", "ties"]}
        | {
            "self-positioning": {
                "method": "self-positioning",
                "positioning": {"search": "sgd", "steps": 3, "batch_size": 4, "validation": 0.0},
            }
        },
        "evaluation": {"tasks": TASKS},
    }
    recipe["merges"]["linearised"] = {"method": "self-positioning", "positioning": {"rounds": 1}}
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run = RunFolder(folder / "out")
    command = [sys.executable, "-m", "selfpos", "run", str(file), "--out", str(run.path)]
    first = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not run.mark("specialist/retrieval").exists():
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline, "no specialist was trained in time"
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    kept = sorted(mark.name for mark in run.mark("x").parent.glob("*.json"))
    second = selfpos("run", file, "--out", run.path)
    assert second.returncode == 0, second.stderr
    return run, kept, second.stdout


def test_every_model_is_scored_on_every_task(killed_and_finished: tuple[RunFolder, list[str], str]) -> None:
    run, _, out = killed_and_finished
    table = json.loads(run.table.read_text(encoding="utf-8"))
    assert list(table["scores"]) == MODELS
    assert all(sorted(scores) == TASKS for scores in table["scores"].values())
    assert all(0 <= score <= 1 for scores in table["scores"].values() for score in scores.values())
    assert all(model in out for model in MODELS)
    assert str(run.report) in out


def test_finished_jobs_were_not_repeated(killed_and_finished: tuple[RunFolder, list[str], str]) -> None:
    run, kept, _ = killed_and_finished
    log = run.log.read_text(encoding="utf-8")
    assert "specialist.retrieval.json" in kept
    assert "specialist/retrieval: finished before, kept" in log
    assert log.count("specialist/retrieval: started") == 1
    assert not list(run.path.rglob("*.tmp*"))


def test_the_report_has_table_coefficients_and_angles(
    killed_and_finished: tuple[RunFolder, list[str], str],
) -> None:
    page = killed_and_finished[0].report.read_text(encoding="utf-8")
    for expected in ("Scores", "Norms and angles", "Coefficients found"):
        assert expected in page


def test_the_card_of_a_merge_has_the_scores_and_is_what_push_would_send(
    killed_and_finished: tuple[RunFolder, list[str], str],
) -> None:
    from selfpos.publishing.plan import plan_push

    folder = killed_and_finished[0].merged("self-positioning")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "## Scores" in card
    assert "| PythonDocsRetrieval (" in card
    assert "search and merging, together: " in card
    sent = plan_push(folder, "alice/tiny", licence="mit").card
    for here, there in (("self-positioning", "tiny"), ("self-positioning", "alice/tiny")):
        assert f'"{here}"' in card or f"# {here}\n" in card
        assert f'"{there}"' in sent or f"# {there}\n" in sent
    table = [line for line in card.splitlines() if line.startswith("| PythonDocs")]
    assert table == [line for line in sent.splitlines() if line.startswith("| PythonDocs")]


def test_two_models_never_share_a_score(killed_and_finished: tuple[RunFolder, list[str], str]) -> None:
    table = json.loads(killed_and_finished[0].table.read_text(encoding="utf-8"))
    # Merges of vectors of three steps lie so near each other that two of them may rightly score alike.
    models = ["base", "retrieval", "pairs", "joint"]
    assert len({tuple(table["scores"][model].values()) for model in models}) == len(models)


def test_a_changed_recipe_does_not_overwrite_the_run(
    killed_and_finished: tuple[RunFolder, list[str], str],
) -> None:
    run = killed_and_finished[0]
    recipe = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    recipe["training"]["steps"] = 4
    with pytest.raises(SelfposError, match="made with other settings"):
        run_recipe(Recipe.model_validate(recipe), run.path)


@pytest.mark.slow
def test_ctrl_c_in_a_search_stops_the_run_and_the_search_is_made_again(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_second_gradient(monkeypatch)
    data = tmp_path / "pairs.jsonl"
    data.write_text(
        "".join(f'{{"anchor": "word {n}", "positive": "about {n}"}}\n' for n in range(40)), encoding="utf-8"
    )
    recipe = Recipe.model_validate(
        {
            "name": "stopped",
            "base": str(tiny_base),
            "tasks": {"retrieval": {"type": "retrieval", "data": str(data)}},
            "training": {"steps": 1, "batch_size": 8, "max_length": 16},
            "joint": None,
            "probe": {"per_task": 16},
            "merges": {
                "found": {
                    "method": "self-positioning",
                    "positioning": {"search": "sgd", "steps": 4, "validation": 0.0},
                }
            },
            "evaluation": {"tasks": ["PythonDocsSeeAlsoPairs"]},
        }
    )
    run = RunFolder(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, run.path)
    assert run.mark("specialist/retrieval").exists()
    assert not run.mark("merge/found").exists()
    assert not run.merged("found").exists()
    assert not run.position("found").exists()
    run_recipe(recipe, run.path)
    found = json.loads(run.position("found").read_text(encoding="utf-8"))
    assert (found["steps"], found["interrupted"]) == (4, False)
    assert run.log.read_text(encoding="utf-8").count("specialist/retrieval: started") == 1


def small_recipe(base: Path, data: Path, **changes: object) -> Recipe:
    """One classification task of 40 texts with 10 labels, one specialist, one search."""
    data.write_text(
        "".join(json.dumps({"text": f"word {n}", "label": n % 10}) + "\n" for n in range(40)),
        encoding="utf-8",
    )
    recipe = {
        "name": "small", "base": str(base),
        "tasks": {"labels": {"type": "classification", "data": str(data)}},
        "training": {"steps": 1, "batch_size": 8}, "joint": None, "probe": {"per_task": 10},
        "merges": {"found": {"method": "self-positioning"}},
        "evaluation": {"tasks": ["PythonDocsSeeAlsoPairs"]},
    }  # fmt: skip
    return Recipe.model_validate(recipe | changes)


def test_a_probe_from_which_no_batch_comes_is_refused_before_any_training(
    tiny_base: Path, tmp_path: Path
) -> None:
    merges = {"found": {"method": "self-positioning", "positioning": {"search": "sgd"}}}
    with pytest.raises(
        SelfposError,
        match=r"merge found: the probe of task labels: .*a batch needs 2 labels with 2 records each",
    ):
        run_recipe(small_recipe(tiny_base, tmp_path / "data.jsonl", merges=merges), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("merge", "says"),
    [
        ({"method": "ties", "params": {"density": {"layers.0": 0.1, "default": 0.3}}}, "set scope to tensor"),
        (
            {"method": "ties", "params": {"density": {"layers.7": 0.1, "default": 0.3}}},
            r"the rule 'layers\.7' fits no tensor",
        ),
        (
            {"method": "ties", "params": {"density": {"layers.0": 7, "default": 0.3}}},
            "between 0 and 1, found 7",
        ),
        ({"method": "della-linear", "params": {"density": 0.95}}, "between 0 and 1, found 0.95 ± 0.1"),
    ],
)
def test_a_merge_that_cannot_be_made_is_refused_before_any_training(
    tiny_base: Path, tmp_path: Path, merge: dict, says: str
) -> None:
    with pytest.raises(SelfposError, match=f"merge wrong: .*{says}"):
        run_recipe(
            small_recipe(tiny_base, tmp_path / "data.jsonl", merges={"wrong": merge}), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_what_does_not_change_a_result_is_no_part_of_its_key(tiny_base: Path, tmp_path: Path) -> None:
    def inputs(**training: object) -> dict:
        recipe = small_recipe(
            tiny_base,
            tmp_path / "data.jsonl",
            training={"steps": 1, "batch_size": 8, **training},
            merges={"mean": {"method": "average"}},
        )
        tasks = load_tasks(recipe, None)
        graph = _Graph(recipe, RunFolder(tmp_path / "out"), tiny_base, "hash", tasks, [], None)
        return next(job.inputs for job in graph.jobs() if job.name == "specialist/labels")

    assert inputs(checkpoint_every=7) == inputs() != inputs(temperature=0.1)


@pytest.mark.slow
def test_methods_that_look_at_data_are_merges_of_a_recipe(tiny_base: Path, tmp_path: Path) -> None:
    from selfpos.jobs import job as jobs
    from selfpos.pipeline import run as pipeline

    def without_scores(given: list[jobs.Job], folder: RunFolder) -> list[str]:
        return jobs.execute(
            [job for job in given if job.name.partition("/")[0] not in {"scores", "table", "card", "report"}],
            folder,
        )

    tasks = {}
    for name in ("one", "two"):
        lines = [
            json.dumps({"anchor": f"word {name} {n}", "positive": f"about {n} {name}"}) for n in range(40)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        tasks[name] = {"type": "retrieval", "data": str(tmp_path / f"{name}.jsonl")}
    quick = {"validation": 0.0, "compare": False}
    recipe = {
        "name": "data",
        "base": str(tiny_base),
        "tasks": tasks,
        "training": {"steps": 3, "batch_size": 8, "max_length": 16},
        "joint": None,
        "probe": {"per_task": 16},
        "merges": {
            "fisher": {"method": "fisher", "weights": [1.0, 2.0]},
            "regmean": {"method": "regmean", "params": {"alpha": 0.5}},
            "lm-cocktail": {"method": "lm-cocktail"},
            "layer-wise": {"method": "layer-wise", "positioning": {"steps": 2, "batch_size": 8, **quick}},
            "cma-es": {"method": "cma-es", "positioning": {"evaluations": 4, **quick}},
        },
    }
    run = pipeline.run_recipe(Recipe.model_validate(recipe), tmp_path / "out", executor=without_scores)
    told = {
        name: json.loads((run.merged(name) / "selfpos.json").read_text(encoding="utf-8"))
        for name in recipe["merges"]
    }
    for name in ("fisher", "regmean"):
        assert told[name]["merge"]["method"] == name
        probe = told[name]["statistics"]["probe"]
        assert {task: (facts["type"], facts["records"]) for task, facts in probe.items()} == dict.fromkeys(
            tasks, ("retrieval", 16)
        )
    assert sum(told["lm-cocktail"]["merge"]["coefficients"]) == pytest.approx(1)
    coefficients = told["layer-wise"]["merge"]["coefficients"]
    assert len({tuple(values) for key, values in coefficients.items() if key.startswith("encoder.")}) > 1
    for name in ("lm-cocktail", "layer-wise", "cma-es"):
        assert told[name]["positioning"]["settings"]["preset"] == name
        assert f"**{name}**" in (run.merged(name) / "README.md").read_text(encoding="utf-8")
    assert not list(run.path.rglob("*.statistics"))
    recipe["probe"] = {"per_task": 2}
    recipe["tasks"]["one"] = {"type": "classification", "data": str(tmp_path / "labels.jsonl")}
    (tmp_path / "labels.jsonl").write_text(
        "".join(f'{{"text": "t{n}", "label": "l{n % 2}"}}\n' for n in range(20)), encoding="utf-8"
    )
    recipe["merges"] = {"m": {"method": "fisher"}}
    with pytest.raises(SelfposError, match=r"merge m: .*label"):
        pipeline.run_recipe(Recipe.model_validate(recipe), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
