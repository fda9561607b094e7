"""Models that would score nonsense or do not load: one sentence each, before any task is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from selfpos.errors import SelfposError
from selfpos.evaluation import evaluate
from selfpos.evaluation.load import adapter_base, load_model

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


def no_tokenizer(model: Path) -> None:
    for file in ("tokenizer.json", "vocab.txt"):
        (model / file).unlink(missing_ok=True)


def not_finite(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if name.endswith("LayerNorm.weight"))
    save_file(
        {**tensors, name: tensors[name] * float("nan")},
        model / "model.safetensors",
        metadata={"format": "pt"},
    )


def other_width(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights, config = model / "2_Dense" / "model.safetensors", model / "2_Dense" / "config.json"
    tensors = load_file(weights)
    save_file({**tensors, "linear.weight": tensors["linear.weight"][:, :24].contiguous()}, weights)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_features": 24}))


def torn(model: Path) -> None:
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def adapter_without_base(model: Path) -> None:
    (model / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "/gone/base"})
    )


def code_of_its_own(model: Path) -> None:
    modules = json.loads((model / "modules.json").read_text())
    modules.append({"idx": len(modules), "name": "last", "path": "last", "type": "my.package.Thing"})
    (model / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_tokenizer, "has no tokenizer"),
        (not_finite, "gives embeddings that are not finite"),
        (other_width, "its parts do not fit together: embedding a text failed: RuntimeError"),
        (torn, "does not load as a sentence-transformers model: SafetensorError"),
        (code_of_its_own, "it needs Python code of its own, which is not run here"),
        (adapter_without_base, "is an adapter of /gone/base, which is neither a folder here"),
    ],
)
def test_one_sentence(
    harm: Callable[[Path], None],
    message: str,
    tiny_base: Path,
    tmp_path: Path,
    sts_task: Callable[..., AbsTask],
) -> None:
    shutil.copytree(tiny_base, tmp_path / "model")
    harm(tmp_path / "model")
    with pytest.raises(SelfposError, match=message) as caught:
        evaluate(tmp_path / "model", [sts_task(), sts_task("selfpos-Other")], tmp_path / "out", name="bad")
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("selfpos-*.json"))


def test_a_whole_model_and_its_adapter_load(tiny_base: Path) -> None:
    assert adapter_base(tiny_base) is None
    assert load_model(tiny_base).encode(["a"]).shape == (1, 16)


def test_two_tasks_of_one_name_are_refused(
    tiny_base: Path, tmp_path: Path, sts_task: Callable[..., AbsTask]
) -> None:
    with pytest.raises(SelfposError, match="two tasks are called selfpos-TestSTS"):
        evaluate(tiny_base, [sts_task(), sts_task(revision="two")], tmp_path, name="tiny")


@pytest.mark.parametrize("fault", ["version", "twice"])
def test_a_result_of_another_version_or_two_for_one_subset_is_made_anew(
    fault: str,
    tiny_base: Path,
    tmp_path: Path,
    sts_task: Callable[..., AbsTask],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (first,) = evaluate(tiny_base, [sts_task()], tmp_path, name="tiny").values()
    found = json.loads(first.file.read_text())
    if fault == "version":
        found["mteb_version"] = "1.38.0"
    else:
        found["scores"]["test"] = [
            {**found["scores"]["test"][0], "main_score": 0.5},
            found["scores"]["test"][0],
        ]
    first.file.write_text(json.dumps(found))
    assert evaluate(tiny_base, [sts_task()], tmp_path, name="tiny") == {first.task: first}
    assert ("is of mteb 1.38.0" if fault == "version" else "has two results for one subset") in caplog.text
    assert json.loads(first.file.read_text())["mteb_version"].startswith("2.")


def test_a_truncated_data_file_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    import gzip

    from selfpos.evaluation import select_tasks

    (tmp_path / "sts16").mkdir()
    line = b'{"sentence1": "a b", "sentence2": "a c", "score": 3.5}\n'
    (tmp_path / "sts16" / "test.jsonl.gz").write_bytes(gzip.compress(line * 50)[:-9])
    with pytest.raises(SelfposError, match=r"STS16 .*test.jsonl.gz cannot be read to its end"):
        select_tasks(["STS16"], data_dir=tmp_path)
