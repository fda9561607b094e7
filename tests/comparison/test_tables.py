"""What a comparison shows, and the cases in which models are found: what surviving mutants asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from selfpos.comparison import compare, find_models
from selfpos.comparison.tables import FORMATS
from selfpos.errors import SelfposError
from selfpos.storage.run_folder import RunFolder

MakeRun = Callable[..., RunFolder]


def test_cells_are_percent(make_run: MakeRun, tmp_path: Path) -> None:
    comparison = compare(find_models([str(make_run().path)], tmp_path), draws=300)
    lines = FORMATS[".md"](comparison).splitlines()
    ties = next(row for row in comparison.rows if row.model == "ties")
    shown = next(line for line in lines if line.startswith("| ties |"))
    assert f"{100 * ties.scores['Docs']:.2f}" in shown
    assert f"{100 * ties.scores['Retrieval']:.2f}" in shown


def test_the_interval_of_a_type_is_that_of_the_mean_of_its_tasks(make_run: MakeRun, tmp_path: Path) -> None:
    comparison = compare(find_models([str(make_run().path)], tmp_path), draws=4000)
    ties = next(row for row in comparison.rows if row.model == "ties")
    widths = []
    for task in ("Docs", "Wiki"):
        difference = ties.differences[task]
        assert difference.low is not None and difference.high is not None
        widths.append(difference.high - difference.low)
    whole = ties.differences["Retrieval"]
    assert whole.low is not None and whole.high is not None
    assert whole.high - whole.low == pytest.approx(np.sqrt(np.square(widths).sum()) / 2, rel=0.06)


def test_two_runs_of_one_seed_are_refused_though_they_share_their_base(
    make_run: MakeRun, tmp_path: Path
) -> None:
    runs = [str(make_run(name, seed=3).path) for name in ("one", "two")]
    with pytest.raises(SelfposError, match="with the same settings and seed 3"):
        find_models(runs, tmp_path)
    other = str(make_run("three", seed=4).path)
    assert {model.name for model in find_models([runs[0], other], tmp_path)} >= {"base", "average"}


def test_a_model_of_a_run_is_found_with_its_scores_by_its_folder(
    make_run: MakeRun, tmp_path: Path, tiny_base: Path
) -> None:
    import shutil

    run = make_run()
    shutil.copytree(tiny_base, run.merged("ties"))
    (model,) = find_models([str(run.merged("ties"))], tmp_path)
    assert model.name == "ties"
    assert set(next(iter(model.runs.values()))) == {"Docs", "Wiki", "Pairs"}


def test_results_in_a_models_folder_do_not_make_it_a_folder_of_scores(
    make_run: MakeRun, tmp_path: Path, tiny_base: Path
) -> None:
    import shutil

    run = make_run()
    shutil.copytree(tiny_base, run.merged("ties"))
    results = run.merged("ties") / "eval" / "results" / "local__another" / "revision"
    shutil.copytree(run.scores("base"), results)
    (model,) = find_models([str(run.merged("ties"))], tmp_path)
    assert model.name == "ties"
