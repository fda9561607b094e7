"""The options of a training, each through a real one of a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors import SafetensorError

from selfpos.errors import OperationError, SelfposError
from selfpos.recipe import MixtureSettings
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest
from selfpos.tasks import TASKS, get_task
from selfpos.training.objective import make_loss
from tests.helpers.threads import one_thread
from tests.helpers.trainings import records, run, with_, words

__all__ = ["one_thread"]


def gradients(base: Path, task: str, **settings: object) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one batch of eight records, in float64 and without dropout."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(base), device="cpu").double().eval()
    kind = get_task(task).under(with_(**settings))
    prepared = kind.prepare(records(task), 0)
    rows = prepared[:8]
    loss = make_loss(kind, model, with_(**settings))
    features = [model.preprocess(rows[column]) for column in kind.texts_of(prepared.column_names)]
    value = loss(features, torch.tensor(rows[kind.target]) if kind.target else None)
    value.backward()
    return value.item(), {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }


@pytest.mark.parametrize("task", ["retrieval", "sts", "classification", "bitext"])
@pytest.mark.parametrize("matryoshka", [[], [4, 16]])
def test_a_batch_in_chunks_has_the_gradient_of_the_whole(
    task: str, matryoshka: list[int], tiny_base: Path
) -> None:
    whole, expected = gradients(tiny_base, task, matryoshka=matryoshka)
    for size in (1, 3, 64):
        found, by_chunks = gradients(tiny_base, task, matryoshka=matryoshka, cached=size)
        assert found == pytest.approx(whole, rel=1e-9)
        assert set(by_chunks) == set(expected)
        assert all(
            torch.allclose(by_chunks[name], expected[name], rtol=1e-6, atol=1e-10) for name in expected
        )


def test_matryoshka_is_the_sum_of_the_losses_of_the_first_numbers(tiny_base: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_base), device="cpu").double().eval()
    rows = records("retrieval")[:8]
    with torch.no_grad():
        a, b = (
            model(model.preprocess(rows[column]))["sentence_embedding"].numpy()
            for column in ("anchor", "positive")
        )

    def info_nce(size: int) -> float:
        q, d = (x[:, :size] / np.linalg.norm(x[:, :size], axis=1, keepdims=True) for x in (a, b))
        s = q @ d.T / 0.05
        return float(np.mean([math.log(np.exp(s[i] - s[i, i]).sum()) for i in range(8)]))

    found, _ = gradients(tiny_base, "retrieval", matryoshka=[4, 16])
    assert found == pytest.approx(info_nce(4) + info_nce(16), rel=1e-9)
    with pytest.raises(SelfposError, match="matryoshka dimension 17 is more than the model's 16"):
        gradients(tiny_base, "retrieval", matryoshka=[17])


ROUND_ROBIN = MixtureSettings(mixture="round-robin")
THREE = ("retrieval", "classification", "sts")  # a sampler of each kind


@pytest.fixture(scope="module")
def plain(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], str]:
    """Hashes of the models trained on all types, and on three, without options."""
    folder = tmp_path_factory.mktemp("plain")
    hashes = {}
    for types in (tuple(TASKS), THREE):
        out = folder / str(len(types))
        run(tiny_base, out, *types, settings=with_(steps=len(types)), mixture=ROUND_ROBIN)
        hashes[types] = content_hash(out)
    return hashes


@pytest.mark.parametrize(
    ("settings", "types"),
    [
        ({"cached": 2}, tuple(TASKS)),
        ({"matryoshka": [4, 16]}, THREE),
        ({"gradient_checkpointing": True}, THREE),
        ({"batching": "length"}, THREE),
        ({"sts_loss": "infonce"}, THREE),
    ],
)
def test_every_option_trains_again_to_the_same_bytes(
    settings: dict, types: tuple[str, ...], plain: dict, tiny_base: Path, tmp_path: Path
) -> None:
    for name in ("first", "again"):
        options = with_(steps=len(types), **settings)
        assert run(tiny_base, tmp_path / name, *types, settings=options, mixture=ROUND_ROBIN).steps == len(
            types
        )
    assert content_hash(tmp_path / "first") == content_hash(tmp_path / "again")
    if settings != {"gradient_checkpointing": True}:
        assert content_hash(tmp_path / "first") != plain[types]


def test_the_papers_loss_learns_from_the_pairs_that_are_alike(tiny_base: Path, tmp_path: Path) -> None:
    data = Dataset.from_dict(
        {"sentence1": list("abcdef"), "sentence2": list("ghijkl"), "score": [0, 1, 2, 3, 4, 5]}
    )
    kind = get_task("sts").under(with_(sts_loss="infonce"))
    assert kind.name == "sts" and kind.target is None
    assert [tuple(record.values()) for record in kind.prepare(data, 0)] == [("e", "k"), ("f", "l")]
    assert [tuple(record.values()) for record in kind.prepare(kind.prepare(data, 0), 0)] == [
        ("e", "k"),
        ("f", "l"),
    ]
    with pytest.raises(SelfposError, match=r"1 of 6 pairs are graded 0\.9 or more"):
        get_task("sts").under(with_(sts_loss="infonce", sts_positive=0.9)).prepare(data, 0)
    nli = {"premise": ["p", "p"], "hypothesis": ["e", "c"], "label": ["entailment", "contradiction"]}
    assert kind.prepare(Dataset.from_dict(nli), 0).to_list() == [
        {"anchor": "p", "positive": "e", "negative": "c"}
    ]
    run(tiny_base, tmp_path / "out", "sts", settings=with_(sts_loss="infonce", batch_size=2))
    assert read_manifest(tmp_path / "out")["losses"] == {"sts": "MultipleNegativesRankingLoss"}


def test_a_tracker_that_is_not_installed_and_a_device_that_is_not_there_are_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("selfpos.training.outside.find_spec", lambda name: None)
    with pytest.raises(SelfposError, match="report_to wandb needs the package wandb, which is not installed"):
        run(tiny_base, tmp_path / "out", "sts", settings=with_(report_to=["wandb"]))
    with pytest.raises(
        SelfposError, match=r"there is no device cuda on this machine .torch .* sees 0 of kind cuda.; use cpu"
    ):
        run(tiny_base, tmp_path / "out", "sts", settings=with_(device="cuda"))
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_follows_the_training_beside_the_output(tiny_base: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run(tiny_base, tmp_path / "plain", "sts")
    run(tiny_base, tmp_path / "out", "sts", settings=with_(report_to=["tensorboard"]))
    assert list((tmp_path / "out.logs").glob("events.*"))
    assert content_hash(tmp_path / "out") == content_hash(tmp_path / "plain")
    assert "report_to" not in json.dumps(read_manifest(tmp_path / "out"))


def lengthy(task: str, count: int) -> Dataset:
    """Records of `task` with texts between one and forty words."""
    draw = np.random.default_rng(0)
    data = records(task, count).to_dict()
    column = next(name for name, values in data.items() if isinstance(values[0], str))
    data[column] = [" ".join(words(i, int(draw.integers(1, 8)))) for i in range(count)]
    return Dataset.from_dict(data)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_batches_by_length_are_whole_keep_the_rules_and_pad_less(task: str) -> None:
    from selfpos.training.samplers import LengthBatchSampler

    kind = get_task(task)
    data = kind.prepare(lengthy(task, 400), 0)
    sampler = LengthBatchSampler(data, kind, 8, torch.Generator(), 3)
    texts = kind.texts_of(data.column_names)
    batches = list(sampler)
    assert len(data) // 8 - 1 <= len(batches) == len(sampler) and all(
        len(batch) == 8 for batch in batches
    )  # an odd text is left out
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == len(rows)
    assert list(sampler) == batches
    sampler.set_epoch(1)
    assert list(sampler) != batches
    for batch in batches:
        found = data[batch]
        if kind.sampler == "no_duplicates":
            each = [{found[column][row] for column in texts} for row in range(8)]
            assert len(set.union(*each)) == sum(map(len, each))
        if kind.sampler == "group_by_label":
            counts = [found["label"].count(label) for label in set(found["label"])]
            assert len(counts) >= 2 and min(counts) >= 2

    def padded(chosen: list[list[int]]) -> int:
        return sum(8 * max(len(text) for text in data[batch][column]) for batch in chosen for column in texts)

    shuffled = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    assert padded(batches) < 0.8 * padded(
        [shuffled[start : start + 8] for start in range(0, len(data) - 7, 8)]
    )


def test_records_that_share_texts_still_give_full_batches_by_length() -> None:
    from selfpos.training.samplers import LengthBatchSampler

    data = Dataset.from_dict(
        {"anchor": [f"a{i}" for i in range(64)], "positive": [f"p{i // 8}" for i in range(64)]}
    )
    batches = list(LengthBatchSampler(data, get_task("retrieval"), 8, torch.Generator(), 0))
    assert len(batches) == 8
    assert all(len(set(data[batch]["positive"])) == 8 for batch in batches)
    lopsided = Dataset.from_dict({"text": [str(i) for i in range(40)], "label": [0] * 36 + [1] * 4})
    batches = list(LengthBatchSampler(lopsided, get_task("classification"), 4, torch.Generator(), 0))
    assert all(sorted(lopsided[batch]["label"]) == [0, 0, 1, 1] for batch in batches) and len(batches) == 2


@pytest.mark.parametrize(
    ("fault", "settings", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            {},
            "the GPU's memory ran out; lower batch_size (4) or max_length (that of the model), or give",
        ),
        (
            torch.OutOfMemoryError("x"),
            {"cached": 3, "gradient_checkpointing": True},
            "set cached below 3, or train with lora",
        ),
        (MemoryError(), {"max_length": 24}, "the memory ran out; lower batch_size (4) or max_length (24)"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
            ),
            {},
            "the memory ran out",
        ),
        (OSError(28, "No space left on device"), {}, "the disk is full; free some space and start again"),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
            {},
            "a file could not be written, most often for a full disk; mend that and start again",
        ),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            {},
            "the disk is full",
        ),
    ],
)
def test_what_runs_out_is_one_sentence_that_says_what_to_do(
    fault: Exception,
    settings: dict,
    message: str,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from selfpos.training.trainer import Trainer

    def fail(self: Trainer, *args: object, **kwargs: object) -> None:
        raise fault

    monkeypatch.setattr(Trainer, "training_step", fail)
    with pytest.raises(OperationError) as error:
        run(tiny_base, tmp_path / "out", "sts", settings=with_(**settings))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_other_faults_are_not_taken_for_these(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfpos.training.trainer import Trainer

    monkeypatch.setattr(
        Trainer, "training_step", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("shape mismatch"))
    )
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(tiny_base, tmp_path / "out", "sts")
