"""Whole operations on a tiny model, called as Python users and the verbs call them."""

from __future__ import annotations

import json
import math
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import selfpos
from selfpos.data.probe import ProbeTask
from selfpos.errors import SelfposError
from selfpos.operations import check_finetune, finetune, merge, probe_of
from selfpos.recipe import LoraSettings, PositioningSettings, TaskSource, TrainingSettings
from selfpos.searched_merge import position_and_merge
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest, write_manifest
from selfpos.tasks import get_task
from tests.helpers.files import write_lines
from tests.helpers.stand_ins import interrupt_second_gradient, pairs

SEARCH = PositioningSettings(search="sgd", steps=3, batch_size=8, validation=0.0)


def specialist(base: Path, data: Path, out: Path, **settings: object) -> Path:
    """Train `out` for one step on forty made-up pairs, which are written to `data` first."""
    lines = [
        json.dumps({"anchor": f"word {data.stem} {n}", "positive": f"about {n} {data.stem}"})
        for n in range(40)
    ]
    data.write_text("\n".join(lines), encoding="utf-8")
    training = TrainingSettings(steps=1, batch_size=8, max_length=16, **settings)
    finetune(
        str(base),
        TaskSource(type="retrieval", data=str(data)),
        out,
        training,
        probe=16,
        say=lambda text: None,
    )
    return out


def test_a_path_is_a_word_or_a_path(tiny_base: Path, tmp_path: Path) -> None:
    sources = [specialist(tiny_base, tmp_path / f"{name}.jsonl", tmp_path / name) for name in ("one", "two")]
    words = [str(source) for source in sources]
    file = tmp_path / "found.json"
    selfpos.position_and_merge(
        tiny_base, words, selfpos.probe_of(words), SEARCH, str(tmp_path / "out"), coefficients=file
    )
    again = selfpos.merge_by_coefficients(str(file), str(tiny_base), sources, str(tmp_path / "again"))
    assert content_hash(again) == content_hash(tmp_path / "out")
    assert selfpos.merge(tiny_base, words, "average", str(tmp_path / "mean")) == tmp_path / "mean"
    assert selfpos.TaskSource(type="sts", data=tmp_path / "x.csv").data == str(tmp_path / "x.csv")


def test_every_public_name_is_there_and_stays() -> None:
    assert all(callable(getattr(selfpos, name)) for name in selfpos.__all__)
    modules = {module.name for module in pkgutil.iter_modules(selfpos.__path__)}
    assert not modules & set(selfpos.__all__)  # importing one would put it in the function's place


def test_adapters_are_positioned_and_written_as_one_adapter_when_asked(
    tiny_base: Path, tmp_path: Path
) -> None:
    lora = LoraSettings(rank=2)
    sources = [
        specialist(tiny_base, tmp_path / f"{name}.jsonl", tmp_path / name, lora=lora)
        for name in ("one", "two")
    ]
    found = position_and_merge(
        str(tiny_base), sources, probe_of(sources), SEARCH, tmp_path / "out", output="adapter"
    )
    assert found.names == ["one", "two"]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_what_cannot_be_written_is_refused_before_the_search(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpos.positioning.position.position", lambda *_, **__: pytest.fail("it searched"))
    with pytest.raises(SelfposError, match="adapter"):
        position_and_merge(
            str(tiny_base), tiny_specialists, {"pairs": pairs()}, SEARCH, tmp_path / "out", output="adapter"
        )
    (tmp_path / "out").mkdir()
    with pytest.raises(SelfposError, match="exists"):
        position_and_merge(str(tiny_base), tiny_specialists, {"pairs": pairs()}, SEARCH, tmp_path / "out")


def test_a_merge_killed_at_the_last_moment_is_whole_with_its_card(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    """The process dies as soon as the folder is at its place: nothing that belongs to it was still to be
    written."""
    program = f"""
import os, signal
from pathlib import Path
from selfpos.operations import merge
from selfpos.storage import atomic

rename = atomic.publish
def publish_and_die(folder, out):
    rename(folder, out)
    os.kill(os.getpid(), signal.SIGKILL)

atomic.publish = publish_and_die
vectors = {[str(path) for path in tiny_specialists]!r}
merge({str(tiny_base)!r}, vectors, "average", Path({str(tmp_path / "out")!r}))
"""
    killed = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert {path.name for path in tmp_path.iterdir()} - {".out.lock"} == {
        "out"
    }  # of a killed process a lock stays
    assert "# out\n" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_card_that_fails_costs_no_merge(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no card today")

    monkeypatch.setattr("selfpos.publishing.card.build_card", broken)
    with caplog.at_level("WARNING", "selfpos"):
        merge(str(tiny_base), tiny_specialists, "average", tmp_path / "out")
    assert "out has no card: ZeroDivisionError: no card today" in caplog.text
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize("keep", [True, False])
def test_ctrl_c_in_the_search(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    interrupt_second_gradient(monkeypatch)
    probe, record = (
        {"pairs": ProbeTask("pairs", get_task("retrieval"), pairs().dataset)},
        tmp_path / "record.json",
    )
    if keep:
        assert (
            position_and_merge(
                str(tiny_base), tiny_specialists, probe, SEARCH, tmp_path / "out", record=record
            ).steps
            == 1
        )
        assert read_manifest(tmp_path / "out")["positioning"]["interrupted"] is True
        return
    with pytest.raises(KeyboardInterrupt):
        position_and_merge(
            str(tiny_base),
            tiny_specialists,
            probe,
            SEARCH,
            tmp_path / "out",
            record=record,
            trajectory=tmp_path / "way.jsonl",
            keep_interrupted=False,
        )
    assert not [path for path in tmp_path.iterdir() if path.name != ".out.search"]


@pytest.mark.parametrize(
    "error",
    [SelfposError("no"), KeyboardInterrupt()],
    ids=["what cannot be", "stopped before the first point"],
)
def test_a_search_that_came_to_nothing_leaves_nothing(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    from selfpos.positioning.selection import Selection

    def failing(*args: object) -> object:
        raise error

    monkeypatch.setattr(Selection, "measure", failing)
    settings = PositioningSettings(search="sgd", steps=1)
    probe = {"pairs": ProbeTask("pairs", get_task("retrieval"), pairs().dataset)}
    with pytest.raises(type(error)):
        position_and_merge(
            str(tiny_base),
            tiny_specialists,
            probe,
            settings,
            tmp_path / "out",
            trajectory=tmp_path / "way.jsonl",
        )
    assert not list(tmp_path.iterdir())


def test_specialists_with_one_folder_name_keep_a_probe_each(tiny_base: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        specialist(tiny_base, tmp_path / f"{name}.jsonl", tmp_path / name / "model")
    probe = probe_of([tmp_path / "one" / "model", tmp_path / "two" / "model"])
    assert list(probe) == ["one/model", "two/model"]
    assert "about" in probe["one/model"].records[0]["positive"]
    assert set(probe["one/model"].records["anchor"]).isdisjoint(probe["two/model"].records["anchor"])


def test_the_specialists_of_a_run_bring_what_the_run_held_out(tmp_path: Path) -> None:
    records = {
        "faq": {"type": "retrieval", "record": {"anchor": "Why?", "positive": "So."}},
        "tickets": {"type": "classification", "record": {"text": "late", "label": "card"}},
    }
    (tmp_path / "probe").mkdir()
    write_lines(tmp_path / "probe" / "probe.jsonl", [{"task": task} | line for task, line in records.items()])
    for task in records:
        (tmp_path / "specialists" / task).mkdir(parents=True)
    probe = probe_of([tmp_path / "specialists" / "tickets", tmp_path / "specialists" / "faq"])
    assert list(probe) == ["tickets", "faq"]
    assert {name: task.type.name for name, task in probe.items()} == {
        name: line["type"] for name, line in records.items()
    }
    assert probe["faq"].records.to_list() == [records["faq"]["record"]]


def test_an_adapter_finds_its_base_from_any_working_folder(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    monkeypatch.chdir(tiny_base.parent)
    specialist(Path(tiny_base.name), tmp_path / "data.jsonl", tmp_path / "adapter", lora=LoraSettings(rank=2))
    monkeypatch.chdir(tmp_path)
    adapted = SentenceTransformer(str(tmp_path / "adapter"), device="cpu", local_files_only=True)
    assert (
        adapted.encode("a b c").shape
        == SentenceTransformer(str(tiny_base), device="cpu").encode("a b c").shape
    )


def test_data_that_is_not_there_names_the_specialist_and_the_way_out(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    specialist(tiny_base, Path("data.jsonl"), tmp_path / "one")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        SelfposError, match=r"the probe of \S*one is drawn .*data 'data.jsonl': there is no .* --probe FOLDER"
    ):
        probe_of([tmp_path / "one"])
    for damaged in ("no", {"probe": 3}):
        write_manifest(tmp_path / "one", {"finetune": damaged})
        with pytest.raises(SelfposError, match=r"does not say which records were held out|field 'finetune'"):
            probe_of([tmp_path / "one"])


def test_numbers_that_are_not_finite_are_a_fault_of_the_data_not_of_the_probe(
    tiny_base: Path, tmp_path: Path
) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text(
        "".join(
            json.dumps({"sentence1": f"a {n}", "sentence2": f"b {n}", "score": math.nan}) + "\n"
            for n in range(40)
        )
    )
    with pytest.raises(
        SelfposError,
        match=r"^data '\S*pairs.jsonl': column 'score' of task type sts holds numbers that are not finite; "
        "leave those records out$",
    ):
        finetune(
            str(tiny_base),
            TaskSource(type="sts", data=str(data)),
            tmp_path / "out",
            TrainingSettings(steps=1),
            probe=8,
        )


def test_a_probe_that_gives_no_batch_is_refused_before_the_training(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpos.operations.train", lambda *_, **__: pytest.fail("it trained"))
    data = tmp_path / "labels.jsonl"
    data.write_text(
        "".join(json.dumps({"text": f"word {n}", "label": n // 2}) + "\n" for n in range(40)),
        encoding="utf-8",
    )
    source = TaskSource(type="classification", data=str(data))
    with pytest.raises(
        SelfposError,
        match=r"no batch can be drawn from the 3 records held out for a probe: .*; give --probe more of them",
    ):
        finetune(
            str(tiny_base),
            source,
            tmp_path / "out",
            TrainingSettings(steps=1),
            probe=3,
            say=lambda text: None,
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("asked", "taken"), [(16, 16), (20, 20), (21, 10), (256, 10), (0, 0)])
def test_a_probe_leaves_enough_to_train_on(tiny_base: Path, tmp_path: Path, asked: int, taken: int) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(f'{{"anchor": "word {n}", "positive": "about {n}"}}\n' for n in range(40)))
    lines: list[str] = []
    check_finetune(
        str(tiny_base),
        TaskSource(type="retrieval", data=str(data)),
        tmp_path / "out",
        TrainingSettings(steps=1),
        probe=asked,
        say=lines.append,
    )
    assert lines[-1] == f"would train on {40 - taken} records, and hold out {taken} for a probe"
    said = f"probe: 10 of 40 records are held out, for {asked} are more than half"
    assert (said in lines) == (asked > 20)


def test_a_probe_that_other_code_drew_is_not_drawn_again(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else records that a specialist was trained on would be searched on."""
    model = specialist(tiny_base, tmp_path / "one.jsonl", tmp_path / "one")
    assert probe_of([model])
    monkeypatch.setattr(
        "selfpos.operations.hold_out",
        lambda data, count, seed: (data.select(range(count, 40)), data.select(range(count))),
    )
    with pytest.raises(
        SelfposError,
        match=r"other records were held out of the data of .*one.* give a probe set with --probe FOLDER",
    ):
        probe_of([model])


def test_a_merge_does_not_wait_for_torch() -> None:
    print_loaded = "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    program = f"import sys, selfpos.searched_merge; {print_loaded}"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_what_windows_lacks_is_not_needed_to_import(tmp_path: Path) -> None:
    file = tmp_path / "file"
    program = (
        "import signal, sys\ndel signal.SIGHUP\nsys.modules |= dict.fromkeys(['fcntl', 'resource'])\n"
        "import selfpos.cli, selfpos.operations, selfpos.storage.atomic, selfpos.training.outside\n"
        "from pathlib import Path\nselfpos.storage.atomic.write_text(Path(sys.argv[1]), 'whole')"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)
    assert file.read_text() == "whole"
