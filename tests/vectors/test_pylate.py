"""A ColBERT in PyLate's layout is the same model as what sentence-transformers saves of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.merging import merge
from selfpos.storage.model_folder import open_model
from selfpos.vectors import open_vectors
from tests.helpers.adapters import edit_json, state
from tests.helpers.families import colbert, pylate, saved_today
from tests.helpers.models import make_specialist

TEXTS = ["a b c, d", "[Q] e f", "g h i j k l m n o p q r s t u v w x y z"]


def both_layouts(place: Path, **fields: Any) -> tuple[Path, Path]:
    """One ColBERT as PyLate stores it, and as sentence-transformers saves that."""
    old = pylate(colbert(place), place / "pylate", **fields)
    return old, saved_today(old, place / "today")


@pytest.mark.parametrize("swapped", [False, True])
def test_vectors_of_the_other_layout_are_merged_as_by_hand(swapped: bool, tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    base, other = both_layouts(tmp_path)[:: -1 if swapped else 1]
    sources = [make_specialist(other, tmp_path / name, seed=seed) for seed, name in enumerate(["one", "two"])]
    result = merge(base, sources, "average", tmp_path / "out")
    assert not result.warnings
    start, found, tuned = state(base), state(result.out), [state(source) for source in sources]
    assert found.keys() == start.keys() and "1_Dense/linear.weight" in found
    for key, value in found.items():
        vectors = [np.float64(side[key]) - np.float64(start[key]) for side in tuned]
        expected = np.float64(start[key]) + sum(vectors) / 2
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=key)
    # The layout is the base's, and the model that of both.
    for file in ("modules.json", "config_sentence_transformers.json", "1_Dense/config.json"):
        assert json.loads((result.out / file).read_text()) == json.loads((base / file).read_text())
    by_hand = MultiVectorEncoder(str(other), device="cpu")
    merged = MultiVectorEncoder(str(result.out), device="cpu")
    by_hand.load_state_dict(merged.state_dict())
    for side in ("encode_query", "encode_document"):
        embedded = [getattr(model, side)(TEXTS) for model in (by_hand, merged)]
        for first, second in zip(*embedded, strict=True):
            np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": None},
        {"skiplist_words": None, "model_type": None},
        {"skiplist_words": None, "query_length": None, "document_length": None},
        {"do_query_expansion": False, "attend_to_expansion_tokens": True},
        {"attend_to_expansion_tokens": True, "prompts": {"query": "a ", "other": "b "}},
        {"query_prefix": None, "document_prefix": None, "similarity_fn_name": "cosine"},
        {"query_prefix": "[Q] a", "document_prefix": ""},
    ],
)
def test_what_is_not_said_is_what_sentence_transformers_takes(fields: dict[str, Any], tmp_path: Path) -> None:
    for base, other in (both := both_layouts(tmp_path, **fields), both[::-1]):
        (vector,) = open_vectors(open_model(base), [other])
        assert not vector.differences and not vector.notes and vector.parts.keys() == state(base).keys()


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("", {"document_prefix": "[Q] "}, r"its prompts are .*'\[D\] '.*, expected .*'document': '\[Q\] '"),
        ("", {"query_length": 9}, r"its query_expansion is .*'length': 8\}, expected .*'length': 9\}"),
        ("", {"attend_to_expansion_tokens": True}, r"its query_expansion is .*'attend': False"),
        ("", {"do_query_expansion": False}, r"its query_length is 'none', expected 8"),
        ("", {"document_length": 30}, r"its document_length is 20, expected 30"),
        ("", {"skiplist_words": ["!"]}, r"its MultiVectorMask skiplist_words is \['a', 'b'\], expect"),
        ("", {"similarity_fn_name": "meanmaxsim"}, r"its similarity_fn_name is 'maxsim', expected 'meanm"),
        ("1_Dense/", {"activation_function": "torch.nn.modules.activation.Tanh"}, r"its Dense activation_f"),
        ("1_Dense/", {"module_input_name": "sentence_embedding"}, r"its Dense module_input_name is 'token"),
        ("3_Normalize/", {"module_input_name": "other"}, r"its Normalize module_input_name is 'other', ex"),
    ],
)
def test_what_differs_is_refused_by_name(
    file: str, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    base, other = both_layouts(tmp_path)
    name = f"{file}config.json" if file else "config_sentence_transformers.json"
    edit_json((other if file.startswith("3") else base) / name, **fields)
    with pytest.raises(SelfposError, match=message):
        open_vectors(open_model(base), [other])


def test_modules_that_differ_are_refused(tmp_path: Path) -> None:
    base, other = both_layouts(tmp_path)
    modules = json.loads((other / "modules.json").read_text())
    (other / "modules.json").write_text(json.dumps(modules[:-1]))
    with pytest.raises(SelfposError, match=r"its modules are .*Mask, expected .*Mask \+ Normalize"):
        open_vectors(open_model(base), [other])


def test_a_marker_that_is_not_one_token_there_is_refused(tmp_path: Path) -> None:
    base, other = both_layouts(tmp_path)
    data = json.loads((other / "tokenizer.json").read_text())
    for token in data["added_tokens"]:
        if token["content"] == "[Q] ":
            token.update(content="[R] ")
    (other / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(SelfposError, match=r"its tokenizer differs .*'\[R\] '"):
        open_vectors(open_model(base), [other])


def test_prompts_of_other_names_are_gathered_without_the_markers(tmp_path: Path) -> None:
    base, other = both_layouts(tmp_path)
    edit_json(
        other / "config_sentence_transformers.json",
        prompts={"query": "[Q] ", "document": "[D] ", "law": "law "},
    )
    out = merge(base, [other], "average", tmp_path / "out").out
    written = json.loads((out / "config_sentence_transformers.json").read_text())
    assert written["prompts"] == {"law": "law "} and written["query_prefix"] == "[Q] "
