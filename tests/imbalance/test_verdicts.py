"""Verdicts over seeds, and what the verbs of comparisons refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpos.errors import SelfposError
from selfpos.imbalance.verdicts import finding
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
    with pytest.raises(
        SelfposError, match=r"this comparison was removed in 0\.2; docs/imbalance-report\.md says"
    ):
        imbalance("compare", name, "r.yaml", "--rho", 10)
