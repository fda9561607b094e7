"""Self Positioning over cross-encoders: by the order of each question's candidates."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from selfpos import operations
from selfpos.data.probe import ProbeTask, write_probe
from selfpos.errors import SelfposError
from selfpos.positioning.draws import split_probe
from selfpos.positioning.folds import LARGEST, Folds, check_records
from selfpos.positioning.live import LiveModel, check_live
from selfpos.positioning.objective import Batch, PairProbe
from selfpos.positioning.smooth import ScoredPairs
from selfpos.recipe import TaskSource, TrainingSettings
from selfpos.storage.model_folder import open_model
from selfpos.tasks import get_task
from selfpos.tasks.measure import PairMeasure
from selfpos.tasks.types.candidates import CandidatePairs
from selfpos.training.validation import task_measure
from tests.helpers.adapters import edit_json, state
from tests.helpers.command import CommandLine
from tests.helpers.rerankers import default_prompt_of, questions, reranker
from tests.helpers.searches import OTHER_SEARCHES, assert_is_position


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, with a default prompt, and two specialists of it, each of which tells two words apart."""
    place = tmp_path_factory.mktemp("rerankers")
    base = reranker(place)
    edit_json(base / "config_sentence_transformers.json", **default_prompt_of("h i: "))
    settings = TrainingSettings(steps=60, batch_size=32, learning_rate=3e-3)
    for name, right, wrong in (("one", "a", "b"), ("two", "c", "q")):
        source = TaskSource(type="reranking", data=str(questions(place / f"{name}.jsonl", right, wrong)))
        operations.finetune(base, source, place / name, settings, say=lambda _: None)
    return place


def by_hand(folder: Path, task: ProbeTask) -> tuple[float, float]:
    """The mean over questions and right candidates of −log softmax among the wrong ones, in float64, and mean
    average precision.
    """
    from sentence_transformers import CrossEncoder
    from sklearn.metrics import average_precision_score

    model = CrossEncoder(str(folder), device="cpu")
    found, precisions = [], []
    for record in task.records:
        candidates = [*record["positive"], *record["negative"]]
        right = np.array([1.0] * len(record["positive"]) + [0.0] * len(record["negative"]))
        pairs = [(record["query"], candidate) for candidate in candidates]
        found.append(model.predict(pairs, activation_fn=torch.nn.Identity()).astype(np.float64))
        precisions.append(average_precision_score(right, found[-1]))
    unit = 0.5 * np.sqrt(np.mean(np.concatenate([scores - scores.mean() for scores in found]) ** 2))
    losses = [
        np.mean([np.log(1 + np.exp((scores[count:] - one) / unit).sum()) for one in scores[:count]])
        for scores, count in zip(found, (len(record["positive"]) for record in task.records), strict=True)
    ]
    return float(np.mean(losses)), float(np.mean(precisions))


@pytest.mark.slow
@pytest.mark.parametrize("given", ["what was held out", "a probe set"])
def test_two_rerankers_are_positioned(
    given: str, trained: Path, tmp_path: Path, selfpos: CommandLine
) -> None:
    out = tmp_path / "out"
    sources = [trained / "one", trained / "two"]
    probe = operations.probe_of(sources)
    assert all(isinstance(task.type, CandidatePairs) for task in probe.values())
    more: list[Any] = []
    if given == "a probe set":
        records = {name: task.records for name, task in probe.items()}
        write_probe(tmp_path / "probe", records, {name: get_task("reranking") for name in probe})
        more = ["--probe", tmp_path / "probe"]
    merge = ["merge", "--base", trained / "base", "--vectors", *sources, "--method", "self-positioning"]
    merge += ["--param", "separate=false"]
    assert selfpos(*merge, "--out", out, *more, "--dry-run").returncode == 0 and not out.exists()
    done = selfpos(*merge, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "selfpos.json").read_text())["positioning"]
    start, tuned, merged = state(trained / "base"), [state(source) for source in sources], state(out)
    for key, value in merged.items():
        moved = sum(c * (t[key] - start[key]) for c, t in zip(found["coefficients"], tuned, strict=True))
        np.testing.assert_allclose(value, start[key] + moved, atol=2e-6, err_msg=key)
    measured = {name: by_hand(out, task) for name, task in probe.items()}
    for name, (loss, _) in measured.items():
        assert found["losses"][name] == pytest.approx(loss, rel=1e-3, abs=1e-5)
    rivals = {rival["name"]: rival["scores"] for rival in found["rivals"]}
    for name, folder in (("base", trained / "base"), ("one", sources[0]), ("two", sources[1])):
        for task in probe:
            assert rivals[name][task] == pytest.approx(by_hand(folder, probe[task])[1], abs=1e-6)
    mean = np.mean([precision for _, precision in measured.values()])
    assert mean > 0.9 and mean >= max(np.mean([*scores.values()]) for scores in rivals.values())


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_smooth_measure_is_of_the_order_within_a_question(scale: float) -> None:
    pairs = [("q", "x"), ("q", "y"), ("r", "x"), ("r", "z"), ("r", "w"), ("s", "x")]
    grades = torch.tensor([1.0, 0.0, 0.3, 0.9, 1.0, 1.0])
    plain = torch.tensor([[2.0], [-1.0], [0.5], [0.0], [1.0], [9.0]])
    levels = torch.tensor([[5.0], [5.0], [-3.0], [-3.0], [-3.0], [0.0]])
    scores = (scale * plain + levels).requires_grad_()
    measure = ScoredPairs(pairs, grades, 0.5, 0.5)
    gaps = np.array([1.5, -1.5, 0.0, -0.5, 0.5, 0.0])
    unit = 0.5 * np.sqrt(np.mean(gaps**2))
    costs = [np.log1p(np.exp(-3 / unit)), np.mean(np.log1p(np.exp(np.array([0.5, -0.5]) / unit)))]
    rows, values = measure.values(scores, torch.arange(3), torch.arange(3))
    assert rows.tolist() == [0, 1] and values.tolist() == pytest.approx(costs, rel=1e-4)
    assert measure.value(scores).item() == pytest.approx(np.mean(costs), rel=1e-4)
    measure.value(scores).backward()
    assert scores.grad is not None and bool(torch.isfinite(scores.grad).all())
    assert measure.sharing == [{"q", "x"}, {"r", "z", "w"}, {"s", "x"}] and measure.usable == 2
    precision = PairMeasure(pairs, grades.tolist(), 0.5)
    items = precision.items(scores.detach())
    assert items["precisions"][0] == 1.0 and np.isnan(items["precisions"][2])


def test_a_batch_holds_pairs() -> None:
    records = Dataset.from_dict({"query": ["q"], "candidate": ["x"], "label": [1.0]})
    batch = PairProbe("task", CandidatePairs(), records, 0.05).everything()
    assert isinstance(batch, Batch) and batch.columns == [[("q", "x")]] and batch.count == 1


def test_a_question_is_read_with_all_its_candidates_or_not_at_all() -> None:
    names = [f"q{number}" for number in range(LARGEST + 100)]
    records = Dataset.from_list(
        [
            {"query": name, "candidate": f"{side} of {name}", "label": label}
            for side, label in (("right", 1.0), ("wrong", 0.0))
            for name in names
        ]
    )
    kind = CandidatePairs()
    probe = PairProbe("task", kind, records, 0.05)
    (found,) = Folds({"task": probe}, 0.05, seed=0).tasks.values()
    assert found.measure.count == LARGEST and found.measure.usable == LARGEST
    drawn = probe.sample(LARGEST, seed=0)
    sides = Counter(question for question, _ in drawn.columns[0])
    assert len(sides) == LARGEST and set(sides.values()) == {2} and drawn.labels is not None
    assert drawn.labels.sum() == LARGEST and set(names[:LARGEST]) != set(sides)
    assert probe.sample(LARGEST + 100, seed=0).count == len(records)
    scored = np.arange(6)[:, None]
    measure = task_measure(kind, records, "", 3)
    assert len(measure.texts) == 6 and measure.score(torch.from_numpy(scored)) == pytest.approx(0.5)


@pytest.mark.parametrize("prompt", ["", "h i j: "])
def test_the_live_model_scores_a_pair_as_the_model_does(prompt: str, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    base = reranker(tmp_path)
    if prompt:
        edit_json(base / "config_sentence_transformers.json", **default_prompt_of(prompt))
    pairs: Any = [("d e", "a f g"), ("d e h", "b"), ("k", "l m n o p d e")]
    live = LiveModel(open_model(base), [], kind="CrossEncoder")
    expected = CrossEncoder(str(base), device="cpu").predict(pairs, activation_fn=torch.nn.Identity())
    with torch.no_grad():
        np.testing.assert_allclose(live.embed(pairs)[:, 0].numpy(), expected, atol=1e-6)
    assert live.by_length(pairs) == [1, 0, 2]


def test_a_base_with_several_outputs_is_refused(tmp_path: Path) -> None:
    base = reranker(tmp_path, num_labels=3)
    with pytest.raises(SelfposError, match="gives 3 numbers for a pair of texts"):
        check_live(open_model(base))


@pytest.mark.parametrize("grades", [[0.4, 0.1, 0.2, 0.3], [1.0, 0.9, 0.1, 0.0], [0.9, 0.1, 0.2, 0.3]])
def test_a_probe_needs_a_question_with_a_right_and_a_wrong_candidate(grades: list[float]) -> None:
    texts = {"query": ["q", "q", "r", "r"], "candidate": ["x", "y", "x", "y"], "label": grades}
    probe = PairProbe("task", CandidatePairs(), Dataset.from_dict(texts), 0.05)
    if grades == [0.9, 0.1, 0.2, 0.3]:
        check_records({"task": probe}, 0.05, seed=0)
        return
    with pytest.raises(SelfposError, match="no question has both a right and a wrong candidate"):
        check_records({"task": probe}, 0.05, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHER_SEARCHES)
def test_other_searches_position_rerankers(
    method: str, trained: Path, tmp_path: Path, selfpos: CommandLine
) -> None:
    base, sources, out = trained / "base", [trained / "one", trained / "two"], tmp_path / "out"
    merge = ["merge", "--base", base, "--vectors", *sources, "--out", out]
    done = selfpos(*merge, "--method", *OTHER_SEARCHES[method])
    assert done.returncode == 0, done.stderr
    assert "share texts" not in done.stderr
    assert_is_position(out, base, sources)
    probe = operations.probe_of(sources)
    before, after = (sum(by_hand(folder, task)[1] for task in probe.values()) for folder in (base, out))
    assert after > before


def test_a_question_is_searched_on_or_selected_by(trained: Path) -> None:
    probe = operations.probe_of([trained / "one", trained / "two"])
    search, validation = split_probe(probe, 0.4, 0, 0.05)
    for name, part in validation.items():
        asked, held = (set(side.dataset["query"]) for side in (search[name], part))
        assert asked and held and asked.isdisjoint(held)
        measure = part.measure_beside(search[name].everything(), part.everything())
        assert isinstance(measure, PairMeasure) and measure.judges
