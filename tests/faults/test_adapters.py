"""Settings of a stranger's adapter that PEFT would count to, or match without end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

from selfpos.errors import SelfposError
from selfpos.evaluation.load import load_model
from selfpos.storage import adapter_settings
from selfpos.storage.adapter_settings import check_adapter_settings
from selfpos.vectors.scaling import MOST_PATTERNS, Scaling

ENDLESS = "(([a-z._0-9]+)+)+!"


@pytest.mark.parametrize(
    "patterns",
    [
        ["((a{1000}){1000}){1000}"],
        ["a{4000000000}"],
        ["(?R)"],
        ["(" * 450 + ")" * 450],
        ["a" * 1001],
        [f"x{number}" for number in range(MOST_PATTERNS + 1)],
    ],
    ids=["repeats of repeats", "a repeat", "of another language", "nested", "long", "many"],
)
def test_patterns_that_take_gigabytes_to_read_are_refused(patterns: list[str]) -> None:
    with pytest.raises(SelfposError, match="adapter a has alpha_pattern") as refused:
        Scaling({"alpha_pattern": dict.fromkeys(patterns, 4)}, Path("a"))
    assert len(str(refused.value)) < 400


def test_repeats_that_are_used_are_read() -> None:
    scaling = Scaling({"lora_alpha": 16, "alpha_pattern": {r"layer\.\d{1,2}\.x{2}": 4}}, Path("a"))
    assert scaling.of("layer.11.xx", 8) == 0.5 and scaling.of("layer.11.x", 8) == 2


def settings(folder: Path, change: dict[str, Any]) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(change))
    return file


@pytest.mark.parametrize(
    "change",
    [
        {"rank_pattern": {ENDLESS: 4}},
        {"alpha_pattern": {ENDLESS: 4}},
        {"target_modules": ENDLESS},
        {"exclude_modules": ENDLESS},
        {"layers_pattern": [ENDLESS]},
    ],
)
def test_patterns_that_peft_would_match_without_end_are_refused(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_settings, "PATTERN_SECONDS", 1.0)
    names = [f"layers.{number}.encoder.attention.output.dense.weight" for number in range(4)]
    with pytest.raises(SelfposError, match=r"adapter_config\.json has patterns that take more than 1 s"):
        check_adapter_settings(settings(tmp_path, change), names)


@pytest.mark.parametrize("change", [{"r": 10**12}, {"r": -1}, {"rank_pattern": {"query": 10**9}}])
def test_a_rank_that_no_adapter_has_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match=r"adapter_config\.json has rank"):
        check_adapter_settings(settings(tmp_path, change), [])


def test_an_adapter_with_patterns_is_scored_and_its_settings_are_checked(
    tiny_base: Path, tmp_path: Path
) -> None:
    usual = LoraConfig(r=4, target_modules=r".*\.layer\.\d+\..*\.(query|value)", rank_pattern={"query": 2})
    folder = tmp_path / "adapter"
    get_peft_model(AutoModel.from_pretrained(tiny_base), usual).save_pretrained(folder)
    for file in tiny_base.glob("*.json"):
        if file.name != "config.json":
            shutil.copy(file, folder)
    (folder / "modules.json").write_text(json.dumps(json.loads((folder / "modules.json").read_text())[:2]))
    shutil.copytree(tiny_base / "1_Pooling", folder / "1_Pooling")
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": str(tiny_base)}
    settings(folder, config)
    assert load_model(folder).encode("a").shape == (32,)
    settings(folder, config | {"r": 10**12})
    with pytest.raises(SelfposError, match="has rank 1000000000000"):
        load_model(folder)
