from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from selfpos.errors import OperationError, SelfposError
from selfpos.evaluation import evaluate
from selfpos.evaluation.embed import EncodingOptions
from selfpos.evaluation.encoder import Embedder, identity, load_encoder
from selfpos.evaluation.forecast import Forecast, _StandIn, forecast
from selfpos.evaluation.tasks import with_data
from tests.helpers.command import CommandLine

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

MakeTask = Callable[..., "AbsTask"]


def test_texts_are_those_that_scoring_embeds(
    tiny_base: Path, tmp_path: Path, sts_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [sts_task(), sts_task("selfpos-Other", seed=1), sts_task("selfpos-Again", seed=1)]
    expected = forecast(tiny_base, tasks, tmp_path / "scores")
    embedded: list[str] = []
    compute = Embedder._embedded

    def noted(self: Embedder, texts: list[str], *rest: object) -> object:
        embedded.extend(texts)
        return compute(self, texts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "_embedded", noted)
    evaluate(tiny_base, tasks, tmp_path / "scores")
    assert expected.texts == {"selfpos-TestSTS": 80, "selfpos-Other": 80, "selfpos-Again": 0}
    assert sum(expected.texts.values()) == len(embedded) == len(set(embedded))
    assert expected.embedding > 0
    assert expected.rest > 0


def test_scored_tasks_are_not_counted(tiny_base: Path, tmp_path: Path, sts_task: MakeTask) -> None:
    first, second = sts_task(), sts_task("selfpos-Other", seed=1)
    evaluate(tiny_base, [first], tmp_path)
    expected = forecast(tiny_base, [first, second], tmp_path)
    assert expected.scored == ["selfpos-TestSTS"]
    assert expected.texts == {"selfpos-Other": 80}


def test_a_dry_run_where_all_is_scored_loads_no_model(
    tiny_base: Path, tmp_path: Path, sts_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(tiny_base, [sts_task()], tmp_path)
    monkeypatch.setattr("selfpos.evaluation.forecast.load_encoder", lambda *_: pytest.fail("loaded"))
    assert forecast(tiny_base, [sts_task()], tmp_path) == Forecast({}, ["selfpos-TestSTS"], 0.0, 0.0)


def test_texts_in_the_cache_are_not_counted(tiny_base: Path, tmp_path: Path, sts_task: MakeTask) -> None:
    tasks, cache = [sts_task(), sts_task("selfpos-Other", seed=1)], tmp_path / "cache"
    evaluate(tiny_base, tasks[:1], tmp_path / "scores", cache=cache)
    kept = sorted(cache.rglob("*"))
    other = tmp_path / "elsewhere"
    assert forecast(tiny_base, tasks, other, cache=cache).texts == {"selfpos-TestSTS": 0, "selfpos-Other": 80}
    assert forecast(tiny_base, tasks, other).texts == {"selfpos-TestSTS": 80, "selfpos-Other": 80}
    forecast(tiny_base, tasks, other, cache=tmp_path / "none")
    assert sorted(cache.rglob("*")) == kept and not (tmp_path / "none").exists()


def test_of_a_half_finished_task_only_the_rest_counts(
    tiny_base: Path, tmp_path: Path, sts_task: MakeTask
) -> None:
    from mteb.abstasks import AbsTaskSTS

    one, two = (sts_task("selfpos-Two", seed=seed) for seed in (0, 1))
    for part in (one, two):
        part.load_data()
    data = {"one": one.dataset, "two": two.dataset}
    languages = {subset: ["eng-Latn"] for subset in data}
    metadata = one.metadata.model_copy(update={"eval_langs": languages})
    task = with_data(AbsTaskSTS, metadata, lambda: data, transforms=False)
    assert forecast(tiny_base, [task], tmp_path).texts == {"selfpos-Two": 160}
    file = evaluate(tiny_base, [task], tmp_path)["selfpos-Two"].file
    result = json.loads(file.read_text())
    result["scores"]["test"] = [part for part in result["scores"]["test"] if part["hf_subset"] == "one"]
    file.write_text(json.dumps(result))
    expected = forecast(tiny_base, [task], tmp_path)
    assert expected.texts == {"selfpos-Two": 80} and not expected.scored


def test_a_damaged_result_stays_where_it_is(tiny_base: Path, tmp_path: Path, sts_task: MakeTask) -> None:
    file = evaluate(tiny_base, [sts_task()], tmp_path)["selfpos-TestSTS"].file
    file.write_text("{")
    assert forecast(tiny_base, [sts_task()], tmp_path).texts == {"selfpos-TestSTS": 80}
    assert file.read_text() == "{"


def test_a_task_that_fails_is_named(tiny_base: Path, tmp_path: Path, failing_task: AbsTask) -> None:
    with pytest.raises(OperationError, match=r"selfpos-Failing fails on .*not there; leave it out"):
        forecast(tiny_base, [failing_task], tmp_path)


def test_what_a_prompt_costs_whatever_follows_counts_once(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds: ten for each prompt, and a hundredth for each text."""
    encoder = load_encoder(tiny_base, identity(tiny_base, "tiny"))
    stand_in = _StandIn(encoder)
    for prompt in ("query: ", "passage: "):
        options = EncodingOptions(prompt, None)
        stand_in.texts |= {(f"text {number}", options): encoder.model.encode for number in range(1000)}
    monkeypatch.setattr(
        stand_in, "_embed", lambda some, _: 10 * len({options for _, options in some}) + len(some) / 100
    )
    assert stand_in.seconds(32) == pytest.approx(20 + 20, rel=0.02)


def test_what_scoring_refuses_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match="no tasks"):
        forecast(tiny_base, [], tmp_path)


def test_command_says_texts_and_time_and_writes_nothing(
    selfpos: CommandLine, tiny_base: Path, tmp_path: Path
) -> None:
    words = ("eval-mteb", tiny_base, "--tasks", "PythonDocsSeeAlsoPairs", "--out", tmp_path / "scores")
    done = selfpos(*words, "--dry-run")
    assert done.returncode == 0
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    count = int(lines["texts"].partition(",")[0])
    assert lines["texts"] == f"{count}, each once: PythonDocsSeeAlsoPairs {count}"
    assert lines["time"].startswith("about ")
    assert list(tmp_path.iterdir()) == []
    selfpos(*words)
    again = selfpos(*words, "--dry-run").stdout
    assert again.splitlines()[1:] == [
        "scored        PythonDocsSeeAlsoPairs: not scored again",
        "time          none",
    ]
    refused = selfpos(*words, "--dry-run", "--ray", "auto")
    assert refused.returncode == 2
    assert "leave out --ray" in refused.stderr
