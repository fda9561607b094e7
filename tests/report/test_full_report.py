"""The report with everything in it, as text and in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from selfpos.comparison import Comparison, compare
from selfpos.comparison.differences import MEAN
from selfpos.report import read_run, report_of_run
from selfpos.report.answer import findings
from selfpos.report.figures import by_layer, spread_out, vary
from selfpos.report.page import breakable
from selfpos.report.results import Results
from selfpos.storage.run_folder import RunFolder
from tests.helpers.scored_runs import WrittenReport

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
TITLES = [
    "Mean scores",
    "Scores by method and task",
    "Score and cost",
    "Path of the coefficients: positioned",
    "Path of the coefficients: by-layer",
    "Coefficients by layer: by-layer",
    "Norms and angles of the task vectors",
]
# What a reader does and sees, noted in the page's own title, which is printed with the page.
PROBE = """<script>
const table = document.querySelector("table.sortable"), heads = table.querySelectorAll("th button");
const column = index => [...table.tBodies[0].rows].map(row => row.cells[index].textContent);
heads[1].click();
const down = column(1);
heads[1].click();
const up = column(1);
heads[0].click();
const names = column(0);
const shown = element => element.getClientRects().length > 0;
const boxes = [...document.querySelectorAll("figure .scroll")];
const images = [...document.querySelectorAll("[role=img]")].filter(shown);
const texts = [...document.querySelectorAll("figure svg text")];
const heights = texts.map(text => text.getBoundingClientRect().height);
document.title = JSON.stringify({
  down, up, names, width: innerWidth, needed: document.documentElement.scrollWidth,
  paper: getComputedStyle(document.body).backgroundColor,
  images: images.length,
  named: images.filter(image => image.ariaLabel && image.closest("figure")).length,
  cut: boxes.filter(box => box.scrollWidth > box.clientWidth).length,
  text: Math.min(...heights.filter(Boolean)),
});
</script>"""


def test_every_figure_is_there_with_its_words_and_as_files(written: WrittenReport) -> None:
    page = written.page
    assert re.findall(r"<figure[^>]*><h3>([^<]*)</h3>", page) == TITLES
    assert page.count('role="img" aria-label="') == len(TITLES) + page.count('class="scroll narrow"')
    identities = re.findall(r'\bid="([^"]+)"', page)
    assert len(identities) == len(set(identities))
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "Could be added" not in page
    assert "Differences to base" in page
    assert '<h2 id="analysis">Conflict and imbalance</h2>' in page
    files = sorted(written.figures.iterdir())
    assert len(files) == len(TITLES)
    assert all("<svg" in file.read_text(encoding="utf-8") for file in files)


@pytest.mark.slow
def test_equal_results_make_equal_pages(written: WrittenReport) -> None:
    assert written.page == report_of_run(written.run).read_text(encoding="utf-8")


def test_costs_come_from_marks_manifests_and_searches(full_run: RunFolder) -> None:
    costs = {cost.model: cost for cost in read_run(full_run).costs}
    retrieval, joint, positioned = costs["retrieval"], costs["joint"], costs["positioned"]
    assert (retrieval.seconds, retrieval.draws, retrieval.memory) == (40.0, "960 samples", 1.2e9)
    assert (joint.seconds, joint.draws, joint.memory) == (80.0, None, None)
    assert (positioned.seconds, positioned.draws) == (None, "4,321 texts")
    assert costs["base"].scoring == 9.0
    assert (retrieval.total, joint.total, costs["ties"].total) == (
        40.0,
        80.0,
        None,
    )  # what the other specialist took is not known
    full_run.mark("specialist/pairs").write_text(json.dumps({"key": "", "seconds": 20.0}), encoding="utf-8")
    again = {cost.model: cost for cost in read_run(full_run).costs}
    assert (again["ties"].seconds, again["ties"].total) == (1.5, 61.5)


@pytest.mark.slow
def test_findings_name_the_best_and_say_where_it_may_be_chance(full_run: RunFolder) -> None:
    found = findings(read_run(full_run))
    assert re.match(
        r"The best merge is by-layer, with a mean of \d\d\.\d\d over \d tasks\. "
        "In points, with the 95 % interval of each difference: ",
        found,
    )
    for rival in ("the best specialist, retrieval", "the base", "the joint model", "the next merge, "):
        assert re.search(rf"\d\.\d\d (ahead of|behind) {rival}", found), found
    told = re.findall(r"(\d+\.\d\d) (ahead of|behind) [^(]* \((\S+) to ([^),]+)", found)
    assert told
    for value, side, low, high in told:
        assert float(low) <= float(value) <= float(high), (side, found)
    for merge in ("ties", "by-layer", "positioned"):
        shutil.rmtree(full_run.scores(merge))
    assert found != findings(read_run(full_run))
    shutil.rmtree(full_run.path / "scores")
    assert findings(read_run(full_run)) == ""


@pytest.mark.slow
def test_findings_are_corrected_over_the_whole_table_and_agree_with_it(full_run: RunFolder) -> None:
    results = read_run(full_run)
    found = findings(results)
    assert found.endswith("which flatters it; Holm's correction is over all 7 models beside it."), found
    assert results.comparison is not None
    table = {row.model: row.differences.get(MEAN) for row in results.comparison.rows}
    against = {
        row.model: row.differences.get(MEAN) for row in compare(results.scored, baseline="by-layer").rows
    }
    rivals = {"base": ("the base", table["by-layer"]), "retrieval": ("specialist, retrieval", None)}
    for model, (said, expected) in rivals.items():
        expected = expected or against[model]
        assert expected is not None
        told = re.search(rf"{said} \(([^)]*)\)", found)
        assert told and ("not significant" not in told[1]) == expected.significant, found


@pytest.mark.slow
@pytest.mark.parametrize(("in_table", "alone"), [(0.2, 0.001), (0.001, 0.2)])
def test_the_lead_says_of_the_base_what_the_table_says(
    in_table: float, alone: float, full_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two correct over other families, so that their adjusted p-values may be on both sides of 5 %."""
    results = read_run(full_run)

    def adjusted(compared: Comparison, model: str, p: float) -> Comparison:
        rows = [
            replace(row, differences={MEAN: replace(row.differences[MEAN], adjusted=p)})
            if row.model == model
            else row
            for row in compared.rows
        ]
        return replace(compared, rows=rows)

    assert results.comparison is not None
    vars(results)["comparison"] = adjusted(results.comparison, "by-layer", in_table)
    of_lead = adjusted(results.compared_to("by-layer"), "base", alone)
    monkeypatch.setattr(Results, "compared_to", lambda *_: of_lead)
    told = re.search(r"the base \(([^)]*)\)", findings(results))
    assert told and ("not significant" in told[1]) == (in_table > 0.05)


def test_names_break_where_words_do() -> None:
    assert str(breakable("PythonDocs-of<X>")) == "Python<wbr>Docs-<wbr>of&lt;X&gt;"


def test_coefficients_of_all_searches_are_in_one_table(written: WrittenReport) -> None:
    table = written.page.partition("<h2>Coefficients found</h2>")[2].partition("</table>")[0]
    assert table.count('<tr class="positioned">') == 2
    assert table.count("<td>0.8000<small>[0.70, 0.90]</small></td>") == 2


def test_layers_are_in_order_and_means_of_their_tensors(full_run: RunFolder) -> None:
    searches = read_run(full_run).searches
    layers = by_layer(searches["by-layer"].position["tensors"])
    assert vary(layers)
    assert not vary({layer: [0.5] for layer in layers})
    assert next(iter(layers)) == "embeddings"
    assert list(layers)[1:] == [f"encoder.layer.{layer}" for layer in range(6)]
    assert layers["encoder.layer.3"] == pytest.approx([0.9, 0.4])


def test_labels_are_moved_apart_in_their_order() -> None:
    moved = spread_out([1.0, 1.0, 1.05, 3.0], 0.2)
    assert moved[0] < moved[1] < moved[2] < moved[3] == 3.0
    assert min(b - a for a, b in pairwise(moved)) >= 0.199
    assert spread_out([3.0, 1.0], 0.2) == [3.0, 1.0]


@pytest.mark.slow
def test_what_is_scored_so_far_is_shown(full_run: RunFolder) -> None:
    shutil.rmtree(full_run.scores("ties"))
    full_run.analysis.unlink()
    page = report_of_run(full_run).read_text(encoding="utf-8")
    assert "Not there yet: scores of ties." in page
    assert "Could be added: conflicts between" in page
    assert "Mean scores" in page


def in_browser(page: Path, folder: Path, *, width: int, dark: bool) -> tuple[dict, str]:
    """Open `page` in headless Chromium; returns what PROBE saw, and what the browser had to say."""
    probed = folder / f"{width}-{dark}.html"
    probed.write_text(
        page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8"
    )
    assert BROWSER is not None
    options = ["headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run"]
    options += ["disable-component-update", "disable-sync", f"window-size={width},2000", "dump-dom"]
    options += ["enable-logging=stderr", "virtual-time-budget=2000"]
    options += [f"user-data-dir={folder / f'profile-{width}-{dark}'}"]
    options += [f"blink-settings=preferredColorScheme={0 if dark else 1}"]
    command = [BROWSER, *(f"--{option}" for option in options), probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stderr
    said = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(title[1].replace("&amp;", "&")), said


@pytest.mark.nightly
@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page in")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_in_a_browser(written: WrittenReport, tmp_path: Path, width: int, dark: bool) -> None:
    found, said = in_browser(written.run.report, tmp_path, width=width, dark=dark)
    assert said == ""
    numbers = [float(text) for text in found["down"]]
    assert numbers == sorted(numbers, reverse=True)
    assert found["up"] == sorted(found["up"], key=float)
    assert found["names"] == sorted(found["names"])
    assert found["needed"] <= found["width"]  # the page itself never scrolls sideways
    assert found["images"] == found["named"] == len(TITLES)
    assert found["cut"] == 0  # no figure scrolls
    assert found["text"] >= 11  # pixels, of the smallest text in a figure
    assert (found["paper"] == "rgb(23, 25, 28)") == dark
