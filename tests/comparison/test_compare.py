from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap, spearmanr, t

from selfpos.comparison import compare, find_models
from selfpos.comparison.differences import MEAN, MEAN_OF_TYPES
from selfpos.comparison.tables import FORMATS, scores_grid, text
from selfpos.errors import SelfposError
from selfpos.scores.examples import examples_file
from selfpos.storage.hashing import content_hash
from selfpos.storage.run_folder import RunFolder
from tests.helpers.command import CommandLine, own_process, said
from tests.helpers.scored_runs import MODELS, TYPES, part_of, write_scores

MakeRun = Callable[..., RunFolder]


def load(run: RunFolder, model: str, task: str) -> dict[str, np.ndarray]:
    """The examples behind a score, as they are stored."""
    (file,) = run.scores(model).glob(f"results/*/*/{task}.json")
    with np.load(examples_file(file)) as stored:
        return {name: stored[name] for name in stored.files}


def plain_interval(run: RunFolder, model: str, task: str) -> tuple[float, float]:
    """The slow way, one resample at a time."""
    values = [load(run, name, task)["0.values"] for name in (model, "base")]
    rng = np.random.default_rng(0)
    drawn = [
        (values[0] - values[1])[rng.integers(len(values[0]), size=len(values[0]))].mean() for _ in range(4000)
    ]
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def test_scores_means_ranks_and_differences(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    found = compare(find_models([str(run.path)], tmp_path), draws=4000)
    rows = {row.model: row for row in found.rows}
    assert (list(rows), found.baseline, list(found.tasks)) == (MODELS, "base", list(TYPES))
    ties, base = rows["ties"], rows["base"]
    assert ties.scores["Retrieval"] == pytest.approx((ties.scores["Docs"] + ties.scores["Wiki"]) / 2)
    assert ties.scores[MEAN] == pytest.approx(sum(ties.scores[task] for task in TYPES) / 3)
    assert ties.scores[MEAN_OF_TYPES] == pytest.approx((ties.scores["Retrieval"] + ties.scores["Pairs"]) / 2)
    assert ties.borda == 1
    assert base.differences == {}
    for task in ("Docs", "Wiki"):
        difference = ties.differences[task]
        assert difference.value == pytest.approx(ties.scores[task] - base.scores[task])
        assert (difference.low, difference.high) == pytest.approx(plain_interval(run, "ties", task), abs=6e-4)
        assert difference.significant
        assert not rows["average"].differences[task].significant
    assert rows["average"].worst == min(TYPES, key=lambda task: rows["average"].differences[task].value)
    parts = [ties.differences[task] for task in TYPES]
    widths = [part.high - part.low for part in parts if part.high is not None and part.low is not None]
    whole = ties.differences[MEAN]
    assert whole.high is not None and whole.low is not None
    assert whole.high - whole.low == pytest.approx(
        np.sqrt(np.square(widths).sum()) / 3, rel=0.06
    )  # tasks are independent
    by_type = ties.differences[MEAN_OF_TYPES]
    assert by_type.high is not None and by_type.low is not None
    shares = np.array([0.25, 0.25, 0.5])  # two tasks of one type, one of the other
    assert by_type.high - by_type.low == pytest.approx(np.sqrt(np.square(shares * widths).sum()), rel=0.06)
    assert by_type.value == pytest.approx(float(shares @ [part.value for part in parts]))


def test_intervals_of_a_correlation_are_those_of_scipy(make_run: MakeRun, tmp_path: Path) -> None:
    """Spearman is no mean over pairs, so the paired bootstrap is done again by scipy, from the pairs
    themselves.
    """
    run = make_run()
    stored = {name: load(run, name, "Pairs") for name in ("ties", "base")}
    gold = stored["base"]["0.gold"]

    def difference(place: np.ndarray) -> float:
        one, two = (
            spearmanr(stored[name]["0.scores"][place], gold[place]).statistic for name in ("ties", "base")
        )
        return one - two

    plain = bootstrap(
        (np.arange(len(gold)),), difference, vectorized=False, method="percentile", n_resamples=1500, rng=1
    )
    rows = {row.model: row for row in compare(find_models([str(run.path)], tmp_path), draws=8000).rows}
    found = rows["ties"].differences["Pairs"]
    width = plain.confidence_interval.high - plain.confidence_interval.low
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval), abs=0.08 * width)
    assert found.value == pytest.approx(difference(np.arange(len(gold))))


def test_intervals_over_seeds_and_examples_are_those_of_the_formula(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """Three seeds: variance over examples and over seeds added, and Student's t; worked out one resample at a
    time.
    """
    runs = [make_run(f"seed-{seed}", seed=seed) for seed in (1, 2, 3)]
    gains = np.stack(
        [load(run, "ties", "Docs")["0.values"] - load(run, "base", "Docs")["0.values"] for run in runs]
    )
    rng = np.random.default_rng(5)
    drawn = [gains[:, rng.integers(gains.shape[1], size=gains.shape[1])].mean() for _ in range(6000)]
    examples, seeds = np.var(drawn, ddof=1), gains.mean(1).var(ddof=1) / 3
    freedom = 2 * ((examples + seeds) / seeds) ** 2
    half = t.ppf(0.975, freedom) * np.sqrt(examples + seeds)
    rows = {
        row.model: row
        for row in compare(find_models([str(run.path) for run in runs], tmp_path), draws=6000).rows
    }
    found = rows["ties"].differences["Docs"]
    assert found.value == pytest.approx(gains.mean(), abs=1e-6)
    assert found.high is not None and found.low is not None
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


def test_holm_runs_over_all_differences_on_tasks_and_over_each_mean_by_itself(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """Twelve differences on tasks are one family; the four models' means over tasks are another.

    Worked out by the definition.
    """
    rows = compare(find_models([str(make_run().path)], tmp_path), draws=2000).rows
    for family in (list(TYPES), [MEAN]):
        told = {
            (row.model, column): found
            for row in rows
            for column, found in row.differences.items()
            if column in family
        }
        assert len(told) == 4 * len(family)
        order = sorted(told, key=lambda cell: told[cell].p or 0)
        bounds = [min(1.0, (len(order) - place) * (told[cell].p or 0)) for place, cell in enumerate(order)]
        for place, cell in enumerate(order):
            assert told[cell].adjusted == pytest.approx(max(bounds[: place + 1]))


def test_a_baseline_of_choice_and_a_wrong_one(make_run: MakeRun, tmp_path: Path) -> None:
    models = find_models([str(make_run().path)], tmp_path)
    one, other = (compare(models, baseline=name, draws=200) for name in ("ties", "base"))
    of = {row.model: row.differences for row in one.rows}
    assert of["base"]["Docs"].value == pytest.approx(
        -{row.model: row for row in other.rows}["ties"].differences["Docs"].value
    )
    with pytest.raises(SelfposError, match="did you mean 'ties'"):
        compare(models, baseline="tie")


def test_runs_of_several_seeds_are_one_model_with_a_spread(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(f"seed-{seed}", seed=seed) for seed in (1, 2, 3)]
    found = compare(find_models([str(run.path) for run in runs], tmp_path), draws=500)
    assert [(row.model, row.seeds) for row in found.rows] == [(model, 3) for model in MODELS]
    ties = next(row for row in found.rows if row.model == "ties")
    each = [
        compare(find_models([str(run.path)], tmp_path), draws=500).rows[-1].scores["Docs"] for run in runs
    ]
    assert (ties.scores["Docs"], ties.spread["Docs"]) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert ties.differences["Docs"].significant
    assert "±" in text(found)
    with pytest.raises(SelfposError, match="settings and seed 1"):
        find_models([str(runs[0].path), str(make_run("again", seed=1).path)], tmp_path)


def test_runs_that_differ_in_more_than_the_seed_stay_apart(make_run: MakeRun, tmp_path: Path) -> None:
    one, two = (
        make_run("one"),
        make_run(
            "two",
            seed=1,
            merges={"average": {"method": "average"}, "ties": {"method": "ties", "params": {"density": 0.5}}},
        ),
    )
    names = {model.name: len(model.runs) for model in find_models([str(one.path), str(two.path)], tmp_path)}
    assert names == {"base": 2, "retrieval": 2, "sts": 2, "average": 2, "ties": 1, "two/ties": 1}


def test_models_are_found_by_their_content_and_folders_of_scores_by_their_files(
    make_run: MakeRun, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    scores, rng = tmp_path / "scores", np.random.default_rng(0)
    for folder, quality in ((tiny_base, 0.4), (tiny_specialists[0], 0.5)):
        write_scores(
            scores,
            f"local/{folder.name}",
            content_hash(folder)[:40],
            {task: part_of(task, quality, rng, 50) for task in TYPES},
        )
    by_name = find_models([str(tiny_base), str(tiny_specialists[0])], scores)
    assert [model.name for model in by_name] == ["base", "alpha"]
    assert {model.name for model in find_models([str(scores)], tmp_path)} == {"base", "alpha"}
    assert compare(by_name, draws=200).rows[1].differences["Docs"].significant
    with pytest.raises(SelfposError, match="has no scores in"):
        find_models([str(tiny_specialists[1])], scores)
    with pytest.raises(SelfposError, match="two of the models to compare are called 'base'"):
        find_models([str(make_run().path), str(tiny_base)], scores)


def test_without_examples_there_are_differences_but_no_intervals(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    for file in run.scores("ties").rglob("Docs.npz"):
        file.unlink()
    found = compare(find_models([str(run.path)], tmp_path), draws=200)
    rows = {row.model: row for row in found.rows}
    assert rows["ties"].differences["Docs"].low is None
    assert rows["ties"].differences[MEAN].low is None
    assert rows["ties"].differences["Wiki"].low is not None
    assert rows["average"].differences["Docs"].low is not None
    assert any("no intervals on Docs" in note for note in found.notes)
    assert "[?]" in text(found)


def test_models_scored_on_other_examples_are_not_paired(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    parts = {task: part_of(task, 0.4, np.random.default_rng(1), 80) for task in TYPES}
    write_scores(run.scores("ties"), "small/ties", "ties".ljust(40, "0"), {"Docs": parts["Docs"]} | parts)
    for part in parts.values():
        object.__setattr__(part, "key", "others")
    write_scores(run.scores("ties"), "small/ties", "ties".ljust(40, "0"), parts)
    found = compare(find_models([str(run.path)], tmp_path), draws=200)
    assert "no intervals on Docs: the models were scored on other examples" in found.notes


def test_a_model_that_lacks_a_task_has_no_mean_and_no_rank(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    write_scores(
        run.scores("sts"),
        "small/sts",
        "sts".ljust(40, "0"),
        {"Docs": part_of("Docs", 0.4, np.random.default_rng(1), 120)},
    )
    found = compare(find_models([str(run.path)], tmp_path), draws=200)
    row = next(row for row in found.rows if row.model == "sts")
    assert (set(row.scores), row.borda, row.worst) == ({"Docs"}, None, "Docs")
    cells = next(line for line in scores_grid(found).rows if line.model == "sts").cells
    assert [cell.text for cell in cells[1:5]] == ["–", "–", "–", "–"]


def test_too_few_draws_for_so_many_comparisons_are_said(make_run: MakeRun, tmp_path: Path) -> None:
    models = find_models([str(make_run().path)], tmp_path)
    few, enough = compare(models, draws=200), compare(models, draws=1000)
    assert few.notes == [
        "200 resamples cannot tell 12 differences apart from chance after the correction: take at least 240 "
        "(--draws)"
    ]
    assert enough.notes == []


def test_every_format(make_run: MakeRun, tmp_path: Path) -> None:
    found = compare(find_models([str(make_run().path)], tmp_path), draws=1000)
    written = {suffix: make(found) for suffix, make in FORMATS.items()}
    data = json.loads(written[".json"])
    assert data["rows"][4]["differences"]["Docs"]["significant"] is True
    rows = list(csv.DictReader(written[".csv"].splitlines()))
    assert len(rows) == 5 * 7
    ties = next(row for row in rows if (row["model"], row["column"]) == ("ties", "Docs"))
    assert float(ties["difference"]) == pytest.approx(found.rows[4].differences["Docs"].value)
    assert written[".md"].count("| ties |") == 2
    assert r"\toprule" in written[".tex"] and written[".tex"].count(r"\begin{tabular}") == 2
    assert not any(
        line.count("&") not in (0, 5, 6, 8)
        for line in written[".tex"].splitlines()
        if not line.startswith("%")
    )


def test_the_verb(make_run: MakeRun, tmp_path: Path, selfpos: CommandLine) -> None:
    run = make_run()
    done = own_process(
        *("compare", str(run.path), "--draws", "300", "--out", "table.md", "--out", "deep/table.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Borda rank" in done.stdout
    assert "differences to base" in done.stdout
    assert (tmp_path / "table.md").read_text().startswith("| model | Docs | Wiki | Pairs | Retrieval |")
    assert "exists already" in said(selfpos("compare", run.path, "--out", "table.md", cwd=tmp_path))
    assert "expected a name that ends in" in said(selfpos("compare", run.path, "--out", "table.xls"))
    assert selfpos("compare", tmp_path / "nowhere").returncode == 2
