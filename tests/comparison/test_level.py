"""How often a difference that is chance is called significant: at most one time in twenty, however few
differ.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from selfpos.comparison import Scored, compare
from selfpos.scores.examples import Examples, examples_file, score_of, write_examples
from selfpos.scores.files import TaskScore
from selfpos.scores.intervals import sign_flip

KINDS = ["mean", "spearman", "average-precision"]


def scored(
    folder: Path, name: str, runs: np.ndarray, kind: str = "mean", gold: np.ndarray | None = None
) -> Scored:
    """A model with the results `runs` (seeds, n), in files as `eval-mteb` writes them."""
    by_run = {}
    for seed, values in enumerate(runs):
        arrays = {"values": values} if gold is None else {"scores": values, "gold": gold}
        part = Examples("test", "default", kind, len(values), "key", arrays)
        file = folder / f"{name}{seed}" / "results" / "m" / "r" / "Task.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"dataset_revision": "d"}))
        write_examples(examples_file(file), [part], "d")
        by_run[str(seed)] = {"Task": TaskScore("Task", "STS", "main", score_of(part), file)}
    return Scored(name, by_run)


def significant(folder: Path, ours: Scored, theirs: Scored, seed: int, draws: int) -> bool:
    found = compare([theirs, ours], baseline=theirs.name, draws=draws, seed=seed).rows[1].differences["Task"]
    assert found.p is not None and found.low is not None and found.high is not None
    assert found.low <= 0 <= found.high or found.p < 0.05  # interval and p say the same
    return found.p < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_one_text_of_two_hundred_is_never_significant(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    gold = None if kind == "mean" else (rng.normal(size=200) > 0).astype(float)
    theirs = rng.integers(0, 2, 200).astype(float) if gold is None else gold + rng.normal(size=200)
    ours = theirs.copy()
    ours[7] = 1 - theirs[7] if gold is None else 3 * gold[7] - 1
    pair = [scored(tmp_path, name, values[None], kind, gold) for name, values in (("a", ours), ("b", theirs))]
    assert not any(significant(tmp_path, *pair, seed, 400) for seed in range(20))


@pytest.mark.parametrize(("right", "wrong"), [(1, 0), (5, 0), (6, 0), (9, 1), (40, 20), (70, 40)])
def test_right_and_wrong_answers_are_mcnemars_test(right: int, wrong: int) -> None:
    differences = np.concatenate([np.ones(right), -np.ones(wrong), np.zeros(200)]) / 300
    assert sign_flip(differences, 100, 0) == pytest.approx(binomtest(right, right + wrong).pvalue)


@pytest.mark.slow
def test_few_differences_are_flipped_in_every_way_and_many_at_random() -> None:
    rng = np.random.default_rng(1)
    for count, tolerance in ((6, 1e-12), (13, 1e-12), (200, 0.01), (3000, 0.01)):
        differences = rng.normal(0.5 / count**0.5, 1, count)
        exact = permutation_test(
            (differences, np.zeros(count)),
            lambda a, b, axis: (a - b).sum(axis),
            permutation_type="samples",
            n_resamples=20_000 if count > 13 else np.inf,
            batch=1000,
            rng=0,
        ).pvalue
        assert sign_flip(differences, 20_000, 0) == pytest.approx(exact, abs=tolerance)
    assert sign_flip(np.zeros(5), 100, 0) == 1.0


def test_what_is_significant_only_before_the_correction_is_said(tmp_path: Path) -> None:
    from selfpos.comparison.tables import text

    rng = np.random.default_rng(2)
    theirs = rng.integers(0, 2, 100).astype(float)
    models = [scored(tmp_path, "base", theirs[None])]
    for number in range(3):
        ours = theirs.copy()
        ours[np.flatnonzero(theirs == 0)[:6]] = 1  # McNemar: p = .03
        models.append(scored(tmp_path, f"m{number}", ours[None]))
    found = compare(models, draws=400)
    differences = [row.differences["Task"] for row in found.rows[1:]]
    assert all(one.p == pytest.approx(0.03125) and one.before_correction for one in differences)
    assert text(found).count("†") >= 4  # in the cells, and where they are explained


@pytest.mark.nightly
@pytest.mark.parametrize("count", [20, 200, 2000])
@pytest.mark.parametrize("differing", [1, 2, 5, "many"])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("kind", ["mean", "graded", "spearman"])
def test_the_level_is_kept(tmp_path: Path, count: int, differing: int | str, seeds: int, kind: str) -> None:
    """Models that differ by chance alone: by example, and with three seeds of each."""
    worlds = 200 if count == 2000 else 400
    changed = count // 2 if differing == "many" else int(differing)
    calls = 0
    for world in range(worlds):
        rng = np.random.default_rng([world, count, changed, seeds])
        gold = rng.normal(size=count) if kind == "spearman" else None
        theirs = np.tile(rng.normal(size=count) + (0 if gold is None else gold), (seeds, 1))
        ours = theirs.copy()
        for run in range(seeds):
            rows = rng.choice(count, changed, replace=False)
            if kind == "spearman":  # which of the two is the better one is chance
                moved = rng.normal(size=changed) + (0 if gold is None else gold[rows])
                swap = rng.integers(0, 2, changed).astype(bool)
                ours[run, rows] = np.where(swap, moved, theirs[run, rows])
                theirs[run, rows] = np.where(swap, theirs[run, rows], moved)
            else:
                size = 1.0 if kind == "mean" else rng.exponential(size=changed)
                ours[run, rows] += size * rng.choice([-1.0, 1.0], changed)
        folder = tmp_path / str(world)
        pair = [
            scored(folder, name, runs, "mean" if gold is None else kind, gold)
            for name, runs in (("a", ours), ("b", theirs))
        ]
        calls += significant(folder, *pair, world, 300)
    assert calls / worlds <= 0.05 + 3 * (0.05 * 0.95 / worlds) ** 0.5
    if differing == "many" and count >= 200 and seeds == 1:
        assert calls / worlds >= 0.05 - 3 * (0.05 * 0.95 / worlds) ** 0.5
