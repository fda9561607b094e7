"""`selfpos merge` as a process: dry runs, recipes, rules, adapters."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from selfpos.data.probe import write_probe
from selfpos.storage.manifest import read_manifest
from selfpos.tasks import get_task
from tests.helpers import reference as ref
from tests.helpers.adapters import make_adapter
from tests.helpers.command import CommandLine
from tests.helpers.stand_ins import pairs


def merge_words(base: Path, vectors: Sequence[Path], method: str, out: Path) -> list[str | Path]:
    return ["merge", "--base", base, "--vectors", *vectors, "--method", method, "--out", out]


def test_a_dry_run_says_everything_and_writes_nothing(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    words = [*merge_words(tiny_base, tiny_specialists, "ties", tmp_path / "out"), "--dtype", "bfloat16"]
    done = selfpos(*words, "--dry-run", "--param", "density=0.1..0.3", "--param", "scope=tensor")
    assert done.returncode == 0, done.stderr
    for said in ("alpha (model)", "different by tensor", "bfloat16", "2 passes", "warning", "time"):
        assert said in done.stdout
    assert not list(tmp_path.iterdir())
    wrong = selfpos(*words, "--dry-run", "--param", "densty=1")
    assert (
        wrong.returncode == 2 and "did you mean 'density'" in wrong.stderr and "Traceback" not in wrong.stderr
    )


def test_rules_on_the_command_line(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    weights = ["0..1", "{layers.0: 0.5, default: -0.25}", "2"]
    words = merge_words(tiny_base, tiny_specialists, "task-arithmetic", tmp_path / "out")
    done = selfpos(*words, "--weights", *weights, "--seed", "3")
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None and manifest["merge"]["seed"] == 3
    found = manifest["merge"]["coefficients"]
    assert found["encoder.layer.0.output.dense.weight"] == [0, 0.5, 2] and found[
        "encoder.layer.1.output.dense.weight"
    ] == [1, -0.25, 2]
    assert (tmp_path / "out" / "README.md").is_file()


def test_a_mergekit_recipe_runs_unchanged(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    models = [{"model": str(source), "parameters": {"weight": 0.5}} for source in tiny_specialists[:2]]
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(tiny_base),
        "models": models,
        "dtype": "float32",
    }
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(recipe))
    done = selfpos("merge", tmp_path / "merge.yml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    states = [ref.load(source) for source in tiny_specialists[:2]]
    for key, value in ref.load(tmp_path / "out").items():
        np.testing.assert_allclose(value, np.mean([state[key] for state in states], axis=0), atol=1e-6)
    (tmp_path / "bad.yml").write_text(yaml.safe_dump(recipe | {"merge_method": "passthrough"}))
    refused = selfpos("merge", tmp_path / "bad.yml", "--out", tmp_path / "bad")
    assert refused.returncode == 2 and "line" in refused.stderr and "passthrough" in refused.stderr
    for words in (["--method", "ties"], ["--base", tiny_base]):
        both = selfpos("merge", tmp_path / "merge.yml", *words, "--out", tmp_path / "bad")
        assert both.returncode == 2 and f"says what to merge; omit {words[0]}\n" in both.stderr
    neither = selfpos("merge", "--out", tmp_path / "bad")
    assert neither.returncode == 2 and "--vectors and --method" in neither.stderr


def test_a_recipe_of_mergekit_is_translated_once(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import selfpos.mergekit
    from selfpos.commands.merge import command

    models = [{"model": str(source)} for source in tiny_specialists[:2]]
    recipe = {"merge_method": "linear", "models": models, "base_model": str(tiny_base), "dtype": "float32"}
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(recipe))
    files: list[Path] = []
    translate = selfpos.mergekit.translate_recipes
    monkeypatch.setattr(
        selfpos.mergekit, "translate_recipes", lambda file: files.append(file) or translate(file)
    )
    words = [str(tmp_path / "merge.yml"), "--out", str(tmp_path / "out"), "--dry-run"]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0 and "linear" in done.output
    assert files == [tmp_path / "merge.yml"]


def test_one_adapter_out_of_two(selfpos: CommandLine, tiny_base: Path, tmp_path: Path) -> None:
    for index in range(2):
        make_adapter(tiny_base, tmp_path / f"a{index}", seed=index, plain=True)
    words = merge_words(tiny_base, [tmp_path / "a0", tmp_path / "a1"], "average", tmp_path / "out")
    done = selfpos(*words, "--adapter", "--rank", "5")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 5
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.slow
def test_methods_that_look_at_data_take_a_probe_set(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    from selfpos.data.probe import write_probe
    from selfpos.tasks import get_task
    from tests.helpers.stand_ins import graded, pairs

    records = {"alpha": pairs(16).dataset, "beta": graded(16).dataset}
    write_probe(tmp_path / "probe", records, {"alpha": get_task("retrieval"), "beta": get_task("sts")})
    words = ["merge", "--base", tiny_base, "--vectors", *tiny_specialists[:2], "--probe", tmp_path / "probe"]
    planned = selfpos(*words, "--method", "fisher", "--out", tmp_path / "fisher", "--dry-run")
    assert (
        planned.returncode == 0 and "fisher of each vector on its task's probe records" in planned.stdout
    ), planned.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"probe"}
    done = selfpos(
        *words,
        "--method",
        "regmean",
        "--out",
        tmp_path / "regmean",
        "--statistics",
        tmp_path / "kept",
        "--param",
        "alpha=0.5",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "regmean") and len(list((tmp_path / "kept").iterdir())) == 2
    manifest = read_manifest(tmp_path / "regmean")
    assert manifest is not None and manifest["merge"]["params"] == {"alpha": 0.5}
    words[4:6] = reversed(tiny_specialists[-2:])  # of which the probe set holds one
    unknown = selfpos(*words, "--method", "regmean", "--out", tmp_path / "unknown", "--dry-run")
    assert unknown.returncode == 2 and "the probe set has no task 'gamma'" in unknown.stderr, unknown.stderr
    words[4:6] = tiny_specialists[:2]
    planned = selfpos(*words, "--method", "lm-cocktail", "--out", tmp_path / "cocktail", "--dry-run")
    assert (
        planned.returncode == 0 and "searched on alpha (16 records), beta (16 records)" in planned.stdout
    ), planned.stderr
    done = selfpos(*words, "--method", "lm-cocktail", "--out", tmp_path / "cocktail")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "cocktail")) and "alpha 0." in done.stdout
    few = selfpos(
        *words,
        "--method",
        "self-positioning",
        "--out",
        tmp_path / "few",
        "--dry-run",
        "--param",
        "batches=single",
        "--param",
        "search=sgd",
    )
    assert few.returncode == 0, few.stderr
    one = [*words[:4], tiny_specialists[0], *words[6:]]
    lone = selfpos(*one, "--method", "cma-es", "--out", tmp_path / "lone", "--dry-run")
    assert lone.returncode == 2 and "needs two coefficients or more" in lone.stderr
    unlike = selfpos(*one, "--method", "self-positioning", "--out", tmp_path / "unlike", "--dry-run")
    assert unlike.returncode == 0 and "probe task beta alone" in unlike.stderr
    wrong = selfpos(
        *words[:-2], tiny_specialists[2], *words[-2:], "--method", "fisher", "--out", tmp_path / "wrong"
    )
    assert (
        wrong.returncode == 2
        and "the probe set has no task 'gamma'" in wrong.stderr
        and "Traceback" not in wrong.stderr
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "probe",
        "kept",
        "regmean",
        "cocktail",
        "cocktail.coefficients.json",
        "cocktail.trajectory.jsonl",
    }


@pytest.mark.parametrize("kind", ["coefficients.json", "trajectory.jsonl", "trajectory.png"])
def test_what_another_search_left_is_not_overwritten(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, kind: str
) -> None:
    (tmp_path / f"out.{kind}").write_text("precious")
    words = merge_words(tiny_base, tiny_specialists, "self-positioning", tmp_path / "out")
    done = selfpos(*words)
    assert done.returncode == 2 and f"out.{kind} exists already and is not overwritten" in done.stderr
    assert (tmp_path / f"out.{kind}").read_text() == "precious"


def test_methods_are_listed_with_their_needs(selfpos: CommandLine) -> None:
    done = selfpos("methods")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    groups = ("Without data:", "With statistics of a probe set:", "Learned on a probe set:")
    places = [
        done.stdout.index(words) for words in (*groups[:2], "  fisher", groups[2], "  self-positioning")
    ]
    assert places == sorted(places) and 0 < done.stdout.index("  tsv-m ") < places[1]
    for name in ("fisher", "regmean", "self-positioning", "lm-cocktail", "layer-wise", "cma-es"):
        shown = selfpos("methods", name).stdout
        assert "a probe set" in shown and max(map(len, shown.splitlines())) <= 80
    assert "needs:    whole matrices in memory" in selfpos("methods", "tsv-m").stdout
    assert "needs:    one vector" in selfpos("methods", "nearswap").stdout
    assert "defaults: density=0.2, scale=1.0" in selfpos("methods", "ties").stdout
    about = selfpos("methods", "lm-cocktail")
    assert (
        about.returncode == 0 and "softmax(−L_i / T)" in about.stdout and "arXiv 2311.13534" in about.stdout
    )
    assert "did you mean 'fisher'?" in selfpos("methods", "fishr").stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--method", "self-positioning", "--take-from", "alpha"],
            "and give that (selfpos merge --base BASE --vectors MODEL --method average --take-from base",
        ),
        (["--method", "self-positioning", "--weights", "1", "1", "1"], "--weights does not go with"),
        (["--method", "self-positioning", "--param", "learnin_rate=0.2"], "did you mean 'learning_rate'"),
        (
            ["--method", "average", "--probe", "somewhere"],
            "--probe is for methods that use data, and average does not",
        ),
        (
            ["--method", "average", "--statistics", "somewhere"],
            "--statistics is for methods fisher and regmean",
        ),
        (["--method", "self-positionning"], "did you mean 'self-positioning'?"),
        (["--method", "lm-coctail"], "did you mean 'lm-cocktail'?"),
        (["--method", "average", "--steps", "3"], "--steps is for methods self-positioning and layer-wise"),
        (["--method", "fisher", "--weights", "1", "-1", "1"], "takes weights from 0 upwards"),
        (["--method", "regmean", "--param", "alpha=2"], "must lie between 0 and 1"),
        (["--method", "fisher", "--probe", "nowhere"], "nowhere"),
        (
            ["--method", "ties", "--param", "density=0.1", "--param", "density=0.3"],
            "--param gives density twice",
        ),
        (
            ["--method", "lm-cocktail", "--param", "preset=paper"],
            "method lm-cocktail has its own preset: omit --param preset=paper",
        ),
        (
            ["--method", "self-positioning", "--param", "preset=cma-es"],
            "is another method: say --method cma-es",
        ),
        (
            ["--method", "self-positioning", "--steps", "5", "--param", "search=linearised"],
            "--param search=linearised for something else",
        ),
        (["--method", "self-positioning", "--param", "ratios={alpha: 0}"], "greater than 0"),
        (["--method", "self-positioning", "--out", "."], "exists already"),
        (["--method", "self-positioning", "--seed", "99999999999999999999"], "--seed"),
        (["--method", "fisher", "--dry-run"], "does not say which records were held out for a probe"),
        (
            ["--method", "della-linear", "--param", "density=0.95", "--dry-run"],
            "must lie between 0 and 1, found 0.95 ± 0.1",
        ),
        (
            ["--method", "ties", "--param", "density={layers.0: 0.1, default: 0.3}", "--dry-run"],
            "set scope to tensor",
        ),
        (
            ["--method", "karcher", "--weights", "1", "-2", "1", "--dry-run"],
            "divides the weights by their sum, which is 0",
        ),
        (
            ["--method", "fisher"],
            "does not say which records were held out for a probe; give a probe set with --probe FOLDER",
        ),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused(
    selfpos: CommandLine,
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    words: list[str],
    says: str,
) -> None:
    done = selfpos(
        "merge", "--base", tiny_base, "--vectors", *tiny_specialists, "--out", tmp_path / "out", *words
    )
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_coefficients_of_a_search_are_applied_again(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    from selfpos.positioning.coefficients import Coefficients, write_coefficients
    from selfpos.storage.hashing import content_hash

    hashes = [content_hash(source) for source in tiny_specialists]
    found = Coefficients(
        ["alpha", "beta", "gamma"],
        hashes,
        [0.5, -0.25, 1.5],
        None,
        "base",
        content_hash(tiny_base),
        {"seed": 4},
    )
    file = write_coefficients(tmp_path / "c.json", found)
    words = ["merge", "--base", tiny_base, "--coefficients", file, "--out", tmp_path / "out", "--vectors"]
    planned = selfpos(*words, *reversed(tiny_specialists), "--dry-run")
    assert planned.returncode == 0 and "[0.5, -0.25, 1.5]" in planned.stdout, planned.stderr
    assert not (tmp_path / "out").exists()
    done = selfpos(*words, *reversed(tiny_specialists))
    assert done.returncode == 0, done.stderr
    base, states = ref.load(tiny_base), [ref.load(source) for source in tiny_specialists]
    for key, value in ref.load(tmp_path / "out").items():
        expected = base[key] + sum(
            c * (state[key] - base[key]) for c, state in zip(found.values, states, strict=True)
        )
        np.testing.assert_allclose(value, expected, atol=1e-6)
    for wrong, says in [
        (tiny_specialists[:2], "give gamma of the content hash"),
        ([*tiny_specialists, "--method", "ties"], "--method does not go with --coefficients"),
    ]:
        refused = selfpos(*words[:6], tmp_path / "wrong", "--vectors", *wrong)
        assert refused.returncode == 2 and says in refused.stderr and "Traceback" not in refused.stderr
        assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    "found",
    [pytest.param(True, marks=pytest.mark.nightly), pytest.param(False, marks=pytest.mark.slow)],
    ids=["something better was found", "nothing was"],
)
def test_ctrl_c_in_a_search_is_exit_130_with_the_best_point_or_with_what_goes_on(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, selfpos: CommandLine, found: bool
) -> None:
    probe, out = (
        write_probe(tmp_path / "probe", {"pairs": pairs().dataset}, {"pairs": get_task("retrieval")}).parent,
        tmp_path / "out",
    )
    struck = f"""
import signal
from selfpos.positioning.problem import Problem
original, calls = Problem.gradient, []
def struck(*arguments):
    calls.append(1)
    if len(calls) == 3 and {found} or len(calls) == 2 and not {found}:
        signal.raise_signal(signal.SIGINT)
    return original(*arguments)
Problem.gradient, Problem.original = struck, original
"""
    words = [*merge_words(tiny_base, tiny_specialists, "self-positioning", out), "--probe", probe]
    # with nothing held out the newest point is the best
    params = ["--steps", "50", "--param", f"validation={0.0 if found else 0.5}", "--param", "batch_size=8"]
    selfpos.python(struck)
    try:
        done = selfpos(*words, *params)
    finally:
        selfpos.python(
            "from selfpos.positioning.problem import Problem\n"
            "Problem.gradient = Problem.original\ndel Problem.original"
        )
    assert done.returncode == 130, done.stderr
    assert (out / "model.safetensors").is_file() == found == Path(f"{out}.coefficients.json").is_file()
    assert bool(list(tmp_path.glob(".out.search/*.pt"))) != found
    kept = (
        r"the best point so far, that of step [12], is merged"
        if found
        else "the search so far is kept, and the same command continues"
    )
    assert re.search(f"selfpos: stopped; {kept}", done.stderr)
