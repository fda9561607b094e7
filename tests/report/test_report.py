from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from selfpos.comparison.tables import markdown
from selfpos.errors import SelfposError
from selfpos.report import report_of_run, write_report
from selfpos.report.of_run import read_run, score_table
from selfpos.report.results import make_table
from selfpos.storage.run_folder import RunFolder

SCORES = {
    "base": {"Docs": 0.5, "Pairs": 0.60},
    "retrieval": {"Docs": 0.7, "Pairs": 0.55},
    "joint": {"Docs": 0.7, "Pairs": 0.61},
    "average": {"Docs": 0.6, "Pairs": 0.62},
    "positioned": {"Docs": 0.69, "Pairs": 0.63},
}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    recipe = {
        "name": "small",
        "tasks": {
            "retrieval": {"type": "retrieval", "data": "corpus"},
            "pairs": {"type": "pair-classification", "data": "corpus"},
        },
        "merges": {"average": {"method": "average"}, "positioned": {"method": "self-positioning"}},
    }
    folder.recipe.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


def fill(folder: RunFolder) -> None:
    tasks = {
        "Docs": {"type": "Retrieval", "metric": "ndcg_at_10"},
        "Pairs": {"type": "PairClassification", "metric": "max_ap"},
    }
    folder.table.write_text(json.dumps({"tasks": tasks, "scores": SCORES}), encoding="utf-8")
    folder.geometry.write_text(
        json.dumps({"names": ["retrieval", "pairs"], "gram": [[4.0, 0.0], [0.0, 1.0]]}), encoding="utf-8"
    )
    folder.position("positioned").parent.mkdir()
    found = {
        "names": ["retrieval", "pairs"],
        "coefficients": [0.8, 1.2],
        "step": 1,
        "losses": {"retrieval": 0.9, "pairs": 0.5},
    }
    folder.position("positioned").write_text(json.dumps(found), encoding="utf-8")
    steps = [
        {
            "step": step,
            "coefficients": [0.7 + step / 10, 0.7],
            "losses": {"retrieval": 1.0 - step / 10, "pairs": 0.5},
        }
        for step in range(4)
    ]
    folder.trajectory("positioned").write_text(
        "\n".join(json.dumps(step) for step in steps), encoding="utf-8"
    )


def test_the_best_of_each_column_is_marked_and_ties_share_it(run: RunFolder) -> None:
    fill(run)
    table = make_table(read_run(run))
    assert table.columns == ["Docs", "Pairs", "mean"]
    best = {
        (row.model, column)
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.best
    }
    assert best == {("retrieval", "Docs"), ("joint", "Docs"), ("positioned", "Pairs"), ("positioned", "mean")}
    assert [row.kind for row in table.rows] == ["base", "specialist", "joint", "merge", "positioned"]
    assert "| positioned | 69.00 | **63.00** | **66.00** |" in markdown(table)
    assert re.search(r"joint.*70\.00\*", score_table(run))


@pytest.mark.slow
def test_the_page_stands_alone_and_holds_table_coefficients_path_and_angles(run: RunFolder) -> None:
    fill(run)
    page = report_of_run(run).read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert page.count("<svg") == 2 * 4  # for broad pages and for phones
    identities = re.findall(r'\bid="([^"]+)"', page)
    assert len(identities) == len(set(identities))
    assert "90.0°" in page
    assert ">1.2000<" in page
    assert page == report_of_run(run).read_text(encoding="utf-8")
    lines = run.trajectory("positioned").read_text(encoding="utf-8").splitlines()
    run.trajectory("positioned").write_text("\n".join(lines[:3]), encoding="utf-8")
    page = report_of_run(run).read_text(encoding="utf-8")
    assert page.count("<svg") == 2 * 3  # two steps are no path to draw


def test_a_partial_run_is_reported_with_what_is_missing(run: RunFolder) -> None:
    page = report_of_run(run).read_text(encoding="utf-8")
    assert (
        "Not there yet: scores of all models; norms and angles of the task vectors; coefficients of "
        "positioned." in page
    )


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match=r"is no run: it has no recipe\.yaml"):
        report_of_run(RunFolder(tmp_path))


def test_a_place_of_its_own_is_made_and_never_overwritten(run: RunFolder, tmp_path: Path) -> None:
    page = write_report(read_run(run), tmp_path / "deep" / "page.html")
    text = page.read_text(encoding="utf-8")
    with pytest.raises(SelfposError, match="exists already"):
        write_report(read_run(run), page)
    with pytest.raises(SelfposError, match=r"would lie within .*page\.html, which is a file"):
        write_report(read_run(run), page / "page.html")
    assert page.read_text(encoding="utf-8") == text
    assert [file.name for file in page.parent.iterdir()] == ["page.html"]


def test_jobs_of_merges_that_left_the_recipe_are_not_told(run: RunFolder) -> None:
    for job in ("vectors", "merge/average", "merge/of-before", "scores/base", "scores/of-before"):
        run.mark(job).parent.mkdir(exist_ok=True)
        run.mark(job).write_text('{"key": "", "seconds": 1.5}', encoding="utf-8")
    assert list(read_run(run).seconds) == ["merge.average", "scores.base", "vectors"]
