"""Verdicts over seeds, and the files that comparisons are kept in."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpos.errors import SelfposError
from selfpos.imbalance.carryover.comparison import finding
from selfpos.imbalance.carryover.tasks import over_seeds
from tests.helpers.companion import RECIPES, imbalance, write_tiny


@pytest.mark.parametrize(
    ("low", "n", "strict", "p", "verdict"),
    [
        (0.1, 5, False, None, "holds"),
        (0.1, 5, False, 0.04, "holds"),
        (0.1, 5, False, 0.06, "not decided"),
        (0.1, 4, False, None, "not decided"),
        (-0.5, 5, False, None, "not decided"),
        (-0.5, 5, True, None, "does not hold"),
        (-9.0, 5, False, None, "does not hold"),
        (-9.0, 4, True, None, "not decided"),
    ],
)
def test_verdicts(low: float, n: int, strict: bool, p: float | None, verdict: str) -> None:
    result = finding("", [low + 0.5 * seed for seed in range(n)], strict=strict, p=p)
    assert (result.verdict, result.row[2]) == (verdict, str(n))


def test_a_stopped_comparison_goes_on(tmp_path: Path) -> None:
    file, ran = tmp_path / "c.json", []

    def measure(seed: int) -> dict:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(seed)
        return {"value": seed * 1.5}

    with pytest.raises(KeyboardInterrupt):
        over_seeds(file, {"rho": 10}, 4, measure)
    ran.clear()
    assert over_seeds(file, {"rho": 10}, 4, measure) == [{"value": seed * 1.5} for seed in range(4)]
    assert ran == [2, 3]
    with pytest.raises(SelfposError, match=r"made with other settings \(rho\)"):
        over_seeds(file, {"rho": 100}, 4, measure)


def test_one_process_measures_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "c.json"

    def measure(seed: int) -> dict:
        with pytest.raises(SelfposError, match=r"another process is writing .*c\.log"):
            over_seeds(file, {"rho": 10}, 1, lambda seed: pytest.fail("it was measured"))
        return {"value": seed}

    assert over_seeds(file, {"rho": 10}, 1, measure) == [{"value": 0}]


@pytest.mark.parametrize("content", ["{", "[]", '{"seeds": {}}', '{"settings": {}, "seeds": []}', "\x00"])
def test_other_files_are_no_results(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content, encoding="utf-8")
    with pytest.raises(SelfposError, match=r"c\.json (is not JSON|is not a JSON object|holds no results of)"):
        over_seeds(tmp_path / "c.json", {"rho": 10}, 1, lambda seed: pytest.fail("it was measured"))


def test_recipes_of_texts_have_a_verb_of_their_own() -> None:
    with pytest.raises(SelfposError, match="is about texts; run `selfpos imbalance compare text`"):
        imbalance("run", RECIPES / "clinc150-heads.yaml")


@pytest.mark.parametrize(
    ("verb", "out", "ending"),
    [
        ("compare tasks", "nosuffix", ".json"),
        ("compare text", "x.md", ".parquet"),
        ("run", "x.log", ".parquet"),
    ],
)
def test_results_are_not_where_something_else_is_kept(
    archive: Path, tmp_path: Path, verb: str, out: str, ending: str
) -> None:
    write_tiny(tmp_path / "r.yaml", archive)
    message = imbalance(*verb.split(), tmp_path / "r.yaml", "--out", tmp_path / out)
    assert f"the name must end in {ending}, found {tmp_path / out}" in message
    assert [file.name for file in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.parametrize("name", ["experts", "path", "norms"])
def test_comparisons_that_are_gone_say_so(name: str) -> None:
    with pytest.raises(SelfposError, match=r"this comparison was removed in 0\.2; docs/imbalance\.md says"):
        imbalance("compare", name, "r.yaml", "--rho", 10)
