"""Two processes over gloo search as one does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.adapters import make_adapter
from tests.helpers.command import TWO_PROCESSES
from tests.helpers.together import WAYS, run

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parent.parent.parent


def numbers(value: Any) -> Any:
    """`value` without what may differ: times, and paths."""
    if isinstance(value, dict):
        return {key: numbers(inner) for key, inner in value.items() if key not in ("seconds", "verdict")}
    return [numbers(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in (key, *flat(inner))]
    return [found for inner in value for found in flat(inner)] if isinstance(value, list) else [value]


def assert_same(one: Any, two: Any) -> None:
    """Equal but for floats, which are to agree to 1e-6."""
    one, two = flat(numbers(one)), flat(numbers(two))
    assert [type(value) for value in one] == [type(value) for value in two]
    floats = [(a, b) for a, b in zip(one, two, strict=True) if isinstance(a, float)]
    assert [b for _, b in floats] == pytest.approx([a for a, _ in floats], rel=1e-6, abs=1e-6)
    assert [a for a in one if not isinstance(a, float)] == [b for b in two if not isinstance(b, float)]


@pytest.fixture(scope="module")
def found(tiny_base: Path, tiny_specialists: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what one process has found in `alone`, and two in `together`."""
    folder = tmp_path_factory.mktemp("processes")
    adapters = [folder / f"adapter{seed}" for seed in range(2)]
    for seed, adapter in enumerate(adapters):
        make_adapter(tiny_base, adapter, seed=seed, r=4, target_modules="all-linear")
    words = [*TWO_PROCESSES, ROOT / "tests/helpers/together.py"]
    places = [folder / "together", tiny_base, *tiny_specialists, *adapters]
    quiet = {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run([*words, *places], capture_output=True, text=True, env=os.environ | quiet)
    assert done.returncode == 0, done.stderr[-4000:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun has it; on more threads sums differ in their last digits
    run(folder / "alone", tiny_base, {"whole": tiny_specialists, "adapter": adapters})
    torch.set_num_threads(threads)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_go_the_way_of_one(found: Path, way: str) -> None:
    if way == "cma-es":
        pytest.importorskip("cma")
    alone, together = ((found / place / way) for place in ("alone", "together"))
    ways = [
        [json.loads(line) for line in (folder / "way.jsonl").read_text().splitlines()]
        for folder in (alone, together)
    ]
    assert len(ways[0]) > 3
    assert_same(*ways)
    results = [json.loads((folder / "found.json").read_text()) for folder in (alone, together)]
    assert_same(*results)
    # the second process knows the result, too, and has written no more than this test asked for
    assert_same(
        results[1],
        {
            key: value
            for key, value in json.loads((together / "second.json").read_text()).items()
            if value is not None
        },
    )
    assert sorted(path.name for path in together.iterdir()) == [
        "found.json",
        "model",
        "second.json",
        "way.jsonl",
    ]


def test_an_interrupt_of_one_ends_all_with_the_best_so_far(found: Path) -> None:
    first, second = (
        json.loads((found / "together" / f"interrupted{rank}.json").read_text()) for rank in range(2)
    )
    assert_same(first, second)
    assert first["interrupted"]
    assert first["steps"] == 2
    assert (found / "together" / "interrupted" / "model.safetensors").is_file()
