"""A kept index beside what the saved model does, and models of other kinds."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from selfpos.errors import SelfposError
from selfpos.retention.index import Correction, add_correction, recorded_correction
from tests.helpers.adapters import edit_json
from tests.helpers.command import CommandLine, said
from tests.helpers.models import make_specialist, make_tiny_model
from tests.helpers.retaining import pair_file, retain, sentences, text_file


def test_a_correction_takes_no_folder_or_name_of_another_module(tiny_base: Path, tmp_path: Path) -> None:
    """sentence-transformers numbers them; who removes a module by hand leaves a gap."""
    folder = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    entries = json.loads((folder / "modules.json").read_text())[:3]
    (folder / entries[2]["path"]).rename(folder / "3_Dense")
    entries[2] |= {"path": "3_Dense", "name": "3"}
    (folder / "modules.json").write_text(json.dumps(entries))
    texts = sentences(5, 1)
    before = SentenceTransformer(str(folder), device="cpu").encode(texts)
    add_correction(folder, Correction(2 * torch.eye(16), torch.ones(16)))
    assert np.allclose(
        SentenceTransformer(str(folder), device="cpu").encode(texts), 2 * before + 1, atol=1e-5
    )


def test_a_recorded_correction_is_the_one_of_its_hash(tiny_base: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    made = Correction(torch.randn(16, 16, generator=generator), torch.randn(16, generator=generator))
    numbers = made.matrix.numpy().tobytes() + made.bias.numpy().tobytes()
    assert made.hash == hashlib.sha256(numbers).hexdigest()
    folder = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    add_correction(folder, made)
    read = recorded_correction(folder, made.hash)
    assert torch.equal(read.matrix, made.matrix)
    assert torch.equal(read.bias, made.bias)
    other = Correction(made.matrix, made.bias + 1)
    with pytest.raises(SelfposError, match="its last Dense module is not the correction"):
        recorded_correction(folder, other.hash)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"truncate_dim": 6}, {"similarity_fn_name": "dot"}], ids=str)
def test_a_kept_index_is_judged_as_the_model_is_used(
    change: dict, selfpos: CommandLine, tmp_path: Path
) -> None:
    """The domain's measure is that of the saved model's questions and the base's documents."""
    base = make_tiny_model(tmp_path / "base")
    entries = json.loads((base / "modules.json").read_text())
    (base / "modules.json").write_text(json.dumps(entries[:3]))  # lengths differ
    edit_json(base / "config_sentence_transformers.json", **change)
    tuned = make_specialist(base, tmp_path / "tuned", seed=5, size=0.006)
    pairs, general = pair_file(tmp_path, "qa", 3, 60), text_file(tmp_path, "other", 2)
    data = ("--domain", f"retrieval={pairs}", "--general", general, "--index", "base", "--alpha", "0.5")
    done = retain(selfpos, base, [tuned], tmp_path / "out", *data, "--space", "line")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in pairs.read_text().splitlines()]
    old, new = (SentenceTransformer(str(folder), device="cpu") for folder in (base, tmp_path / "out"))
    questions = new.encode_query([record["query"] for record in records])
    documents = old.encode_document([record["positive"] for record in records])
    similarities = new.similarity(questions, documents).numpy()
    ranks = 1 + (similarities > np.diag(similarities)[:, None]).sum(1)
    expected = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean()
    facts = json.loads((tmp_path / "out.front.json").read_text())
    assert facts["chosen"]["domain"] == pytest.approx(expected, abs=0.005)


@pytest.mark.slow
def test_tables_alone_are_retained(selfpos: CommandLine, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    make_tiny_model(tmp_path / "made")
    torch.manual_seed(0)
    table = StaticEmbedding(
        Tokenizer.from_file(str(tmp_path / "made-raw" / "tokenizer.json")), embedding_dim=16
    )
    SentenceTransformer(modules=[table], device="cpu").save_pretrained(str(tmp_path / "base"))
    tuned = make_specialist(tmp_path / "base", tmp_path / "tuned", seed=5, size=0.1)
    data = ("--domain", text_file(tmp_path, "mine", 1), "--general", text_file(tmp_path, "other", 2))
    done = retain(selfpos, tmp_path / "base", [tuned], tmp_path / "out", *data)
    assert done.returncode == 0, done.stderr
    other = make_specialist(tmp_path / "base", tmp_path / "other", seed=6, size=2.0)
    assert "is no fine-tune of" in said(retain(selfpos, tmp_path / "base", [other], tmp_path / "o", *data))


def test_what_merge_has_an_option_for_is_another_merge_before(
    selfpos: CommandLine, tiny_base: Path, tuned: Path, tmp_path: Path
) -> None:
    corrected = Path(shutil.copytree(tuned, tmp_path / "corrected"))
    add_correction(corrected, Correction(torch.eye(16), torch.zeros(16)))
    sentence = said(retain(selfpos, tiny_base, [corrected], tmp_path / "out"))
    assert "its modules are Transformer + Pooling + Dense + Normalize + Dense + Normalize" in sentence
    assert "selfpos merge --base BASE --vectors MODEL --method average --take-from base --out NEW" in sentence
    plain = Path(shutil.copytree(tiny_base, tmp_path / "plain"))
    (plain / "modules.json").unlink()
    sentence = said(retain(selfpos, plain, [tuned], tmp_path / "out"))
    assert "selfpos merge --base BASE --vectors BASE --method average --pooling mean --out NEW" in sentence
    wider = make_tiny_model(tmp_path / "wider", hidden=48)
    sentence = said(retain(selfpos, tiny_base, [wider], tmp_path / "out"))
    assert "unmerged" in sentence
    assert "retain has no such option: give the model that it was trained from" in sentence
