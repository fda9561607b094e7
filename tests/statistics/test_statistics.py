"""Fisher information and Gram matrices of tiny specialists, against gradients and activations taken by hand
in float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from selfpos.errors import OperationError, SelfposError
from selfpos.merging import execute, plan
from selfpos.operations import merge
from selfpos.positioning.objective import Batch
from selfpos.statistics import fisher, gathered
from selfpos.statistics.gather import task_probe
from tests.helpers import reference as ref
from tests.helpers.adapters import make_adapter
from tests.helpers.stand_ins import Probe, graded, pairs

TEMPERATURE = 0.05


@pytest.fixture
def probe() -> dict[str, Probe]:
    """A probe task for each of two specialists."""
    return {"alpha": named("alpha", pairs(16)), "beta": named("beta", graded(16))}


def named(name: str, task: Probe) -> Probe:
    return Probe(name, task.type, task.dataset)


def float64_model(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").double().eval()


def stored_names(model: Any) -> dict[str, str]:
    """Names in memory → in the files of the tiny model."""
    names = {}
    for name, _ in model.named_parameters():
        module, _, rest = name.partition(".")
        names[name] = rest.partition(".")[2] if module == "0" else f"{module}_Dense/{rest}"
    return names


def loss_by_hand(model: Any, batch: Batch) -> torch.Tensor:
    """InfoNCE of pairs, CoSENT of graded pairs, each text embedded by itself."""
    embed = lambda texts: torch.cat([model(model.preprocess([text]))["sentence_embedding"] for text in texts])  # noqa: E731
    one, two = (torch.nn.functional.normalize(embed(column), dim=1) for column in batch.columns)
    if batch.labels is None:
        return -torch.log_softmax(one @ two.T / TEMPERATURE, dim=1).diagonal().mean()
    cosines = (one * two).sum(1) / TEMPERATURE
    higher = batch.labels[:, None] < batch.labels[None, :]  # row: the pair that should have the lower cosine
    return torch.log(1 + torch.exp((cosines[:, None] - cosines[None, :])[higher]).sum())


def gathered_files(
    base: Path, sources: list[Path], probe: dict[str, Probe], method: str, folder: Path
) -> list[dict[str, np.ndarray]]:
    made = plan(base, sources, method, folder / "out")
    with gathered(made, probe, folder) as complete:  # type: ignore[arg-type]
        (found,) = complete.statistics.values()
        return [load_file(next(iter(statistic.entries.values())).file) for statistic in found]


def test_fisher_is_the_mean_of_squared_gradients(
    tiny_base: Path, tiny_specialists: list[Path], probe: dict[str, Probe], tmp_path: Path
) -> None:
    sources = tiny_specialists[:2]
    found = gathered_files(tiny_base, sources, probe, "fisher", tmp_path)
    for source, task, information in zip(sources, probe.values(), found, strict=True):
        model = float64_model(source)
        names = stored_names(model)
        groups = fisher.batches(task_probe(task), 0)  # type: ignore[arg-type]
        assert len(groups) == 2 and all(group.count == 8 for group in groups)
        expected = {key: np.zeros(value.shape) for key, value in information.items()}
        for group in groups:
            model.zero_grad()
            loss_by_hand(model, group).backward()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    expected[names[name]] += parameter.grad.numpy() ** 2 / len(groups)
        mean = sum(value.sum() for value in expected.values()) / sum(
            value.size for value in expected.values()
        )
        assert set(names.values()) >= set(expected) and mean > 0
        for key, value in expected.items():
            np.testing.assert_allclose(information[key], value / mean, rtol=2e-3, atol=1e-5, err_msg=key)
    table = found[0]["embeddings.word_embeddings.weight"]
    assert (table[0] == 0).all() and (table[5:31].max(1) > 0).any()  # the padding is never seen, letters are


def test_gram_matrices_hold_every_token_once_and_no_padding(
    tiny_base: Path, tiny_specialists: list[Path], probe: dict[str, Probe], tmp_path: Path
) -> None:
    sources = tiny_specialists[:2]
    found = gathered_files(tiny_base, sources, probe, "regmean", tmp_path)
    for source, task, grams in zip(sources, probe.values(), found, strict=True):
        model = float64_model(source)
        names = stored_names(model)
        inputs: dict[str, list[np.ndarray]] = {}
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                seen = inputs.setdefault(names[f"{name}.weight"], [])
                module.register_forward_pre_hook(
                    lambda _, given, seen=seen: seen.append(given[0].reshape(-1, given[0].shape[-1]).numpy())
                )
        columns = [column for column in task.dataset.column_names if column != "score"]
        with torch.no_grad():
            for text in [text for column in columns for text in task.dataset[column]]:
                model(model.preprocess([text]))
        assert set(grams) == set(inputs) and "2_Dense/linear.weight" in grams
        for key, rows in inputs.items():
            x = np.concatenate(rows)
            np.testing.assert_allclose(grams[key], x.T @ x / len(x), rtol=1e-4, atol=1e-5, err_msg=key)
        assert sum(len(rows) for rows in inputs["2_Dense/linear.weight"]) == len(columns) * len(task.dataset)


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_equal_models_give_themselves(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, method: str
) -> None:
    import shutil

    sources = [
        Path(shutil.copytree(tiny_specialists[0], tmp_path / name)) for name in ("alpha", "beta", "gamma")
    ]
    probe = {
        name: named(name, task)
        for name, task in [("alpha", pairs()), ("beta", graded()), ("gamma", pairs(seed=3))]
    }
    for count in (1, 3):
        given: Any = dict(list(probe.items())[:count])
        out = merge(
            str(tiny_base),
            sources[:count],
            method,
            tmp_path / f"out{count}",
            probe=given,
            weights=[1.0, 0.5, 2.0][:count],
        )
        expected = ref.load(sources[0])
        for key, value in ref.load(out).items():
            np.testing.assert_allclose(value, expected[key], atol=1e-6, err_msg=key)
    assert not list(tmp_path.glob(".*"))


def test_a_stopped_gathering_goes_on_with_the_next_task(
    tiny_base: Path,
    tiny_specialists: list[Path],
    probe: dict[str, Probe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources, given = tiny_specialists[:2], dict(probe)
    whole = merge(str(tiny_base), sources, "fisher", tmp_path / "whole", probe=given)  # type: ignore[arg-type]
    original, seen = fisher.gather, []

    def stopping(live: Any, task: Any, *rest: Any) -> Iterator[int]:
        seen.append(task.name)
        yield from original(live, task, *rest)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fisher, "gather", stopping)
        with pytest.raises(KeyboardInterrupt):
            merge(str(tiny_base), sources, "fisher", tmp_path / "out", probe=given)  # type: ignore[arg-type]
    left = tmp_path / ".out.statistics"
    assert len(list(left.iterdir())) == 1 and not (tmp_path / "out").exists()
    (left / "fisher-0123456789abcdef.safetensors.part").write_bytes(b"killed")
    monkeypatch.setattr(
        fisher, "gather", lambda live, task, *rest: (seen.append(task.name), original(live, task, *rest))[1]
    )
    out = merge(str(tiny_base), sources, "fisher", tmp_path / "out", probe=given)  # type: ignore[arg-type]
    assert seen == ["alpha", "beta", "beta"]
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not left.exists()


def test_statistics_that_are_kept_serve_other_merges_of_the_same_models_and_records(
    tiny_base: Path,
    tiny_specialists: list[Path],
    probe: dict[str, Probe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, sources = tmp_path / "kept", tiny_specialists[:2]
    merge(str(tiny_base), sources, "regmean", tmp_path / "one", probe=probe, statistics_in=kept)  # type: ignore[arg-type]
    files = {file.name for file in kept.iterdir()}
    assert len(files) == 2
    with monkeypatch.context() as patch:
        patch.setattr("selfpos.statistics.gram.gather", lambda *_: pytest.fail("gathered again"))
        merge(
            str(tiny_base),
            sources[::-1],
            "regmean",
            tmp_path / "two",
            probe=probe,
            statistics_in=kept,
            params={"alpha": 0.5},
        )  # type: ignore[arg-type]
    changed = probe | {"beta": named("beta", graded(seed=8))}
    merge(str(tiny_base), sources, "regmean", tmp_path / "three", probe=changed, statistics_in=kept)  # type: ignore[arg-type]
    assert len(set(kept.iterdir())) == 3


def test_adapters_are_run_as_the_models_they_stand_for(tiny_base: Path, tmp_path: Path) -> None:
    sources = [tmp_path / name for name in ("alpha", "beta")]
    for seed, source in enumerate(sources):
        make_adapter(tiny_base, source, seed=seed, plain=True)
    probe = {"alpha": named("alpha", pairs()), "beta": named("beta", graded())}
    out = merge(str(tiny_base), sources, "regmean", tmp_path / "out", probe=probe)  # type: ignore[arg-type]
    whole = [
        merge(str(tiny_base), [source], "task-arithmetic", tmp_path / "whole" / source.name)
        for source in sources
    ]
    same = merge(str(tiny_base), whole, "regmean", tmp_path / "same", probe=probe)  # type: ignore[arg-type]
    for key, value in ref.load(same).items():
        np.testing.assert_allclose(ref.load(out)[key], value, atol=1e-5, err_msg=key)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["alpha"], "the probe set has no task 'beta'.*it holds alpha"),
        ([], "it holds nothing"),
        (["alpha", "btea"], "did you mean 'btea'"),
        (["alpha", "beta", "gama"], "the task 'gama', for which there is no vector"),
    ],
)
def test_probe_and_vectors_that_do_not_match_are_refused(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, names: list[str], says: str
) -> None:
    given: Any = {name: named(name, pairs()) for name in names}
    with pytest.raises(SelfposError, match=says) as caught:
        merge(str(tiny_base), tiny_specialists[:2], "fisher", tmp_path / "out", probe=given)
    assert caught.value.exit_code == 2 and not list(tmp_path.iterdir())


def test_damaged_models_and_records_are_named_and_leave_nothing(
    tiny_base: Path, tiny_specialists: list[Path], probe: dict[str, Any], tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    bad = Path(shutil.copytree(tiny_specialists[1], tmp_path / "sources" / "beta"))
    tensors = load(bad / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][3] = float("nan")
    save(tensors, bad / "model.safetensors")
    with pytest.raises(
        SelfposError, match=r"beta.*encoder\.layer\.0\.output\.dense\.bias holds nan at element 3"
    ):
        merge(str(tiny_base), [tiny_specialists[0], bad], "fisher", tmp_path / "out", probe=probe)
    few = probe | {"beta": Probe("beta", probe["beta"].type, probe["beta"].dataset.select([0]))}
    few["beta"].type.draw = lambda *_: (_ for _ in ()).throw(SelfposError("a batch needs 2 records"))
    with pytest.raises(SelfposError, match="needs 2 records"):
        merge(str(tiny_base), tiny_specialists[:2], "fisher", tmp_path / "out", probe=few)
    with pytest.raises(SelfposError, match="average uses no data"):
        merge(str(tiny_base), tiny_specialists[:2], "average", tmp_path / "out", probe=probe)
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]


def test_a_full_disk_is_one_sentence(
    tiny_base: Path,
    tiny_specialists: list[Path],
    probe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OperationError, match=r"cannot gather statistics in .*No space left on device"):
        merge(str(tiny_base), tiny_specialists[:2], "regmean", tmp_path / "out", probe=probe)


def test_a_plan_without_its_statistics_is_not_carried_out(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(
        SelfposError, match="method fisher needs the statistics 'fisher' of each of the 3 vectors, found 0"
    ):
        execute(plan(tiny_base, tiny_specialists, "fisher", tmp_path / "out"))
    assert not list(tmp_path.iterdir())
