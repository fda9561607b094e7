"""From folders to coefficients."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from safetensors.torch import load_file, save_file

from selfpos.data.probe import ProbeTask
from selfpos.errors import SelfposError
from selfpos.positioning.position import Position, check, position
from selfpos.positioning.problem import Problem
from selfpos.recipe import PositioningSettings
from selfpos.tasks import get_task
from tests.helpers.stand_ins import graded, pairs, records, words


def find(base: Path, sources: list[Path], path: Path | None = None, **options: object) -> Position:
    settings = PositioningSettings(
        **{"search": "sgd", "space": "spherical", "steps": 4, "batch_size": 16, **options}
    )
    return position(
        base, sources, {"pairs": pairs(), "graded": graded()}, settings, seed=3, trajectory=path, device="cpu"
    )


def test_a_position_says_what_was_found(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    found = find(tiny_base, tiny_specialists, tmp_path / "trajectory.jsonl")
    assert found.names == ["alpha", "beta", "gamma"]
    assert len(found.coefficients) == 3
    assert set(found.parameters) == {"a[alpha]", "a[beta]", "a[gamma]", "lambda"}
    assert set(found.losses) == {"pairs", "graded"}
    assert found.tensors is None
    assert found.steps == 4
    assert found.step in range(5)
    assert len((tmp_path / "trajectory.jsonl").read_text().splitlines()) == 4 + 5


def test_finer_coefficients_come_by_tensor(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    found = find(
        tiny_base, tiny_specialists, space="linear", granularity="layer", learning_rate=0.05, validation=0.0
    )
    assert found.tensors is not None
    first, second = (found.tensors[f"encoder.layer.{n}.attention.self.query.weight"] for n in (0, 1))
    assert first != second
    assert first == found.tensors["encoder.layer.0.output.dense.weight"]


def test_a_ratio_of_a_task_that_the_probe_lacks_is_refused_with_the_nearest() -> None:
    check(records(), PositioningSettings(ratios={"pairs": 2.0}), seed=0)
    with pytest.raises(
        SelfposError, match=r"names the task 'paris', which the probe .* did you mean 'pairs'"
    ):
        check(records(), PositioningSettings(ratios={"paris": 2.0}), seed=0)


def test_one_vector_alone(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    found = find(tiny_base, tiny_specialists[:1], validation=0.0)
    assert found.coefficients == [pytest.approx(found.parameters["lambda"])]


def test_duplicate_vectors_share_what_one_would_get(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    found = find(tiny_base, [tiny_specialists[0]] * 2, space="linear", validation=0.0, penalty=0.0)
    assert found.coefficients[0] == pytest.approx(found.coefficients[1])
    assert sum(found.coefficients) == pytest.approx(1, abs=0.2)


def test_equal_seeds_give_equal_positions(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    first, second = (find(tiny_base, tiny_specialists) for _ in range(2))
    assert first.coefficients == second.coefficients
    assert json.dumps(first.losses) == json.dumps(second.losses)


@pytest.mark.parametrize("third", [True, False])
def test_ctrl_c_returns_the_best_so_far_if_there_is_one(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch, third: bool
) -> None:
    original, count = Problem.gradient, [0]

    def stopping(self: Problem, *args: object) -> object:
        count[0] += 1
        if count[0] == (3 if third else 1):
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(Problem, "gradient", stopping)
    if third:
        found = find(tiny_base, tiny_specialists, validation=0.0)  # the newest is the best
        assert found.interrupted and found.step > 0 and found.steps == 2
        return
    with pytest.raises(KeyboardInterrupt):
        find(tiny_base, tiny_specialists)


def test_no_vector_is_one_sentence(tiny_base: Path) -> None:
    with pytest.raises(SelfposError, match="no task vector to position"):
        find(tiny_base, [])


def test_all_tensors_excluded_is_one_sentence(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    with pytest.raises(SelfposError, match="exclude them all"):
        find(tiny_base, tiny_specialists, exclude=["*"])


def test_a_pattern_that_fits_nothing_is_one_sentence(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    with pytest.raises(SelfposError, match=r"the pattern '\*embedings\*' of exclude fits no tensor"):
        find(tiny_base, tiny_specialists, exclude=["*embedings*"])


def test_a_specialist_with_nan_weights_is_named(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_specialists[1], tmp_path / "broken")
    tensors = load_file(tmp_path / "broken" / "model.safetensors")
    tensors["encoder.layer.0.output.dense.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SelfposError, match="task vector broken has no finite length"):
        find(tiny_base, [tiny_specialists[0], tmp_path / "broken"])


def test_a_base_without_tokenizer_is_one_sentence(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    """Transformers would make one up that knows five tokens."""
    shutil.copytree(tiny_base, tmp_path / "base")
    for file in [
        *tmp_path.glob("base/tokenizer*"),
        *tmp_path.glob("base/vocab*"),
        *tmp_path.glob("base/special_tokens_map.json"),
    ]:
        file.unlink()
    with pytest.raises(SelfposError, match="has no tokenizer"):
        find(tmp_path / "base", tiny_specialists)


def test_a_small_probe_for_the_papers_preset_is_said(
    tiny_base: Path, tiny_specialists: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    position(
        tiny_base,
        tiny_specialists,
        {"pairs": pairs()},
        PositioningSettings(preset="paper", steps=1),
        seed=0,
        device="cpu",
    )
    assert "the paper has 32,000 records, here are 24" in caplog.text


def test_vectors_of_length_zero_leave_the_base(tiny_base: Path) -> None:
    found = find(tiny_base, [tiny_base, tiny_base], validation=0.0)
    assert len(found.coefficients) == 2
    assert np.isfinite(found.coefficients).all()


def test_infonce_of_graded_pairs_goes_with_what_does_not_measure_their_grades(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    """They are pairs without grades then, which the default search takes as such."""
    probe, pairs_alone = records(), {"pairs": records()["pairs"]}
    given = PositioningSettings(search="sgd", steps=1, sts_loss="infonce")
    with pytest.raises(SelfposError, match="sts_loss infonce leaves the pairs of task graded no grade"):
        check(probe, given, seed=0)
    with pytest.raises(SelfposError, match="it goes with 'validation: 0'"):
        position(tiny_base, tiny_specialists, probe, given, seed=0, device="cpu")
    check(pairs_alone, given, seed=0)
    check(probe, PositioningSettings(preset="paper"), seed=0)
    settings = PositioningSettings(sts_loss="infonce", rounds=1)
    found = position(tiny_base, tiny_specialists, probe, settings, seed=0, device="cpu")
    assert set(found.scores) == {"pairs", "graded"}


def test_one_vector_has_two_coefficients_where_the_space_has_a_scale() -> None:
    pytest.importorskip("cma")
    check(records(), PositioningSettings(search="cma-es", space="spherical"), seed=0, vectors=1)
    with pytest.raises(SelfposError, match="needs two coefficients or more"):
        check(records(), PositioningSettings(search="cma-es"), seed=0, vectors=1)


def test_that_halves_share_texts_is_said_once(
    tiny_base: Path, tiny_specialists: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    probe = records()
    crowded = Dataset.from_dict({"anchor": words(24, 0), "positive": ["a b"] * 12 + ["c d"] * 12})
    probe["pairs"] = ProbeTask("pairs", get_task("retrieval"), crowded)
    settings = PositioningSettings(search="sgd", steps=1, temperature=1.0)
    check(probe, settings, seed=0)
    position(tiny_base, tiny_specialists, probe, settings, seed=0, device="cpu")
    assert caplog.text.count("task pairs share texts") == 1 and "task graded share" not in caplog.text
