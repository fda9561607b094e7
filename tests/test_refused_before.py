"""What a merge or a search would refuse of a base is refused before anything is trained."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.helpers.adapters import edit_json
from tests.helpers.command import CommandLine, said
from tests.helpers.pipelines import every_pipeline


def as_pickle(base: Path) -> None:
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()


def quantised(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    key = "encoder.layer.0.output.dense.weight"
    save_file(tensors | {key: tensors[key].to(torch.int8)}, base / "model.safetensors", {"format": "pt"})


def other_class(base: Path) -> None:
    edit_json(base / "config_sentence_transformers.json", model_type="SparseEncoder")


def plain(base: Path) -> None:
    (base / "modules.json").unlink()


def equal_layers(base: Path) -> None:
    """Weights that a search cannot tell apart: two equal tensors under names of another model."""
    tensors = load_file(base / "model.safetensors")
    moved = {}
    for name, value in tensors.items():
        moved[name.replace("encoder.layer.1.output.LayerNorm", "x.y")] = value
    save_file(moved, base / "model.safetensors", {"format": "pt"})


CASES: list[tuple[Callable[[Path], None], str]] = [
    (as_pickle, "holds its weights as a pickle"),
    (quantised, "is quantised: tensor encoder.layer.0.output.dense.weight is int8"),
    (other_class, "is a SparseEncoder"),
    (plain, "does not say how its token vectors are pooled"),
    (equal_layers, "cannot tell which stored tensor is the parameter"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of small data that `every_pipeline` writes."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def recipe(base: Path, data: Path) -> Path:
    """A run with two tasks and a search."""
    content = every_pipeline(base, data)
    kept = {name: content[name] for name in ("name", "base", "tasks", "training", "probe", "evaluation")}
    file = data / "run.yaml"
    file.write_text(yaml.safe_dump(kept | {"merges": {"found": {"method": "self-positioning"}}}))
    return file


def training(base: Path, data: Path) -> list[object]:
    return [
        "finetune",
        "--base",
        base,
        "--task",
        "retrieval",
        "--data",
        data / "retrieval.jsonl",
        "--probe",
        8,
    ]


@pytest.mark.parametrize(("spoil", "message"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_base_that_cannot_be_merged_is_not_trained_from(
    spoil: Callable[[Path], None],
    message: str,
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    selfpos: CommandLine,
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    spoil(base)
    file = recipe(base, data)
    refused = said(selfpos(*training(base, data), "--out", tmp_path / "one", "--dry-run"))
    assert message in " ".join(refused.split())
    for more in (["--dry-run"], []):
        refused = said(selfpos("run", file, "--out", tmp_path / "run", "--data-root", data, *more))
        assert message in " ".join(refused.split())
    assert not (tmp_path / "one").exists() and not (tmp_path / "run").exists()


def test_a_dry_run_of_a_training_or_a_run_writes_nothing(
    tiny_base: Path, data: Path, tmp_path: Path, selfpos: CommandLine
) -> None:
    file = recipe(tiny_base, data)
    before = sorted(tmp_path.rglob("*"))
    done = selfpos(*training(tiny_base, data), "--out", tmp_path / "one", "--dry-run")
    assert done.returncode == 0 and "and hold out 8 for a probe" in done.stdout, done.stderr
    run = selfpos("run", file, "--out", tmp_path / "run", "--data-root", data, "--dry-run")
    assert run.returncode == 0, run.stderr
    assert "merge/found" in run.stdout.split()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_says_what_would_be_done(
    tiny_base: Path, data: Path, tmp_path: Path, selfpos: CommandLine
) -> None:
    file, out = recipe(tiny_base, data), tmp_path / "run"
    run = ["run", file, "--out", out, "--data-root", data]
    rows = [line.split(maxsplit=1) for line in selfpos(*run, "--dry-run").stdout.splitlines()]
    told = dict(reversed(rows))
    assert "pairs, pair-classification: " in told["data"] and "holds out 12 for" in told["data"]
    assert told["models"] == "base, pairs, retrieval, joint, found"
    assert told["scored"] == "on  STSBenchmark (STS)"
    size = sum(tensor.nbytes for tensor in load_file(tiny_base / "model.safetensors").values())
    expected = (3 + 3 + 1) * size / 10**6  # two specialists and the joint model, a checkpoint, the merge
    assert float(told["disk"].split()[1]) == pytest.approx(expected, abs=0.5)
    assert re.match(r"about [\d.]+ seconds of training", told["time"])
    assert told["job"] == "specialist/pairs"
    out.mkdir()
    (out / "notes.txt").write_text("")
    assert "holds other things than a run" in said(selfpos(*run, "--dry-run"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 4096}, "max_length 4096 is above the limit of"),
        ({"report_to": ["wandb"]}, "report_to wandb needs the package wandb"),
        ({"batch_size": 64}, "task pairs: 44 records to train on give no batch of 64"),
        (
            {"batch_size": 40, "validation": {"share": 0.2}},
            "task pairs: 30 records to train on give no batch of 40",
        ),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_the_first(
    settings: dict[str, object], message: str, tiny_base: Path, data: Path, selfpos: CommandLine
) -> None:
    file = recipe(tiny_base, data)
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(content | {"training": content["training"] | settings}))
    assert message in " ".join(said(selfpos("run", file, "--data-root", data, "--dry-run")).split())


def test_data_whose_texts_give_no_batch_are_refused_before_the_first_training(
    tiny_base: Path, data: Path, selfpos: CommandLine
) -> None:
    file = recipe(tiny_base, data)
    rows = [json.dumps({"anchor": f"word {n % 8}", "positive": f"about {n}"}) for n in range(64)]
    (data / "retrieval.jsonl").write_text("\n".join(rows))
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"probe": {"per_task": 2}}))
    refused = " ".join(said(selfpos("run", file, "--data-root", data, "--dry-run")).split())
    assert "task retrieval: no batch of 8 records that share no text: the text 'word" in refused


def test_all_data_that_a_run_lacks_is_told_at_once(tiny_base: Path, data: Path, selfpos: CommandLine) -> None:
    file = recipe(tiny_base, data)
    for name in ("retrieval", "pairs"):
        (data / f"{name}.jsonl").unlink()
    refused = " ".join(said(selfpos("run", file, "--data-root", data, "--dry-run")).split())
    assert "task pairs: data" in refused and "; task retrieval: data" in refused


def test_code_of_the_base_is_spoken_of_before_the_training(
    tiny_base: Path, data: Path, tmp_path: Path, selfpos: CommandLine
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    edit_json(base / "config.json", auto_map={"AutoModel": "modeling_x.X"})
    (base / "modeling_x.py").write_text("")
    file = recipe(base, data)
    done = selfpos(*training(base, data), "--out", tmp_path / "one", "--dry-run")
    assert "merges over it need --allow-code" in done.stdout
    assert "names Python code of the model" in said(selfpos("run", file, "--data-root", data, "--dry-run"))
