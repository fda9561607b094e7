"""What is published: a wheel with all that the program opens, and the same bytes from the same tree."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from selfpos.version import __version__
from tests.helpers.command import ROOT

wheels = pytest.importorskip(
    "hatchling.builders.wheel", reason="hatchling, of the extra dev, is not installed"
)
sdists = pytest.importorskip("hatchling.builders.sdist")


def built(builder: type, folder: Path, tree: Path = ROOT) -> Path:
    return Path(next(builder(str(tree)).build(directory=str(folder), versions=["standard"])))


def test_the_wheel_holds_what_the_program_opens(tmp_path: Path) -> None:
    source = [path for path in (ROOT / "selfpos").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    expected = {path.relative_to(ROOT).as_posix() for path in source}
    expected |= {
        f"selfpos/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.yaml")
    }
    with zipfile.ZipFile(built(wheels.WheelBuilder, tmp_path)) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licence = next(name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
        assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
        metadata = Parser().parsestr(
            wheel.read(licence.replace("licenses/LICENSE", "METADATA")).decode("utf-8")
        )
    assert names == expected
    assert {
        "selfpos/py.typed",
        "selfpos/recipes/quickstart.yaml",
        "selfpos/recipes/imbalance/mnist.yaml",
    } <= names
    assert metadata["Author"] == "selfpos contributors"
    assert metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_source_archive_holds_what_builds_the_same_bytes_again(tmp_path: Path) -> None:
    archive = built(sdists.SdistBuilder, tmp_path)
    with tarfile.open(archive) as opened:
        tops = {Path(name).parts[1] for name in opened.getnames()}
        opened.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    assert tops >= {"selfpos", "recipes", "pyproject.toml", "README.md", "LICENSE", "CITATION.cff"}
    assert not tops & {"benchmarks", "tests", "checkpoints", "shared", "docs"}
    assert archive.stat().st_size < 2e6
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    # Other times of files, the same bytes.
    for builder in (wheels.WheelBuilder, sdists.SdistBuilder):
        from_archive = built(builder, tmp_path / "again", unpacked)
        assert from_archive.read_bytes() == built(builder, tmp_path / "direct").read_bytes()


def test_the_version_is_the_newest_of_the_changelog() -> None:
    title = re.search(r"^## (\S+)(.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert title is not None
    release, _, stage = __version__.partition(".dev")
    assert release.removesuffix(".0") == title[1].removesuffix(".0")
    assert bool(stage) == ("unreleased" in title[2])


def test_the_published_page_has_no_relative_link(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    address = "https://example.com/team/selfpos"
    subprocess.run([ROOT / ".ci" / "addresses", address, "v1"], cwd=tmp_path, check=True)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert all("://" in target for target in re.findall(r"\]\(([^)\s]+)\)", page))
    assert f"![Mean scores of all models of the quickstart]({address}/raw/v1/docs/quickstart.png)" in page
    assert f"[docs/speed.md]({address}/blob/v1/docs/speed.md)" in page
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["urls"]["Source"] == address
