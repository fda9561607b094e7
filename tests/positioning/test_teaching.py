"""Searches on texts without labels: who teaches, what is matched, and who is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch.nn import functional

from selfpos.data.probe import ProbeTask
from selfpos.errors import SelfposError
from selfpos.positioning.draws import split_probe
from selfpos.positioning.live import LiveModel
from selfpos.positioning.matching import Agreement, Matching, similarities
from selfpos.positioning.position import check, position
from selfpos.positioning.teaching import SOUND, teach
from selfpos.recipe import PositioningSettings
from selfpos.storage.manifest import read_manifest
from selfpos.tasks.texts import GENERAL, TEXTS
from tests.helpers.command import CommandLine, said
from tests.helpers.models import make_specialist
from tests.helpers.stand_ins import make_live, pairs, words


def texts(name: str, seed: int, count: int = 40) -> ProbeTask:
    distinct = list(dict.fromkeys(words(2 * count, seed)))[:count]
    return ProbeTask(name, TEXTS, Dataset.from_dict({"text": distinct}))


def probe(*names: str) -> dict[str, ProbeTask]:
    return {name: texts(name, 10 + index) for index, name in enumerate(names)}


def test_matching_is_the_divergence_of_softmaxed_cosines_to_other_texts() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(6, 4, generator=generator) for _ in range(2))
    measure = Matching([str(n) for n in range(6)], similarities(theirs), 0.1, unit=0.5)
    rows, others = torch.tensor([1, 4]), torch.tensor([0, 1, 2])
    expected = []
    for i in (1, 4):
        shares = []
        for embeddings in (ours, theirs):
            units = functional.normalize(embeddings.double(), dim=1)
            shares.append(
                torch.softmax(torch.stack([units[i] @ units[j] for j in (0, 1, 2) if j != i]) / 0.1, 0)
            )
        expected.append(float((shares[1] * (shares[1] / shares[0]).log()).sum()) / 0.5)
    found, values = measure.values(ours, rows, others)
    assert found.tolist() == [1, 4]
    assert values.tolist() == pytest.approx(expected, rel=1e-4)
    assert float(measure.value(theirs)) == pytest.approx(0, abs=1e-6)


def test_agreement_is_a_correlation_and_one_with_the_teacher_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(6, 4, generator=generator) for _ in range(2))
    measure = Agreement([str(n) for n in range(6)], similarities(theirs), of_base=False)
    assert measure.score(theirs) == 1.0
    cosines = [similarities(e) for e in (ours, theirs)]
    rows = [torch.stack([c[i][torch.arange(6) != i] for c in cosines]) for i in range(6)]
    expected = sum(float(torch.corrcoef(row)[0, 1]) for row in rows) / 6
    assert measure.score(ours) == pytest.approx(expected, abs=1e-6)


def test_one_specialist_and_the_base_as_teachers_meet_between(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    """Own texts pull to 1 and general ones to 0."""
    tasks, settings = probe("alpha", GENERAL), PositioningSettings(rounds=3)
    found = position(tiny_base, tiny_specialists[:1], tasks, settings, seed=0, device="cpu")
    assert 0.1 < found.coefficients[0] < 0.9
    assert found.teaching is not None
    assert found.teaching.teachers == {"alpha": "alpha", GENERAL: "base"}
    assert found.teaching.agreement[GENERAL]["base"] == 1.0
    alone = position(tiny_base, tiny_specialists[:1], probe("alpha"), settings, seed=0, device="cpu")
    assert alone.coefficients == [pytest.approx(1.0, abs=0.05)]
    assert alone.scores["alpha"] > 0.99


def test_texts_and_records_go_together(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    tasks = {"pairs": pairs(), **probe("beta")}
    settings = PositioningSettings(rounds=1)
    found = position(tiny_base, tiny_specialists[:2], tasks, settings, seed=0, device="cpu")
    assert set(found.losses) == {"pairs", "beta"}


def test_teachers_are_rivals_without_being_embedded_again(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, embedded = LiveModel.embed, []

    def embed(self: LiveModel, texts: list[str]) -> torch.Tensor:
        embedded.append([float(parameter.sum()) for parameter in self.parameters.values()])
        return original(self, texts)

    monkeypatch.setattr(LiveModel, "embed", embed)
    settings = PositioningSettings(rounds=1)
    found = position(tiny_base, tiny_specialists[:2], probe("alpha", "beta"), settings, seed=0, device="cpu")
    assert [rival.name for rival in found.rivals][:3] == ["base", "alpha", "beta"]
    assert len(embedded) == len({tuple(point) for point in embedded})


@pytest.fixture
def sound(tiny_base: Path, tmp_path: Path) -> list[Path]:
    """Two specialists that moved as little as those of real tasks do."""
    names = enumerate(("alpha", "beta"), start=1)
    return [make_specialist(tiny_base, tmp_path / name, seed=seed, size=0.01) for seed, name in names]


def test_a_specialist_of_noise_is_no_teacher(
    tiny_base: Path, sound: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = make_specialist(tiny_base, tmp_path / "noise", seed=9, size=1.0)
    live = make_live(tiny_base, [*sound, noise])
    tasks, _ = split_probe(probe("alpha", "beta", "noise", GENERAL), 0.0, 0, 0.05)
    _, teaching = teach(live, tasks)
    assert teaching is not None
    assert teaching.teachers == {"alpha": "alpha", "beta": "beta", "noise": "base", GENERAL: "base"}
    assert teaching.with_base["noise"] < SOUND < min(teaching.with_base[name] for name in ("alpha", "beta"))
    assert teaching.shared["noise"] < SOUND
    assert "specialist noise is not used as a teacher" in caplog.text


@pytest.mark.parametrize(
    ("task", "who"), [("same", "same and the base"), (GENERAL, "same and twin and the base")]
)
def test_a_vector_that_changes_nothing_teaches_nothing(
    tiny_base: Path, tmp_path: Path, task: str, who: str
) -> None:
    still = [make_specialist(tiny_base, tmp_path / name, seed=1, size=0.0) for name in ("same", "twin")]
    with pytest.raises(SelfposError, match=f"task {task}: {who} find the same similarities"):
        position(tiny_base, still, probe(task), PositioningSettings(), seed=0, device="cpu")


def test_texts_with_the_name_of_no_vector_are_refused(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    with pytest.raises(SelfposError, match="alpah"):
        position(tiny_base, tiny_specialists[:1], probe("alpah"), PositioningSettings(), seed=0, device="cpu")


def test_texts_that_are_cut_are_said(
    tiny_base: Path, tiny_specialists: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    tasks = probe("alpha")
    longer = [*tasks["alpha"].records["text"][:], "a b c " * 40]
    tasks["alpha"] = ProbeTask("alpha", TEXTS, Dataset.from_dict({"text": longer}))
    teach(make_live(tiny_base, tiny_specialists[:1]), split_probe(tasks, 0.0, 0, 0.05)[0])
    assert "1 of 41 texts are longer than the model reads (32 tokens)" in caplog.text


def test_another_search_has_no_use_for_texts() -> None:
    with pytest.raises(SelfposError, match="texts without labels have no loss for search sgd"):
        check(probe("alpha"), PositioningSettings(search="sgd"), seed=0)


# As a user types it


def text_file(folder: Path, name: str, seed: int) -> str:
    file = folder / f"{name}.txt"
    file.write_text("\n".join(texts(name, seed).records["text"]), encoding="utf-8")
    return f"{name}={file}"


def merged(selfpos: CommandLine, base: Path, sources: list[Path], out: Path, *words: str, **call: Path):
    method = ("--method", "self-positioning")
    return selfpos("merge", "--base", base, "--vectors", *sources, *method, "--out", out, *words, **call)


@pytest.mark.slow
def test_models_without_manifests_merge_by_texts_alone(
    selfpos: CommandLine, tiny_base: Path, sound: list[Path], tmp_path: Path
) -> None:
    given = [text_file(tmp_path, name, seed) for seed, name in enumerate(("alpha", "beta", GENERAL))]
    done = merged(selfpos, tiny_base, sound, tmp_path / "out", "--texts", *given)
    assert done.returncode == 0, done.stderr
    assert "texts of alpha: 40 texts of" in done.stderr
    assert "agreement of similarities" in done.stderr
    search = read_manifest(tmp_path / "out")["positioning"]
    assert search["teaching"]["teachers"] == {GENERAL: "base", "alpha": "alpha", "beta": "beta"}
    assert search["probe"]["alpha"] == {"type": "texts", "records": 40}
    again = selfpos(
        "merge", "--base", tiny_base, "--vectors", *sound, "--out", tmp_path / "again",
        "--coefficients", tmp_path / "out.coefficients.json",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "again")]
    assert weights[0] == weights[1]


def test_a_dry_run_names_texts_and_writes_nothing(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    given = [text_file(tmp_path, name, seed) for seed, name in enumerate(("alpha", GENERAL))]
    done = merged(selfpos, tiny_base, tiny_specialists[:1], tmp_path / "o", "--texts", *given, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "searched on general (40 records), alpha (40 records)" in done.stdout
    assert "texts, embedded at 6 to 10 points: about " in done.stdout
    assert not (tmp_path / "o").exists()


def test_without_probe_and_texts_the_two_ways_out_are_named(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    sentence = said(merged(selfpos, tiny_base, tiny_specialists[:2], tmp_path / "out"))
    assert "--probe FOLDER" in sentence
    assert "--texts NAME=FILE" in sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--texts", "alpha"], "--texts takes NAME=FILE, found 'alpha'"),
        (["--texts", "alpah={file}"], "there is no vector named 'alpah'; did you mean 'alpha'?"),
        (["--texts", "alpha={file}"], "vector beta has no texts: give --texts beta=FILE"),
        (["--texts", "alpha={file}", "alpha={file}"], "--texts gives alpha twice"),
        (["--texts", "alpha=nowhere", "beta={file}", "general={file}"], "texts of alpha: there is no file"),
        (["--texts", "alpha={file}", "--probe", "x"], "--texts and --probe exclude each other"),
        (["--texts", "alpha={file}", "--method", "ties"], "--texts is for method self-positioning"),
    ],
)
def test_texts_that_do_not_fit_are_refused_in_a_sentence(
    selfpos: CommandLine,
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    words: list[str],
    sentence: str,
) -> None:
    file = text_file(tmp_path, "a", 1).partition("=")[2]
    given = [word.replace("{file}", file) for word in words]
    assert sentence in said(merged(selfpos, tiny_base, tiny_specialists[:2], tmp_path / "out", *given))


def test_the_prompt_for_documents_goes_before_plain_texts(tiny_base: Path, tmp_path: Path) -> None:
    import shutil

    from selfpos.operations import texts_of

    shutil.copytree(tiny_base, tmp_path / "base")
    config = tmp_path / "base" / "config_sentence_transformers.json"
    content = json.loads(config.read_text()) | {"prompts": {"query": "q: ", "passage": "p: "}}
    config.write_text(json.dumps(content))
    sources = dict(text_file(tmp_path, name, seed).split("=") for seed, name in enumerate(("alpha", GENERAL)))
    tasks = texts_of(tmp_path / "base", [tmp_path / "alpha"], sources, say=lambda line: None)
    assert all(text.startswith("p: ") for text in tasks["alpha"].dataset["text"])


def test_general_texts_are_without_those_of_the_vectors(tiny_base: Path, tmp_path: Path) -> None:
    from selfpos.operations import texts_of

    sources = dict(text_file(tmp_path, name, seed).split("=") for seed, name in enumerate(("alpha", GENERAL)))
    taught = Path(sources["alpha"]).read_text(encoding="utf-8").splitlines()
    general = Path(sources[GENERAL]).read_text(encoding="utf-8").splitlines()
    Path(sources[GENERAL]).write_text("\n".join([*taught[:5], *general]), encoding="utf-8")
    said: list[str] = []
    tasks = texts_of(tiny_base, [tmp_path / "alpha"], sources, say=said.append)
    assert list(tasks) == [GENERAL, "alpha"]
    assert tasks[GENERAL].records["text"][:] == general
    assert said[1].endswith("(left out: 5 of others)")
