"""The kinds of models that sentence-transformers has: each merged, loaded in its class, and nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.merging import merge, plan
from selfpos.merging.output.modules import check_pooling
from selfpos.storage.model_folder import check_tokenizer, open_model
from selfpos.vectors import open_vectors
from tests.helpers.adapters import edit_json, state
from tests.helpers.families import KINDS, colbert, cross_encoder, plain_bert, splade
from tests.helpers.models import make_specialist

TEXTS = ["a b c", "d e"]


def router(place: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer import modules
    from tokenizers import Tokenizer

    plain = plain_bert(place / "plain")
    table = modules.StaticEmbedding(Tokenizer.from_file(str(plain / "tokenizer.json")), embedding_dim=16)
    documents = [Transformer(str(plain)), modules.Pooling(16)]
    routed = Router.for_query_document([table], documents)
    SentenceTransformer(modules=[routed], device="cpu").save_pretrained(str(place / "base"))
    return place / "base"


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_output_loads_in_its_class_with_everything(kind: str, tmp_path: Path) -> None:
    import sentence_transformers

    base = KINDS[kind](tmp_path)
    sources = [make_specialist(base, tmp_path / name, seed=seed) for seed, name in enumerate(["one", "two"])]
    out = merge(base, sources, "average", tmp_path / "out").out
    states = [state(source) for source in sources]
    for key, value in state(out).items():
        expected = np.mean([tuned[key] for tuned in states], axis=0)
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=key)
    start, merged = (
        getattr(sentence_transformers, kind)(str(folder), device="cpu") for folder in (base, out)
    )
    assert [type(module) for module in merged] == [type(module) for module in start]
    assert merged.prompts == start.prompts and merged.model_card_data
    if kind == "CrossEncoder":
        assert isinstance(merged.activation_fn, torch.nn.Identity)
        scores = [model.predict([("a b", "c d")]) for model in (start, merged)]
        assert np.isfinite(scores[1]).all() and not np.allclose(scores[0], scores[1])
    ties = merge(base, sources, "ties", tmp_path / "ties").out
    assert state(ties).keys() == state(base).keys()


def with_decoder(source: Path, folder: Path) -> Path:
    """A copy of a masked language model that stores its tied decoder too."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    decoder = {
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
    }
    save_file(tensors | decoder, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("method", ["ties", "average"])
def test_a_decoder_stored_beside_its_table_is_one_with_it(method: str, tmp_path: Path) -> None:
    base = splade(tmp_path)
    one, two = (make_specialist(base, tmp_path / name, seed=seed) for seed, name in enumerate(["one", "two"]))
    right = state(merge(base, [one, two], method, tmp_path / "right").out)
    both, one_both = with_decoder(base, tmp_path / "both"), with_decoder(one, tmp_path / "one-both")
    for number, (start, source) in enumerate([(both, one), (base, one_both), (both, one_both)]):
        found = state(merge(start, [source, two], method, tmp_path / f"m{number}").out)
        assert ("cls.predictions.decoder.weight" in found) == (start == both)
        for key, value in found.items():
            tied = key.replace("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight")
            np.testing.assert_array_equal(value, right[tied.replace(".decoder.", ".")], err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("average", {}), ("linear", {})),
        (("task-arithmetic", {"weights": [0.6, 0.6]}), ("task_arithmetic", {"weight": 0.6})),
        (("nuslerp", {}), ("nuslerp", {})),
        (("karcher", {"params": {"space": "models", "steps": 10, "tolerance": 1e-5}}), ("karcher", {})),
        (("ties", {"params": {"density": 0.5, "scope": "tensor"}}), ("ties", {"density": 0.5})),
    ],
)
def test_the_same_as_the_librarys_own_merge(
    kind: str, ours: tuple[str, Any], theirs: tuple[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("mergekit")
    import sentence_transformers

    base = KINDS[kind](tmp_path)
    sources = [make_specialist(base, tmp_path / name, seed=seed) for seed, name in enumerate(["one", "two"])]
    load = getattr(sentence_transformers, kind)
    given = {} if theirs[0] in ("linear", "karcher") else {"base_model": str(base)}
    made = load.merge([str(source) for source in sources], theirs[0], parameters=theirs[1], **given)
    found = load(
        str(merge(base, sources, ours[0], tmp_path / "out", **ours[1]).out), device="cpu"
    ).state_dict()
    for name, value in made.state_dict().items():
        np.testing.assert_allclose(found[name].numpy(), value.numpy(), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", [*KINDS, "plain"])
def test_the_card_loads_the_model_in_its_class(kind: str, tmp_path: Path) -> None:
    from selfpos import operations

    if kind == "plain":
        base = plain_bert(tmp_path / "base", "BertForSequenceClassification", num_labels=1)
    else:
        base = KINDS[kind](tmp_path)
    one = make_specialist(base, tmp_path / "one", seed=1)
    out = operations.merge(str(base), [one], "average", tmp_path / "out")
    name = "CrossEncoder" if kind == "plain" else kind
    card = (out / "README.md").read_text()
    assert (
        f"import {name}" in card and f"model = {name}(" in card and "model = SentenceTransformer(" not in card
    )
    assert ("model.predict(" in card) == (name == "CrossEncoder")
    tag = {"CrossEncoder": "reranker", "SparseEncoder": "sparse-encoder", "MultiVectorEncoder": "colbert"}[
        name
    ]
    assert f"- {tag}\n" in card and "- sentence-similarity" not in card
    assert ("dimensions a token" in card) == (name == "MultiVectorEncoder")


def test_another_activation_is_refused(tmp_path: Path) -> None:
    base = cross_encoder(tmp_path)
    one = make_specialist(base, tmp_path / "one", seed=1)
    edit_json(one / "config_sentence_transformers.json", activation_fn="torch.nn.modules.activation.Sigmoid")
    with pytest.raises(SelfposError, match="activation_fn is 'Sigmoid', expected 'Identity'"):
        plan(base, [one], "average", tmp_path / "out")
    edit_json(one / "config_sentence_transformers.json", activation_fn=None)
    older = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}
    edit_json(one / "config.json", sentence_transformers=older)
    assert plan(base, [one], "average", tmp_path / "out").keys


@pytest.mark.parametrize(
    ("make", "default", "other"), [(splade, "dot", "cosine"), (colbert, "maxsim", "meanmaxsim")]
)
def test_a_similarity_that_is_not_said_is_the_default_of_its_class(
    make: Any, default: str, other: str, tmp_path: Path
) -> None:
    base = make(tmp_path)
    config = "config_sentence_transformers.json"
    said, unlike = (make_specialist(base, tmp_path / name, seed=1) for name in ("said", "unlike"))
    edit_json(base / config, similarity_fn_name=None)
    edit_json(said / config, similarity_fn_name=default)
    merge(base, [said], "average", tmp_path / "out")
    edit_json(unlike / config, similarity_fn_name=other)
    with pytest.raises(SelfposError, match=f"its similarity_fn_name is '{other}', expected '{default}'"):
        merge(base, [unlike], "average", tmp_path / "other")


def test_another_expansion_of_queries_is_refused(tmp_path: Path) -> None:
    base = colbert(tmp_path)
    one = make_specialist(base, tmp_path / "one", seed=1)
    edit_json(one / "sentence_bert_config.json", query_expansion={"mode": "fixed", "length": 32})
    with pytest.raises(SelfposError, match=r"its query_expansion is .*, expected 'none', which changes what"):
        open_vectors(open_model(base), [one])


def test_plain_cross_encoders_stay_plain(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    base = plain_bert(tmp_path / "base", "BertForSequenceClassification", num_labels=1)
    one = make_specialist(base, tmp_path / "one", seed=1)
    out = merge(base, [one], "average", tmp_path / "out").out
    assert not (out / "modules.json").exists()
    np.testing.assert_allclose(state(out)["classifier.weight"], state(one)["classifier.weight"], atol=1e-6)
    scores = [CrossEncoder(str(folder), device="cpu").predict([("a b", "c")]) for folder in (one, out)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    with pytest.raises(SelfposError, match="omit --pooling"):
        plan(base, [one], "average", tmp_path / "other", pooling="mean")


def test_clip_is_not_pooled(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text, vision = {**small, "vocab_size": 9}, {**small, "image_size": 8, "patch_size": 4}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=4)).save_pretrained(tmp_path)
    for pooling in (None, "mean"):
        with pytest.raises(SelfposError, match=r"makes one vector of a text or an image itself"):
            check_pooling(open_model(tmp_path), pooling)


def test_a_plain_model_as_a_vector_takes_the_bases_modules(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_specialists[0] / name, plain)
    result = merge(tiny_base, [plain], "average", tmp_path / "out")
    assert any(
        "plain transformers model: Pooling and Dense and Normalize" in note for note in result.warnings
    )
    found, start, moved = state(result.out), state(tiny_base), state(plain)
    for key, value in found.items():
        np.testing.assert_allclose(value, moved.get(key, start[key]), atol=1e-6, err_msg=key)


def test_a_plain_base_is_pooled_as_it_is_asked(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    base = plain_bert(tmp_path / "base")
    one = make_specialist(base, tmp_path / "one", seed=1)
    with pytest.raises(
        SelfposError, match=r"does not say how its token vectors are pooled; say it with --pooling"
    ):
        plan(base, [one], "average", tmp_path / "out")
    out = merge(base, [one], "average", tmp_path / "out", pooling="cls").out
    found = SentenceTransformer(str(out), device="cpu").encode(TEXTS)
    model, tokenizer = AutoModel.from_pretrained(one), AutoTokenizer.from_pretrained(one)
    with torch.no_grad():
        hidden = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).last_hidden_state
    np.testing.assert_allclose(found, hidden[:, 0].numpy(), atol=1e-4)
    again = merge(out, [one], "average", tmp_path / "again").out
    assert json.loads((again / "1_Pooling" / "config.json").read_text())["pooling_mode"] == "cls"
    with pytest.raises(SelfposError, match="has modules, which say how it is pooled"):
        plan(out, [one], "average", tmp_path / "third", pooling="mean")


def test_the_width_of_a_pooling_is_known_before_anything_is_written(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import XLMConfig, XLMModel

    base = plain_bert(tmp_path / "base")
    XLMModel(XLMConfig(vocab_size=60, emb_dim=16, n_layers=1, n_heads=2, pad_index=0)).save_pretrained(base)
    out = merge(base, [base], "average", tmp_path / "out", pooling="mean").out
    assert SentenceTransformer(str(out), device="cpu").encode(TEXTS).shape == (2, 16)
    edit_json(base / "config.json", emb_dim="16")
    with pytest.raises(SelfposError, match=r"does not say how long a token's vector is \(hidden_size, "):
        plan(base, [base], "average", tmp_path / "other", pooling="mean")


def test_the_modules_of_a_vector_may_be_taken_for_a_plain_base(tmp_path: Path) -> None:
    base = plain_bert(tmp_path / "base")
    one = make_specialist(base, tmp_path / "one", seed=1)
    whole = merge(base, [one], "average", tmp_path / "whole", pooling="mean").out
    out = merge(base, [whole], "average", tmp_path / "out", take_from="whole").out
    assert (out / "1_Pooling" / "config.json").is_file()
    np.testing.assert_allclose(
        state(out)["pooler.dense.weight"], state(one)["pooler.dense.weight"], atol=1e-6
    )


def test_tokenizers_within_a_router_are_compared(tmp_path: Path) -> None:
    base = router(tmp_path)
    one = make_specialist(base, tmp_path / "one", seed=1)
    assert open_vectors(open_model(base), [one])[0].parts.keys() == state(base).keys()
    file = one / "query_0_StaticEmbedding" / "tokenizer.json"
    data = json.loads(file.read_text())
    data["model"]["vocab"]["a"], data["model"]["vocab"]["b"] = 6, 5
    file.write_text(json.dumps(data))
    with pytest.raises(SelfposError, match="its tokenizer differs"):
        open_vectors(open_model(base), [one])
    (vector,) = open_vectors(open_model(base), [one], tolerate=True)
    assert vector.by_token == {"query_0_StaticEmbedding/embedding.weight"}


@pytest.mark.parametrize(
    ("gone", "message"), [("tokenizer", "has no tokenizer"), ("config", "has no config")]
)
def test_a_transformer_within_a_router_needs_its_files(gone: str, message: str, tmp_path: Path) -> None:
    base = router(tmp_path)
    check_tokenizer(base)
    for name in (f"{gone}.json", "vocab.txt" if gone == "tokenizer" else ""):
        if name:
            (base / "document_0_Transformer" / name).unlink(missing_ok=True)
    with pytest.raises(SelfposError, match=f"document_0_Transformer {message}"):
        check_tokenizer(base)


def test_a_router_whose_fields_are_of_a_wrong_type(tmp_path: Path) -> None:
    base = router(tmp_path)
    for field in ("types", "structure", "parameters"):
        changed = Path(shutil.copytree(base, tmp_path / field))
        edit_json(changed / "router_config.json", **{field: 5})
        with pytest.raises(SelfposError, match=f"router_config.json has {field} '5'; expected an object"):
            open_vectors(open_model(changed), [changed])


def test_the_routes_of_a_router_are_compared(tmp_path: Path) -> None:
    base = router(tmp_path)
    one = make_specialist(base, tmp_path / "one", seed=1)
    file = one / "router_config.json"
    config = json.loads(file.read_text())
    edit_json(file, types=dict(reversed(config["types"].items())))  # an order that means nothing
    assert open_vectors(open_model(base), [one])[0].parts.keys() == state(base).keys()
    for change in ({"default_route": "query"}, {"allow_empty_key": False}):
        edit_json(file, parameters=config["parameters"] | change)
        with pytest.raises(SelfposError, match=r"its Router has parameters\.\w+ .*: texts go another way"):
            open_vectors(open_model(base), [one])
    renamed = dict(zip(("question", "text"), config["structure"].values(), strict=True))
    edit_json(file, parameters=config["parameters"], structure=renamed)
    with pytest.raises(SelfposError, match="its Router has structure"):
        open_vectors(open_model(base), [one])


def test_layers_in_folders_of_their_own_have_numbers_and_depths(tmp_path: Path) -> None:
    base = router(tmp_path)
    one = make_specialist(base, tmp_path / "one", seed=1)
    rules = {"layers.1": 0.5, "default": 0}
    coefficients = merge(base, [one], "linear", tmp_path / "rules", weights=rules).coefficients
    assert isinstance(coefficients, dict)
    assert {key for key, value in coefficients.items() if value == [0.5]} == {
        key for key in state(base) if "layer.1." in key
    }
    ramp = merge(base, [one], "linear", tmp_path / "ramp", weights="0..1").coefficients
    assert isinstance(ramp, dict)
    assert {value[0] for key, value in ramp.items() if "layer.0." in key or "embed" in key} == {0.0}
    assert {value[0] for key, value in ramp.items() if "layer.1." in key} == {1.0}


def test_heads_beside_the_model_are_said(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    torch.save({"weight": torch.ones(2)}, base / "sparse_linear.pt")
    torch.save({}, base / "optimizer.pt")
    result = merge(base, tiny_specialists[:1], "average", tmp_path / "out")
    assert [note for note in result.warnings if "sparse_linear.pt: pickled heads" in note]
    assert not [note for note in result.warnings if "optimizer" in note]


@pytest.mark.parametrize("where", ["auto_map", "modules.json"])
def test_code_of_the_model_must_be_allowed_and_there(
    where: str, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "handler.py").write_text("")
    if where == "auto_map":
        edit_json(
            base / "config.json", auto_map={"AutoModel": "custom_st.Bert", "AutoConfig": "x/y--config.C"}
        )
    else:
        modules = json.loads((base / "modules.json").read_text())
        modules[0]["type"] = "custom_st.Transformer"
        (base / "modules.json").write_text(json.dumps(modules))
    sources = [shutil.copytree(base, tmp_path / "one")]
    for allowed in (False, True):
        with pytest.raises(
            SelfposError, match=r"custom_st\.py, which is not there; copy the file from the orig"
        ):
            plan(base, sources, "average", tmp_path / "out", allow_code=allowed)
    (base / "custom_st.py").write_text("from sentence_transformers.models import Transformer\n")
    with pytest.raises(SelfposError, match=r"names Python code of the model \(custom_st\.py\)"):
        plan(base, sources, "average", tmp_path / "out")
    out = merge(base, sources, "average", tmp_path / "out", allow_code=True).out
    assert (out / "custom_st.py").is_file() and (out / "handler.py").is_file()
    plainly = merge(tiny_base, tiny_specialists[:1], "average", tmp_path / "plainly").out
    assert not list(plainly.glob("*.py"))


def test_model2vecs_name_of_a_table_is_known(tmp_path: Path) -> None:
    base = router(tmp_path)
    table, other = tmp_path / "table", tmp_path / "other"
    for folder, name in ((table, "embedding.weight"), (other, "embeddings")):
        folder.mkdir()
        shutil.copy(base / "query_0_StaticEmbedding" / "tokenizer.json", folder)
        module = {"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}
        (folder / "modules.json").write_text(json.dumps([module]))
        stored = load_file(base / "query_0_StaticEmbedding" / "model.safetensors")["embedding.weight"]
        save_file({name: stored + (folder == other)}, folder / "model.safetensors", {"format": "pt"})
    out = merge(table, [other], "average", tmp_path / "out").out
    np.testing.assert_allclose(state(out)["embedding.weight"], state(other)["embeddings"], atol=1e-6)
