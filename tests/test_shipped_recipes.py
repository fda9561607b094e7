"""The recipes of the package: listed, shown, and found by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpos.analysis.study import _open_study
from selfpos.commands.overlap import read_sources
from selfpos.errors import SelfposError
from selfpos.recipe import AnalysisSettings, load_recipe
from selfpos.recipe.shipped import find_recipe
from tests.helpers.command import ROOT, CommandLine, said


def test_the_recipes_of_the_package_are_listed_shown_and_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selfpos: CommandLine
) -> None:
    files = {file.stem: file for file in (ROOT / "recipes").glob("*.yaml")}
    listed = selfpos("recipes").stdout
    assert [line.split()[0] for line in listed.splitlines() if line[:1].strip()] == sorted(files)
    assert selfpos("recipes", "show", "quickstart").stdout == files["quickstart"].read_text(encoding="utf-8")
    assert "did you mean 'quickstart'?" in said(selfpos("recipes", "show", "quikstart"))
    assert "did you mean 'quickstart'?" in said(selfpos("run", "quikstart"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "retain").mkdir()  # a folder of that name is no recipe
    assert find_recipe(Path("retain")) == files["retain"]
    (tmp_path / "retain").rmdir()
    (tmp_path / "retain").write_text("name: mine\n")
    assert find_recipe(Path("retain")) == Path("retain")


def test_every_verb_that_reads_recipes_finds_those_of_the_package_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("english")
    assert recipe.name == "english"
    sources, whole = read_sources(["english"])
    assert whole == recipe and sources == recipe.tasks
    assert _open_study(Path("english"), AnalysisSettings(), None, None).recipe == recipe
    with pytest.raises(SelfposError, match="did you mean 'english'"):
        load_recipe("englsh")
