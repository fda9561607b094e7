"""Headers that lie are refused as safetensors does, and no name reaches a terminal raw."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open

from selfpos.console import log, log_to, warn
from selfpos.errors import SelfposError, printable
from selfpos.storage.tensor_file import read_header
from tests.helpers.command import CommandLine, said

FLOATS = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def written(file: Path, header: Any, data: bytes = b"\0" * 16) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


@pytest.mark.parametrize(
    "header",
    [
        {"w": {**FLOATS, "shape": [-2, -2]}},
        {"w": {**FLOATS, "shape": [-4, -1]}},
        {"w": {**FLOATS, "shape": [4, True]}},
        {"w": {**FLOATS, "shape": [2.0, 2]}},
        {"w": {**FLOATS, "shape": "22"}},
        {"w": {**FLOATS, "data_offsets": [False, 16]}},
        {"w": {**FLOATS, "data_offsets": [-16, 0]}},
        {"w": {**FLOATS, "extra": 1}, "__metadata__": {"format": 1}},
        {"w": FLOATS, "__metadata__": ["pt"]},
        {"w": FLOATS, "__metadata__": {"a": {"b": "c"}}},
        b'{"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "__metadata__": '
        + b"[" * 100_000,
        b"[" * 200_000,
        b'{"a": ' * 100_000,
        b'{"w\\ud800": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}',
        b'{"w": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 16]}}',
        b'\xff\xfe{"w": 1}',
        b" " * 16,
    ],
)
def test_what_the_library_refuses_is_refused(header: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "model.safetensors", header)
    with pytest.raises(SafetensorError), safe_open(file, framework="numpy"):
        pass
    with pytest.raises(SelfposError, match="safetensors"):
        read_header(file)


@pytest.mark.parametrize(
    "name", ["a\nselfpos: all is well", "a\x1b[2Jb", "a\u202eb", "a\u2028b", "a\x00b", "a\x7fb"]
)
def test_names_that_a_terminal_obeys_are_refused_and_escaped(name: str, tmp_path: Path) -> None:
    file = written(tmp_path / "model.safetensors", {name: FLOATS})
    with pytest.raises(SelfposError, match="tensor name") as refused:
        read_header(file)
    assert name not in str(refused.value) and printable(str(refused.value)) == str(refused.value)


def test_names_of_any_language_are_read(tmp_path: Path) -> None:
    names = ["größe.weight", "слой.0", "層.1", "a b", "emoji 👩‍🔬", "a[0]"]
    header = {name: {**FLOATS, "data_offsets": [16 * n, 16 * n + 16]} for n, name in enumerate(names)}
    file = written(tmp_path / "model.safetensors", header, b"\0" * 16 * len(names))
    assert list(read_header(file)[0]) == names


def test_no_name_reaches_the_terminal_raw(selfpos: CommandLine, tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "odd\x1b[31m\nselfpos: all is well"))
    (model / "modules.json").write_text("[]")
    told = said(
        selfpos("merge", "--base", model, "--vectors", model, "--method", "average", "--out", tmp_path / "o")
    )
    assert len(told.splitlines()) == 1 and "\x1b" not in told and "\\x1b[31m\\nselfpos" in told


def test_no_name_reaches_warnings_or_the_log_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\nselfpos: well [red]\x1b[2J"
    with log_to(tmp_path / "log"):
        warn(f"the tensor {name} is odd")
        log.info("and %s", name)
        try:
            raise ValueError("told\nin lines")
        except ValueError:
            log.info("where it failed", exc_info=True)
    shown, kept = capsys.readouterr().err, (tmp_path / "log").read_text()
    for text in (shown, kept):
        assert "\x1b[2J" not in text and "a\\nselfpos: well [red]\\x1b[2J" in text.replace("\n", "")
    assert "Traceback" in kept and logging.getLogger("selfpos").handlers == []
