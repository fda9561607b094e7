"""Reports of what is no run: models beside each other, a folder of scores, a single merge."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from selfpos.comparison import find_models
from selfpos.comparison.sources import base_among
from selfpos.storage.hashing import REVISION_LENGTH, content_hash
from tests.helpers.command import CommandLine, said
from tests.helpers.scored_runs import TYPES, part_of, write_scores


def make_model(folder: Path, record: dict[str, object] | None = None, weights: float = 1.0) -> Path:
    """A folder that counts as a model, with a record of how it was made."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"weights": weights}), encoding="utf-8")
    if record is not None:
        (folder / "selfpos.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A base, a fine-tune of unknown origin, and a searched merge, with scores of the first two."""
    base = make_model(tmp_path / "trunk", weights=0.0)
    tuned = make_model(tmp_path / "tuned", weights=1.0)
    merged = {
        "kind": "merge",
        "base": {"name": "trunk", "path": "gone", "hash": content_hash(base)},
        "merge": {"method": "wudi", "seed": 0, "sources": [{"name": "tuned", "hash": content_hash(tuned)}]},
        "positioning": {"names": ["tuned"], "coefficients": [0.75], "intervals": [[0.5, 1.0]], "step": 1},
    }
    make_model(tmp_path / "merged", merged, weights=0.5)
    noise = np.random.default_rng(0)
    for name, quality in (("trunk", 0.4), ("tuned", 0.5)):
        score(tmp_path, name, quality, noise)
    return tmp_path


def score(place: Path, name: str, quality: float, noise: np.random.Generator) -> None:
    parts = {task: part_of(task, quality, noise, 200) for task in TYPES}
    revision = content_hash(place / name)[:REVISION_LENGTH]
    write_scores(place / "scores", f"local/{name}", revision, parts)


def page_of(place: Path, selfpos: CommandLine, *words: str) -> str:
    done = selfpos("report", *words, cwd=place)
    assert done.returncode == 0, done.stderr
    return (place / done.stdout.strip()).read_text(encoding="utf-8")


@pytest.mark.slow
def test_models_beside_each_other(place: Path, selfpos: CommandLine) -> None:
    score(place, "merged", 0.6, np.random.default_rng(1))
    page = page_of(place, selfpos, "tuned", "merged", "trunk", "--scores", "scores")
    assert "Differences to trunk" in page  # known from the merge's record, wherever it is named
    assert re.search(r"The best merge is merged, with a mean of \d\d\.\d\d over 3 tasks", page)
    assert "ahead of the base, trunk" in page
    assert "<td>0.7500<small>[0.50, 1.00]</small></td>" in page
    assert "self-positioning, applied by wudi, seed 0" in page
    assert "Not there yet" not in page
    again = selfpos("report", "tuned", "--scores", "scores", cwd=place)
    assert "report.html exists already" in said(again)


@pytest.mark.slow
def test_a_folder_of_scores(place: Path, selfpos: CommandLine) -> None:
    page = page_of(place, selfpos, "scores", "--out", "page.html")
    assert "2 models, scored on 3 tasks." in page
    assert re.search(r"The best model is tuned, with a mean of \d\d\.\d\d over 3 tasks", page)


def test_a_merge_without_scores_is_shown_by_what_made_it(place: Path, selfpos: CommandLine) -> None:
    page = page_of(place, selfpos, "merged")
    assert "Not there yet: scores of merged (selfpos eval-mteb)." in page
    assert "<td>0.7500<small>[0.50, 1.00]</small></td>" in page


def test_nothing_known_is_refused(place: Path, selfpos: CommandLine) -> None:
    make_model(place / "stranger", weights=2.0)
    (place / "empty").mkdir()
    refused = said(selfpos("report", "stranger", cwd=place))
    assert "nothing is known but the weights; score it first with `selfpos eval-mteb stranger" in refused
    empty = said(selfpos("report", "empty", cwd=place))
    assert "no run, no model, and no folder of scores" in empty
    assert not (place / "report.html").exists()


def test_the_base_is_known_by_its_hash(place: Path) -> None:
    names = [str(place / name) for name in ("merged", "trunk", "tuned")]
    models = find_models(names, place / "scores", unscored=True)
    assert base_among(models) == "trunk"
    assert base_among([model for model in models if model.name != "trunk"]) is None


def test_the_base_of_a_chain_is_its_first_model_also_where_a_commit_is_recorded(place: Path) -> None:
    base = {"revision": "c" * 40, "hash": content_hash(place / "trunk")}
    between = make_model(place / "between", {"kind": "merge", "base": base}, weights=2.0)
    made = {"kind": "merge", "base": {"hash": content_hash(between)}}
    make_model(place / "last", made, weights=3.0)
    names = [str(place / name) for name in ("last", "between", "trunk")]
    models = find_models(names, place / "scores", unscored=True)
    assert base_among(models) == "trunk"
    assert base_among(models[:2]) is None
