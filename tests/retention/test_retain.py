"""`selfpos retain` as a user types it, on tiny models and on files of the kinds that people have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from selfpos import retaining
from selfpos.merging import merge
from selfpos.positioning.coefficients import as_weights
from selfpos.recipe import RetainSettings
from selfpos.report import figures
from selfpos.retention.path import ALPHAS, Embedder, Place
from selfpos.storage.manifest import read_manifest
from selfpos.storage.model_folder import open_model
from tests.helpers.command import CommandLine, said
from tests.helpers.models import make_specialist, make_tiny_model
from tests.helpers.retaining import pair_file, retain, text_file
from tests.helpers.stand_ins import make_live, words


def test_what_lies_between_embedded_points_is_interpolated(tiny_base: Path, tuned: Path) -> None:
    embedder = Embedder(make_live(tiny_base, [tuned]), words(20, 3))
    embedder.add_line("tuned", [1.0])
    line = embedder.lines["tuned"]
    assert sorted(line.known) == list(ALPHAS)
    ends = [torch.from_numpy(SentenceTransformer(str(f)).encode(embedder.texts)) for f in (tiny_base, tuned)]
    assert torch.allclose(line.known[0.0], ends[0], atol=1e-5)
    assert torch.allclose(line.known[1.0], ends[1], atol=1e-5)
    for alpha in (0.1, 0.4, 0.9):
        predicted = embedder.predicted(Place("tuned", alpha))
        exact = embedder.exactly(Place("tuned", alpha))
        assert float((predicted - exact).norm() / (exact - ends[0]).norm()) < 0.03
    assert torch.equal(embedder.predicted(Place("tuned", 0.4)), embedder.exactly(Place("tuned", 0.4)))


def test_a_ramp_gives_the_last_layer_more(tiny_base: Path, tuned: Path) -> None:
    embedder = Embedder(make_live(tiny_base, [tuned]), words(20, 3))
    embedder.add_line("tuned", [1.0])
    table = embedder.table(Place("tuned", 0.5, 0.4))
    of = dict(zip(embedder.live.keys, table[:, 0].tolist(), strict=True))
    assert of["encoder.layer.0.attention.self.query.weight"] == pytest.approx(0.3)
    assert of["encoder.layer.1.attention.self.query.weight"] == pytest.approx(0.7)
    assert of["embeddings.word_embeddings.weight"] == pytest.approx(0.3)
    embedder.add_ramp(Place("tuned", 0.5))
    place = Place("tuned", 0.5, 0.25)
    exact = embedder.exactly(place)
    moved = (exact - embedder.exactly(Place("tuned", 0.5))).norm()
    assert float((embedder.predicted(place) - exact).norm() / moved) < 0.05


def test_a_ramp_is_written_as_it_was_embedded(tiny_base: Path, tuned: Path, tmp_path: Path) -> None:
    embedder = Embedder(make_live(tiny_base, [tuned]), words(20, 3))
    embedder.add_line("tuned", [1.0])
    place = Place("tuned", 0.5, 0.4)
    table = embedder.table(place).tolist()
    weights = as_weights(table[0], dict(zip(embedder.live.keys, table, strict=True)))
    merge(tiny_base, [tuned], "linear", tmp_path / "out", weights=weights)
    written = SentenceTransformer(str(tmp_path / "out")).encode(embedder.texts)
    assert np.allclose(written, embedder.exactly(place), atol=1e-5)
    assert not np.allclose(written, embedder.exactly(Place("tuned", 0.5)), atol=1e-3)


@pytest.mark.slow
def test_plain_texts_and_plain_folders_are_enough(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    domain, general = text_file(tmp_path, "mine", 1), text_file(tmp_path, "other", 2)
    done = retain(selfpos, tiny_base, [tuned], tmp_path / "out", "--domain", domain, "--general", general)
    assert done.returncode == 0, done.stderr
    assert f"60 texts of {domain}" in done.stderr
    assert "gain kept" in done.stdout
    assert "% of the domain's gain" in done.stdout
    facts = json.loads((tmp_path / "out.front.json").read_text())
    assert facts["tasks"] == {"domain": ["mine"], "general": ["other"]}
    assert facts["tuned"]["domain"] == 1.0
    assert facts["base"]["general"] == 1.0
    assert facts["chosen"]["undone"] > 0.7
    assert facts["front"][0]["alpha"] == 0.0
    assert 0 < facts["chosen"]["alpha"] <= 1
    assert facts["drops"] == []
    assert facts["worst"]["task"] == "other"
    assert f"at worst {-100 * facts['worst']['worst']:.1f} points, of other" in done.stdout
    assert (tmp_path / "out.front.png").read_bytes()[:4] == b"\x89PNG"
    merged = SentenceTransformer(str(tmp_path / "out"))
    assert merged.encode(["a b c"]).shape == (1, 16)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "What was kept of the fine-tune" in card
    assert (tmp_path / "out" / "selfpos-front.png").is_file()
    assert read_manifest(tmp_path / "out")["retain"]["chosen"] == facts["chosen"]


@pytest.mark.slow
def test_the_model_written_is_the_point_that_was_measured(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    data = ("--domain", text_file(tmp_path, "mine", 1), "--general", text_file(tmp_path, "other", 2))
    done = retain(selfpos, tiny_base, [tuned], tmp_path / "out", *data, "--alpha", "0.3", "--space", "line")
    assert done.returncode == 0, done.stderr
    by_hand = selfpos(
        "merge", "--base", tiny_base, "--vectors", tuned, "--method", "linear", "--weights", "0.3",
        "--out", tmp_path / "hand",
    )  # fmt: skip
    assert by_hand.returncode == 0, by_hand.stderr
    models = [SentenceTransformer(str(tmp_path / name)).encode(["a b c", "x y"]) for name in ("out", "hand")]
    assert np.allclose(*models, atol=1e-6)


@pytest.mark.slow
def test_a_kept_index_gets_a_correction_that_loads_everywhere(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    pairs, general = pair_file(tmp_path, "qa", 3, 200), text_file(tmp_path, "other", 2)
    data = ("--domain", f"retrieval={pairs}", "--general", general, "--index", "base", "--alpha", "0.5")
    out = tmp_path / "out"
    done = retain(selfpos, tiny_base, [tuned], out, *data)
    assert done.returncode == 0, done.stderr
    assert "new questions, the base's documents" in done.stdout
    corrected = SentenceTransformer(str(out))
    assert [type(module).__name__ for module in corrected][-2:] == ["Dense", "Normalize"]
    entries = json.loads((out / "modules.json").read_text())
    types = [entry["type"] for entry in entries]
    assert types[-2:] == ["sentence_transformers.models.Dense", "sentence_transformers.models.Normalize"]
    raw_folder = Path(shutil.copytree(out, tmp_path / "raw"))
    (raw_folder / "modules.json").write_text(json.dumps(entries[:-2]))
    texts = general.read_text().splitlines()
    base, raw, moved = (
        SentenceTransformer(str(folder)).encode(texts) for folder in (tiny_base, raw_folder, out)
    )
    assert np.square(moved - base).sum() < 0.8 * np.square(raw - base).sum(), "nearer to the base's index"
    again = selfpos("reproduce", out)
    assert again.returncode == 0, again.stderr
    weights = out / entries[-2]["path"] / "model.safetensors"
    save_file({key: 2 * tensor for key, tensor in load_file(weights).items()}, weights)
    assert "is not the correction of questions that was recorded" in said(selfpos("reproduce", out))


@pytest.mark.slow
def test_the_promise_is_asked_of_a_kept_index(selfpos: CommandLine, tiny_base: Path, tmp_path: Path) -> None:
    """Noise harms questions and answers, so the fine-tune is the model without it."""
    noisy = make_specialist(tiny_base, tmp_path / "noisy", seed=2, size=0.008)
    pairs, general = pair_file(tmp_path, "qa", 3, 200), text_file(tmp_path, "other", 2)
    data = ("--domain", f"retrieval={pairs}", "--general", general, "--index", "base")
    done = retain(selfpos, noisy, [tiny_base], tmp_path / "out", *data)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out.front.json").read_text())
    assert facts["drops"] == []
    assert 0 < facts["chosen"]["alpha"] < 1
    again = facts["index"]["new questions, not corrected, all documents embedded again"]
    assert facts["base"]["domain"] < facts["chosen"]["domain"] < again < facts["tuned"]["domain"]
    assert len(facts["correction"]) == 64
    for told in (done.stdout, (tmp_path / "out" / "README.md").read_text()):
        assert "embed questions with it, and leave the documents as they are" in told
    assert "no general task is significantly below the base" in done.stdout


@pytest.mark.slow
def test_several_fine_tunes_are_one_search(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    other = make_specialist(tuned, tmp_path / "again", seed=6, size=0.001)
    data = ("--domain", text_file(tmp_path, "mine", 1), "--general", text_file(tmp_path, "other", 2))
    done = retain(selfpos, tiny_base, [tuned, other], tmp_path / "out", *data, "--keep", "0.5")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out.front.json").read_text())
    assert facts["chosen"]["kept"] >= 0.5
    assert {point["line"] for point in facts["front"]} <= {"tuned", "again", "mean of all"}
    assert len(read_manifest(tmp_path / "out")["merge"]["sources"]) == 2


# What is refused, in one sentence each


def test_a_fine_tune_with_the_weights_of_the_base(
    selfpos: CommandLine, tiny_base: Path, tmp_path: Path
) -> None:
    same = shutil.copytree(tiny_base, tmp_path / "same")
    assert "has the weights of the base" in said(retain(selfpos, tiny_base, [same], tmp_path / "out"))


def test_a_model_of_another_base(selfpos: CommandLine, tiny_base: Path, tmp_path: Path) -> None:
    stranger = make_tiny_model(tmp_path / "stranger", seed=8)
    sentence = said(retain(selfpos, tiny_base, [stranger], tmp_path / "out"))
    assert "is no fine-tune of" in sentence
    assert "give the model it was trained from" in sentence


def test_a_fine_tune_that_reads_more_of_a_text_than_the_base(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    sides = ("--domain", text_file(tmp_path, "mine", 1), "--general", text_file(tmp_path, "other", 2))
    file = tuned / "tokenizer_config.json"
    for limit, said_of_it in ((64, True), (16, False)):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": limit}))
        done = retain(selfpos, tiny_base, [tuned], tmp_path / f"out-{limit}", *sides, "--alpha", "0.5")
        assert done.returncode == 0, done.stderr
        assert ("tuned reads 64 tokens of a text, and the base 32" in done.stderr) == said_of_it


def test_the_folder_of_a_training_names_its_checkpoints(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    for step in (20, 40):
        shutil.copytree(tuned, tmp_path / "runs" / f"checkpoint-{step}")
    sentence = said(retain(selfpos, tiny_base, [tmp_path / "runs"], tmp_path / "out"))
    assert "it has no modules.json; give a model in it, such as checkpoint-40" in sentence


def test_a_fine_tune_that_does_not_say_its_domain(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    sentence = said(retain(selfpos, tiny_base, [tuned], tmp_path / "out"))
    assert "or its domain with --domain" in sentence


@pytest.mark.parametrize(
    ("domain", "general", "words"),
    [
        ("{mine}", "{mine}", "are of the domain, too"),
        ("{few}", "{other}", "5 distinct texts, and 32 are needed"),
        ("{empty}", "{other}", "0 distinct texts"),
        ("nowhere.txt", "{other}", "is no file or folder of texts"),
        ("retreival={qa}", "{other}", "did you mean 'retrieval'?"),
        ("{mine}", "retrieval={few}", "no known kind"),
    ],
)
def test_data_that_tells_nothing_is_refused(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path, domain: str, general: str, words: str
) -> None:
    files = {
        "mine": text_file(tmp_path, "mine", 1),
        "other": text_file(tmp_path, "other", 2),
        "few": text_file(tmp_path, "few", 3, 5),
        "empty": text_file(tmp_path, "empty", 4, 0),
        "qa": pair_file(tmp_path, "qa", 3),
    }
    named = [side.format(**files) for side in (domain, general)]
    done = retain(selfpos, tiny_base, [tuned], tmp_path / "o", "--domain", named[0], "--general", named[1])
    assert words in said(done)
    assert not list(tmp_path.glob("o*.json"))


def test_a_kept_index_needs_questions(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    data = ("--domain", text_file(tmp_path, "mine", 1), "--general", text_file(tmp_path, "other", 2))
    done = retain(selfpos, tiny_base, [tuned], tmp_path / "out", *data, "--index", "base")
    assert "needs a domain of questions and documents" in said(done)


def test_a_front_is_kept_by_the_verb_and_replaced_with_the_model_by_the_operation(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    """What a run leaves of a merge that was stopped or changed is no reason to refuse the next."""
    sides = [text_file(tmp_path, "mine", 1)], [text_file(tmp_path, "other", 2)]
    out, front = tmp_path / "out", tmp_path / "out.front.json"
    front.write_text("mine")
    done = retain(selfpos, tiny_base, [tuned], out, "--domain", *sides[0], "--general", *sides[1])
    assert "out.front.json exists already" in said(done)
    assert front.read_text() == "mine" and not out.exists()
    settings = RetainSettings(domain=list(map(str, sides[0])), general=list(map(str, sides[1])), alpha=0.5)
    facts = retaining.retain(tiny_base, [tuned], out, settings, say=str)
    assert json.loads(front.read_text()) == json.loads(json.dumps(facts))
    assert facts["chosen"]["alpha"] == 0.5


@pytest.mark.parametrize("picture", [1, 2])
def test_an_interrupt_while_pictures_are_drawn_leaves_nothing(
    tiny_base: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: int
) -> None:
    """A folder without its front would be refused by the same command."""
    drawn = []

    def interrupted(facts: object) -> None:
        drawn.append(facts)
        if len(drawn) == picture:
            raise KeyboardInterrupt
        return front(facts)

    front = figures.retained_front
    monkeypatch.setattr(figures, "retained_front", interrupted)
    sides = {side: [str(text_file(tmp_path, side, n))] for n, side in enumerate(("domain", "general"))}
    with pytest.raises(KeyboardInterrupt):
        retaining.retain(tiny_base, [tuned], tmp_path / "out", RetainSettings(**sides, alpha=0.5), say=str)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_two_rules_exclude_each_other(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    rules = {"keep": "0.9", "alpha": "0.5", "promise": "none-worse"}
    for first, second in (("keep", "alpha"), ("promise", "keep"), ("promise", "alpha")):
        words = (f"--{first}", rules[first], f"--{second}", rules[second])
        done = retain(selfpos, tiny_base, [tuned], tmp_path / "out", *words)
        assert f"{first} and {second} exclude each other" in said(done)


def test_mteb_tasks_are_their_validation_splits(text_data: Path, tiny_base: Path) -> None:
    from selfpos.retention.sources import mteb_source, read_side

    assert mteb_source("STSBenchmark", text_data) == f"sts={text_data / 'stsbenchmark'}"
    assert mteb_source("selfpos-MRPC", text_data) == f"pair-classification={text_data / 'mrpc'}"
    hub = mteb_source("STSBenchmark", None)
    assert hub is not None
    assert hub.startswith("sts=hub:mteb/stsbenchmark-sts@")
    assert mteb_source("NoSuchTask", text_data) is None
    said_lines: list[str] = []
    settings = RetainSettings(data_dir=text_data)
    tasks = read_side(
        "general", ["STSBenchmark", "MLQuestions"], open_model(tiny_base), settings, said_lines.append
    )
    assert {name: task.type.name for name, task in tasks.items()} == {
        "STSBenchmark": "sts",
        "MLQuestions": "retrieval",
    }
    assert said_lines[0].endswith("500 of 1498 records (dropped: 2 that occur before)")
    assert all(text.startswith("query: ") for text in tasks["MLQuestions"].dataset["anchor"])
    assert not any(text.startswith("query: ") for text in tasks["MLQuestions"].dataset["positive"])
    assert not any(text.startswith("query: ") for text in tasks["STSBenchmark"].dataset["sentence1"])


@pytest.mark.slow
def test_a_retained_model_is_reproduced_from_its_manifest(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    data = ("--domain", text_file(tmp_path, "mine", 1), "--general", text_file(tmp_path, "other", 2))
    assert retain(selfpos, tiny_base, [tuned], tmp_path / "out", *data, "--keep", "0.3").returncode == 0
    done = selfpos("reproduce", tmp_path / "out")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_finetune_held_out_is_the_domain(selfpos: CommandLine, tiny_base: Path, tmp_path: Path) -> None:
    pairs = pair_file(tmp_path, "qa", 3, 120)
    done = selfpos(
        "finetune", "--task", "retrieval", "--base", tiny_base, "--data", pairs, "--out", tmp_path / "tuned",
        "--steps", "2", "--batch-size", "8", "--probe", "40",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    general = ("--general", text_file(tmp_path, "other", 2), "--alpha", "0.5")
    done = retain(selfpos, tiny_base, [tmp_path / "tuned"], tmp_path / "out", *general)
    assert done.returncode == 0, done.stderr
    assert "tuned: 40 records held out" in done.stderr
    assert json.loads((tmp_path / "out.front.json").read_text())["tasks"]["domain"] == ["tuned"]
