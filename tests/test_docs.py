"""What the pages say: command lines that the command line takes, links that lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from selfpos import cli
from tests.helpers.command import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of each `selfpos` command in the page's blocks of shell."""
    for block in re.findall(
        r"^```sh\n(.*?)^```|^((?: {4}[^\n]*\n)+)", page.read_text(encoding="utf-8"), re.S | re.M
    ):
        for line in "".join(block).replace("\\\n", " ").splitlines():
            if line.strip().startswith("selfpos "):
                words = shlex.split(line, comments=True)
                yield words[1 : words.index(">") if ">" in words else None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_are_understood(page: Path) -> None:
    for verb, *words in command_lines(page):
        command = cli.selfpos.get_command(click.Context(cli.selfpos), verb)
        assert command is not None, verb
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(verb, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            place = page.parent / file if file else page
            assert place.exists(), target
            if anchor:
                titles = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.M)
                anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
                assert anchor in anchors, target


def test_every_verb_is_shown() -> None:
    shown = {words[0] for page in PAGES for words in command_lines(page)}
    assert set(cli.VERBS) <= shown


@pytest.mark.nightly
def test_the_site_is_built_whole(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")  # the extra `docs`; `make docs` has it
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(words, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=True)
    assert "JointSettings" in (tmp_path / "recipes" / "index.html").read_text(encoding="utf-8")
    assert "Traceback" not in (tmp_path / "quickstart" / "index.html").read_text(encoding="utf-8")
