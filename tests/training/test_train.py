from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from selfpos.errors import SelfposError
from selfpos.recipe import LoraSettings, MixtureSettings, TrainingSettings
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest
from selfpos.tasks import TASKS, get_task
from selfpos.training import train
from tests.helpers.trainings import FAST, records, run


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_specialist_of_each_type_loads_and_differs_from_its_base_in_weights_alone(
    task: str, tiny_base: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    out = tmp_path / task
    result = run(tiny_base, out, task)
    assert (result.steps, result.samples, result.out) == (3, 12, out)
    assert [step for step, _ in result.losses] == [1, 3] and all(
        np.isfinite(loss) for _, loss in result.losses
    )
    files = {str(file.relative_to(tiny_base)) for file in tiny_base.rglob("*") if file.is_file()} - {
        "README.md"
    }
    assert {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()} == files | {
        "selfpos.json"
    }
    assert {name for name in files if (out / name).read_bytes() != (tiny_base / name).read_bytes()} == {
        "model.safetensors",
        "2_Dense/model.safetensors",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [task]  # no checkpoints, no temporary folders
    model = SentenceTransformer(str(out), device="cpu")
    assert model.prompts == {"query": "query: ", "document": ""} and model.max_seq_length == 32
    assert np.linalg.norm(model.encode(["abcd efgh"])) == pytest.approx(1, abs=1e-5)


def test_the_manifest_says_what_made_the_model(tiny_base: Path, tmp_path: Path) -> None:
    run(tiny_base, tmp_path / "out", "sts", provenance={"finetune": {"source": {"data": "here"}}})
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest["base"] == {"name": "base", "hash": content_hash(tiny_base)}
    assert (
        manifest["kind"] == "specialist"
        and manifest["tasks"]["sts"]["records"] == 24
        and len(manifest["tasks"]["sts"]["hash"]) == 64
    )
    assert (
        manifest["settings"]["steps"] == 3
        and manifest["seed"] == 5
        and manifest["steps"] == 3
        and manifest["samples"] == 12
    )
    assert (
        manifest["seconds"] > 0
        and manifest["peak_memory_bytes"] > 1e7
        and manifest["versions"]["torch"] == torch.__version__
    )
    assert manifest["precision"] == "float32" and manifest["finetune"] == {"source": {"data": "here"}}


@pytest.mark.parametrize(
    ("mixture", "steps", "batches"),
    [
        ({"mixture": "proportional"}, 18, 18),
        ({"mixture": "round-robin"}, 18, 18),
        ({"mixture": "temperature", "alpha": 0}, 18, 18),
        (
            {"mixture": "resampled", "ratio": {"a.b": 2}},
            9 + 4 + 4,
            17,
        ),  # 36, 18 and 18 of 72 records, in batches of 4
        ({"mixture": "resampled", "size": "max", "ratio": {"x": 3}}, 2 + 2 + 6, 10),
        ({"surgery": "pcgrad"}, 6, 18),
    ],
)
def test_a_joint_model_learns_from_every_task(
    mixture: dict, steps: int, batches: int, tiny_base: Path, tmp_path: Path
) -> None:
    # names that would be no module names inside the trainer
    data = {
        "a.b": (get_task("sts"), records("sts")),
        "forward": (get_task("retrieval"), records("retrieval")),
    }
    data["x"] = (get_task("classification"), records("classification"))
    settings = FAST.model_copy(update={"steps": None})
    result = train(
        tiny_base,
        data,
        tmp_path / "joint",
        settings,
        seed=0,
        mixture=MixtureSettings(**mixture),
        name="joint",
    )
    manifest = read_manifest(tmp_path / "joint")
    assert (
        manifest is not None
        and manifest["kind"] == "joint"
        and set(manifest["tasks"]) == set(data)
        and manifest["mixture"] in ("round-robin", mixture.get("mixture"))
    )
    assert (result.steps, result.samples) == (steps, 4 * batches)


def test_batches_of_a_joint_training_come_from_one_task_each_and_fit_its_loss(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfpos.training.trainer import Trainer

    seen = []
    collect = Trainer.compute_loss

    def spy(self: Trainer, model: object, inputs: dict, **options: object) -> object:
        task = list(manifest_order)[int(inputs["dataset_name"])]
        ids = {
            name: inputs[f"{name}_input_ids"]
            for name in get_task(task).text_columns
            if f"{name}_input_ids" in inputs
        }
        seen.append((task, ids, inputs.get("label")))
        return collect(self, model, inputs, **options)

    monkeypatch.setattr(Trainer, "compute_loss", spy)
    manifest_order = ("retrieval", "classification", "pair-classification")
    run(
        tiny_base,
        tmp_path / "joint",
        *manifest_order,
        settings=FAST.model_copy(update={"steps": 12}),
        mixture=MixtureSettings(mixture="round-robin"),
    )
    assert [task for task, _, _ in seen] == list(manifest_order) * 4
    for task, ids, labels in seen:
        if task == "retrieval":
            rows = [
                tuple(row.tolist())
                for row in torch.cat([torch.nn.functional.pad(x, (0, 40 - x.shape[1])) for x in ids.values()])
            ]
            assert len(set(rows)) == len(rows) == 8
        if task == "classification":
            assert sorted(torch.bincount(labels)[labels.unique()].tolist()) == [2, 2]


def test_the_loss_goes_down(tiny_base: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=60, batch_size=8, learning_rate=3e-3)
    losses = run(tiny_base, tmp_path / "out", "classification", settings=settings).losses
    assert losses[-1][1] < 0.9 * losses[0][1]


@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_a_training_of_one_step_moves_the_weights(warmup: float, tiny_base: Path, tmp_path: Path) -> None:
    run(tiny_base, tmp_path / "out", "sts", settings=FAST.model_copy(update={"steps": 1, "warmup": warmup}))
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_base, tmp_path / "out"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_equal_seeds_give_equal_bytes_and_others_do_not(tiny_base: Path, tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        run(tiny_base, tmp_path / name, "retrieval", "sts", seed=seed)
    assert (
        content_hash(tmp_path / "first")
        == content_hash(tmp_path / "again")
        != content_hash(tmp_path / "other")
    )


def test_text_is_cut_to_max_length_only_while_training(tiny_base: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    run(tiny_base, tmp_path / "cut", "retrieval", settings=FAST.model_copy(update={"max_length": 8}))
    run(tiny_base, tmp_path / "whole", "retrieval", settings=FAST.model_copy(update={"max_length": 32}))
    assert content_hash(tmp_path / "cut") != content_hash(tmp_path / "whole")
    model = SentenceTransformer(str(tmp_path / "cut"), device="cpu")
    assert model.preprocess(["a b c d e f g h i j k l m n"])["input_ids"].shape[1] == 16


def test_lora_saves_an_adapter_that_the_library_loads_and_whose_product_is_the_change(
    tiny_base: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    settings = FAST.model_copy(update={"lora": LoraSettings(rank=2, alpha=8)})
    run(tiny_base, tmp_path / "lora", "sts", settings=settings)
    run(tiny_base, tmp_path / "same", "sts", settings=settings)
    adapter = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (2, 8, True)
    assert not (tmp_path / "lora" / "model.safetensors").exists()
    assert content_hash(tmp_path / "lora") == content_hash(tmp_path / "same")
    dense = load_file(tmp_path / "lora" / "2_Dense" / "model.safetensors")
    assert all(
        torch.equal(value, load_file(tiny_base / "2_Dense" / "model.safetensors")[key])
        for key, value in dense.items()
    )

    loaded = SentenceTransformer(str(tmp_path / "lora"), device="cpu")
    by_hand = SentenceTransformer(str(tiny_base), device="cpu")
    weights = dict(by_hand.transformers_model.named_parameters())
    moved = 0.0
    with torch.no_grad():
        for key in (key for key in adapter if "lora_A" in key):
            name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            change = 8 / 2 * adapter[key.replace("lora_A", "lora_B")] @ adapter[key]
            weights[name] += change
            moved += change.abs().sum().item()
    assert moved > 0
    np.testing.assert_allclose(loaded.encode(["abc def"]), by_hand.encode(["abc def"]), atol=1e-5)


@pytest.mark.parametrize(
    ("tasks", "settings", "options", "message"),
    [
        (("sts",), {"precision": "bf16"}, {}, "precision bf16 needs a GPU, and the model is on cpu"),
        (("sts",), {"batch_size": 64}, {}, "task 'sts' (sts) gives no full batch of 64 from its 24 records"),
        (("retrieval", "sts"), {"batch_size": 64}, {}, "gives no full batch of 64 from its 24 records"),
        (
            ("classification",),
            {"batch_size": 5},
            {},
            "cannot be drawn in batches of 5: batch_size must be an even number",
        ),
        (
            ("sts",),
            {"lora": LoraSettings(target_modules=["nowhere"])},
            {},
            "LoRA target_modules ['nowhere'] do not fit",
        ),
        (("sts",), {}, {"mixture": MixtureSettings(surgery="pcgrad")}, "surgery is between tasks"),
        (
            ("sts", "retrieval"),
            {},
            {"mixture": MixtureSettings(mixture="resampled", ratio={"stss": 2})},
            "did you mean 'sts'",
        ),
        ((), {}, {}, "at least one task"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    tasks: tuple[str, ...],
    settings: dict,
    options: dict,
    message: str,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SelfposError) as error:
        run(tiny_base, tmp_path / "out", *tasks, settings=FAST.model_copy(update=settings), **options)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_plain_transformer_is_refused_before_it_is_trained(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(tiny_base, plain)
    (plain / "modules.json").unlink()
    monkeypatch.setattr("selfpos.training.trainer.Trainer.train", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(SelfposError, match="no sentence-transformers model"):
        run(plain, tmp_path / "out", "sts")
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda base: [(base / name).unlink(missing_ok=True) for name in ("tokenizer.json", "vocab.txt")],
            "has no tokenizer",
        ),
        (
            lambda base: (base / "config.json").rename(base / "adapter_config.json"),
            "holds a PEFT adapter, which is no base by itself",
        ),
    ],
    ids=["no tokenizer", "adapter"],
)
def test_what_is_no_base_is_refused_before_it_is_trained(
    harm: Callable[[Path], object], message: str, tiny_base: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    harm(tmp_path / "base")
    with pytest.raises(SelfposError, match=message):
        run(tmp_path / "base", tmp_path / "out", "sts")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_an_existing_output_is_not_touched(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SelfposError, match="exists"):
        run(tiny_base, tmp_path / "out", "sts")
    assert list((tmp_path / "out").iterdir()) == []


def test_only_our_bar_is_shown_and_the_course_is_logged(
    tiny_base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import datasets
    from transformers.utils import logging as transformers_logging

    before = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
        datasets.are_progress_bars_disabled(),
    )
    with caplog.at_level(logging.INFO, logger="selfpos"):
        run(tiny_base, tmp_path / "out", "retrieval", "classification")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1 and "3/3 step" in shown.err and "loss" in shown.err
    assert [record.message[:10] for record in caplog.records if "loss" in record.message] == [
        "out: step ",
        "out: step ",
    ]
    after = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
        datasets.are_progress_bars_disabled(),
    )
    assert after == before


@pytest.mark.parametrize("lora", [False, True])
def test_a_training_goes_on_from_another_model(lora: bool, tiny_base: Path, tmp_path: Path) -> None:
    """As in the iterative pipeline: what the second learns is added to the first, and the base stays θ0."""
    settings = FAST.model_copy(update={"lora": LoraSettings(rank=2) if lora else None})
    run(tiny_base, tmp_path / "first", "sts", settings=settings)
    run(
        tiny_base,
        tmp_path / "still",
        "retrieval",
        settings=settings.model_copy(update={"learning_rate": 1e-12}),
        start=tmp_path / "first",
    )
    run(tiny_base, tmp_path / "second", "retrieval", settings=settings, start=tmp_path / "first")
    weights = "adapter_model.safetensors" if lora else "model.safetensors"
    first, still, second = (load_file(tmp_path / name / weights) for name in ("first", "still", "second"))
    assert set(first) == set(still) == set(second)
    assert all(torch.allclose(first[key], still[key], atol=1e-8) for key in first)
    assert any(not torch.allclose(first[key], second[key], atol=1e-5) for key in first)
    manifest = read_manifest(tmp_path / "second")
    assert manifest is not None and manifest["base"]["hash"] == content_hash(tiny_base)
    assert manifest["start"] == {"name": "first", "hash": content_hash(tmp_path / "first")}
