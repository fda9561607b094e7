"""Stored rows that a library makes into others: model2vec's factors, Stanford's ColBERT, float8 bases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.merging import merge
from selfpos.publishing.sources import read_summary
from selfpos.storage.model_folder import open_model
from selfpos.vectors import open_vectors
from tests.helpers.adapters import edit_json, state
from tests.helpers.families import plain_bert
from tests.helpers.models import make_specialist


def model2vec(source: Path, folder: Path, seed: int, **more: torch.Tensor) -> Path:
    """A table of tokens as model2vec stores it, with the tokenizer of `source`."""
    folder.mkdir()
    shutil.copy(source / "tokenizer.json", folder)
    rows = len(json.loads((source / "tokenizer.json").read_text())["model"]["vocab"])
    table = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
    save_file({"embeddings": table} | more, folder / "model.safetensors")
    modules = [{"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_factors_of_tokens_are_merged_only_where_they_are_equal(tiny_base: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    rows = len(json.loads((tiny_base / "tokenizer.json").read_text())["model"]["vocab"])
    weights = torch.rand(rows, generator=torch.Generator().manual_seed(9)) + 0.5
    base, one = (
        model2vec(tiny_base, tmp_path / name, seed, weights=weights)
        for seed, name in enumerate(("base", "one"))
    )
    other = model2vec(tiny_base, tmp_path / "other", 2, weights=2 * weights)
    SentenceTransformer(str(one), device="cpu").save_pretrained(str(tmp_path / "folded"))

    out = merge(base, [one], "average", tmp_path / "out").out
    tables = [SentenceTransformer(str(model), device="cpu")[0].embedding.weight for model in (out, one)]
    np.testing.assert_allclose(*(table.detach().numpy() for table in tables), atol=1e-6)
    for unlike in (other, tmp_path / "folded"):
        with pytest.raises(SelfposError, match="load the models with SentenceTransformer and save them"):
            open_vectors(open_model(base), [unlike])
        (vector,) = open_vectors(open_model(base), [unlike], tolerate=True)
        assert not vector.parts


def test_stanfords_colbert_fits_its_own_layout_with_the_same_settings(tmp_path: Path) -> None:
    base = plain_bert(tmp_path / "base")
    edit_json(base / "config.json", architectures=["HF_ColBERT"])
    tensors = {f"bert.{name}": value for name, value in load_file(base / "model.safetensors").items()}
    tensors["linear.weight"] = torch.ones(4, tensors["bert.embeddings.LayerNorm.weight"].numel())
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    (base / "artifact.metadata").write_text(json.dumps({"query_maxlen": 12}))
    one = make_specialist(base, tmp_path / "one", seed=1)
    out = merge(base, [one], "average", tmp_path / "out").out
    np.testing.assert_allclose(state(out)["linear.weight"], state(one)["linear.weight"], atol=1e-6)
    assert read_summary(out).kind == "MultiVectorEncoder"

    edit_json(one / "artifact.metadata", query_maxlen=30, mask_punctuation=True)
    with pytest.raises(SelfposError, match=r"its query_maxlen is 30, expected 12 \(artifact.metadata\)"):
        open_vectors(open_model(base), [one])
    edit_json(one / "config.json", architectures=["BertModel"])
    with pytest.raises(
        SelfposError, match=r"the base is a ColBERT as Stanford.* MultiVectorEncoder, save it"
    ):
        open_vectors(open_model(base), [one])


def test_a_float8_base_is_refused_without_a_way_that_is_none(tiny_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    name = next(name for name, value in tensors.items() if value.dim() == 2)
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(SelfposError, match="before it was quantised") as refused:
        open_vectors(open_model(base), [tiny_base])
    assert "--take-from" not in str(refused.value)


def test_a_merge_without_a_base_is_a_vector_of_the_true_base(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    first, second = tiny_specialists[:2]
    mean = merge(first, [first, second], "average", tmp_path / "mean").out  # as mergekit's without base_model
    out = merge(tiny_base, [mean], "average", tmp_path / "out").out
    found, expected = state(out), state(mean)
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], atol=1e-6, err_msg=key)
    against_base = merge(first, [second], "average", tmp_path / "other").out
    with pytest.raises(SelfposError, match="was made from another base"):
        open_vectors(open_model(tiny_base), [against_base])


def test_a_merge_without_a_base_is_checked_against_that_of_its_first_model(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    """Also a merge of such a merge. What is known of no base is refused by none."""
    first = merge(tiny_base, tiny_specialists[:1], "average", tmp_path / "first").out
    mean = merge(first, [first, tiny_specialists[1]], "average", tmp_path / "mean").out
    again = merge(mean, [mean, tiny_specialists[1]], "average", tmp_path / "again").out
    for folder in (mean, again):
        assert open_vectors(open_model(tiny_base), [folder])[0].parts
        with pytest.raises(SelfposError, match=r"made from another base: its manifest names the base of \w+"):
            open_vectors(open_model(tiny_specialists[1]), [folder])
    unknown = merge(tiny_specialists[0], tiny_specialists[:2], "average", tmp_path / "unknown").out
    assert open_vectors(open_model(tiny_specialists[1]), [unknown])[0].parts


def test_a_merge_with_a_model_that_is_its_base_is_a_vector_of_that_base(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    """As SLERP between a base and its fine-tune; the manifest tells it from no merge without a base."""
    base = merge(tiny_base, tiny_specialists[:1], "average", tmp_path / "base").out
    tuned = shutil.copytree(base, tmp_path / "tuned", ignore=shutil.ignore_patterns("selfpos.json"))
    mean = merge(base, [base, tuned], "average", tmp_path / "mean").out
    for known in (base, tiny_base):
        assert open_vectors(open_model(known), [mean])[0].parts
