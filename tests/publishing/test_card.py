"""The card of each kind of model: what is known is in it, what is not is left out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpos.publishing.card import build_card, write_card
from selfpos.publishing.metadata import check_metadata
from tests.helpers.hub.scored_run import write_manifest
from tests.helpers.models import make_tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def metadata(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def sections(text: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", text.partition("\n---\n")[2], re.MULTILINE)


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "general"))


SOURCES = [
    {"name": "retrieval", "path": "/disk/retrieval", "hash": "a" * 64},
    {"name": "sts", "repo": "owner/sts", "revision": COMMIT, "hash": "b" * 64},
]
BASE = {"name": "all-MiniLM-L6-v2", "hash": "c" * 64}


def test_merged_by_a_given_method(model: Path) -> None:
    merge = {
        "method": "ties",
        "params": {"density": 0.2},
        "sources": SOURCES,
        "coefficients": None,
        "dtype": "F32",
        "seed": 0,
    }
    write_manifest(model, kind="merge", base=BASE, merge=merge, versions={"selfpos": "0.1.0"}, licence="mit")
    text = build_card(model, repo="alice/general-v2").text
    assert metadata(text) == {
        "base_model": ["sentence-transformers/all-MiniLM-L6-v2", "owner/sts"],
        "base_model_relation": "merge",
        "library_name": "sentence-transformers",
        "license": "mit",
        "pipeline_tag": "sentence-similarity",
        "tags": [
            "sentence-transformers",
            "sentence-similarity",
            "feature-extraction",
            "selfpos",
            "merge",
            "ties",
        ],
    }
    assert sections(text) == ["general-v2", "Use", "How it was made", "Reproduce it", "Citation"]
    assert "Merged by **ties**, with density `0.2`." in text
    assert (
        f"| sts ([owner/sts](https://huggingface.co/owner/sts/tree/{COMMIT})) | `0123456789ab` | "
        "`bbbbbbbbbbbbbbbb` |" not in text
    )
    assert (
        f"| [owner/sts](https://huggingface.co/owner/sts/tree/{COMMIT}) | `0123456789ab` | "
        "`bbbbbbbbbbbbbbbb` |" in text
    )
    assert "coefficient" not in text
    assert "yadav2023ties" in text
    assert 'SentenceTransformer("alice/general-v2")' in text
    assert "selfpos reproduce alice/general-v2" in text
    assert check_metadata(text) == []


@pytest.mark.parametrize(
    ("method", "separated", "paper"),
    [
        ("wudi", "changed so that they interfere less with those of the others (WUDI)", "{Whoever Started"),
        ("tsv-m", "made orthogonal to those of the others (TSV-M)", "{Task Singular Vectors"),
    ],
)
def test_a_merge_of_separated_vectors_says_so_and_cites_the_method(
    model: Path, method: str, separated: str, paper: str
) -> None:
    merge = {"method": method, "weights": [0.7, 0.4], "params": {"others": "sum"}, "sources": SOURCES}
    search = {"coefficients": [0.7, 0.4], "separated": True, "step": 2, "steps": 2, "seconds": 1.0}
    write_manifest(model, kind="merge", base=BASE, merge=merge, positioning=search)
    text = build_card(model).text
    assert "Merged by **self-positioning** ([reference](https://arxiv.org/abs/2410.15035)).\n" in text
    assert f"parent minus the base, its weight matrices {separated}." in text
    assert "| retrieval | 0.7 |" in text
    assert f"title = {paper}" in text


def test_separated_vectors_of_another_method_are_told_without_one(model: Path) -> None:
    merge = {"method": "linear", "weights": [0.7, 0.4], "sources": SOURCES}
    search = {"coefficients": [0.7, 0.4], "separated": True, "step": 2, "steps": 2, "seconds": 1.0}
    write_manifest(model, kind="merge", base=BASE, merge=merge, positioning=search)
    assert "A task vector is a parent minus the base. " in build_card(model).text


def test_merged_with_coefficients_found_by_self_positioning(model: Path) -> None:
    merge = {
        "method": "linear",
        "weights": [0.7, 0.4],
        "params": {},
        "sources": SOURCES,
        "coefficients": [0.7, 0.4],
    }
    search = {
        "coefficients": [0.7, 0.4],
        "losses": {"retrieval": 1.25},
        "step": 90,
        "steps": 100,
        "seconds": 61.2,
        "intervals": [[0.5, 0.9], [0.1, 0.7]],
        "verdict": "not clearly better than base",
        "settings": {"space": "spherical", "max_length": None},
        "probe": {"retrieval": {"type": "retrieval", "records": 256}},
    }
    write_manifest(model, kind="merge", base=BASE, merge=merge, positioning=search)
    rows = [
        {"step": step, "losses": {}, "coefficients": [0.5 + step / 500, 0.5 - step / 1000]}
        for step in range(0, 100, 10)
    ]
    rows.insert(1, {"step": 1, "validation": {"retrieval": 1.3}, "value": 1.3, "best": True})
    (model / "trajectory.jsonl").write_text(
        "\n".join(map(json.dumps, rows)) + '\n{"step": 101, "coeff', encoding="utf-8"
    )
    card = build_card(model)
    assert "Merged by **self-positioning** ([reference](https://arxiv.org/abs/2410.15035))." in card.text
    assert "100 steps; the position of step 90 was kept." in card.text
    assert "<summary>All settings of the search</summary>\n\nspace `spherical`\n" in card.text
    assert "| retrieval | 0.7 (0.50 to 0.90) |" in card.text
    assert "Compared on the probe set: not clearly better than base." in card.text
    assert "| retrieval | retrieval | 256 | 1.3 | 1.25 |" in card.text
    assert "search for the coefficients: 61.2 s" in card.text
    assert "li2024improving" in card.text
    assert set(card.extras) == {"selfpos-trajectory.png", "trajectory.jsonl"}
    assert card.extras["selfpos-trajectory.png"].startswith(b"\x89PNG")
    assert "(selfpos-trajectory.png)" in card.text
    assert "self-positioning" in metadata(card.text)["tags"]


def test_coefficients_per_tensor_are_drawn(model: Path) -> None:
    per_tensor = {f"encoder.layer.{layer}.weight": [1.0, 0.1 * layer, -0.2] for layer in range(4)}
    write_manifest(
        model,
        kind="merge",
        base=BASE,
        merge={"method": "slerp", "sources": SOURCES, "coefficients": per_tensor},
    )
    card = build_card(model)
    assert list(card.extras) == ["selfpos-coefficients.png"]
    assert "(selfpos-coefficients.png)" in card.text
    assert card.extras == build_card(model).extras  # same facts, same bytes


def test_how_to_make_it_again_says_what_a_stranger_lacks(model: Path) -> None:
    write_manifest(model, kind="merge", base=BASE, merge={"method": "ties", "sources": SOURCES})
    assert (
        "needs models that are not on the Hub (retrieval): name the folder of each with `--parent "
        "NAME=FOLDER`" in build_card(model).text
    )
    write_manifest(model, kind="merge", base=BASE, merge={"method": "ties", "sources": SOURCES[1:]})
    assert "downloads the parents" in build_card(model).text


def test_coefficient_of_the_base_is_shown_apart(model: Path) -> None:
    write_manifest(
        model,
        kind="merge",
        base=BASE,
        merge={"method": "model-stock", "sources": SOURCES, "coefficients": [0.25, 0.5, 0.5]},
    )
    text = build_card(model).text
    assert "| base | 0.25 |" in text
    assert "| retrieval | 0.5 |" in text


def test_specialist(model: Path) -> None:
    tasks = {"retrieval": {"type": "retrieval", "records": 2808, "hash": "d" * 64}}
    made = {
        "settings": {"steps": 40, "learning_rate": 5e-5, "lora": None},
        "steps": 40,
        "seconds": 21.3,
        "device": "cpu (x86_64)",
        "seed": 7,
    }
    finetune = {
        "source": {"type": "retrieval", "data": "hub:mteb/scifact:corpus@main"},
        "hash": "e",
        "probe": 0,
        "seed": 7,
    }
    write_manifest(
        model,
        kind="specialist",
        name="retrieval",
        base=BASE,
        tasks=tasks,
        finetune=finetune,
        peak_memory_bytes=2_480_164_864,
        **made,
    )
    text = build_card(model).text
    head = metadata(text)
    assert head["base_model"] == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert head["base_model_relation"] == "finetune"
    assert head["datasets"] == ["mteb/scifact"]
    assert "merge" not in head["tags"]
    assert sections(text) == ["retrieval", "Use", "Training data", "Cost", "Citation"]
    assert "fine-tuned from" in text
    assert (
        "| retrieval | retrieval | 2808 | [mteb/scifact](https://huggingface.co/datasets/mteb/scifact) | "
        "`dddddddddddddddd` |" in text
    )
    assert "Settings: steps `40`, learning_rate `5e-05`." in text
    assert "training: 21.3 s on cpu (x86_64), 40 steps, at most 2.5 GB of memory" in text
    assert "mixture" not in text


def test_joint_model(model: Path) -> None:
    tasks = {"a": {"type": "sts", "records": 10}, "b": {"type": "retrieval", "records": 20}}
    write_manifest(
        model,
        kind="joint",
        name="joint",
        base=BASE,
        tasks=tasks,
        settings={},
        mixture="round-robin",
        steps=80,
    )
    text = build_card(model).text
    assert "trained from" in text
    assert "on several tasks at once: a, b." in text
    assert "Each batch comes from one task (mixture: round-robin)." in text


def test_lora_adapter(tiny_base: Path, tmp_path: Path) -> None:
    """Trained and saved by PEFT itself; the usage shown must work, so it is run."""
    from peft import LoraConfig, TaskType
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_base), device="cpu")
    model.add_adapter(LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=2, target_modules="all-linear"))
    model.save_pretrained(str(tmp_path / "adapter"), create_model_card=False)
    folder = write_manifest(
        tmp_path / "adapter",
        kind="specialist",
        name="adapter",
        base=BASE,
        tasks={"sts": {"type": "sts", "records": 5}},
    )
    text = build_card(folder, repo=str(folder)).text
    head = metadata(text)
    assert head["library_name"] == "peft"
    assert head["base_model_relation"] == "adapter"
    assert "lora" in head["tags"]
    assert "hu2022lora" in text
    assert "adapter for [sentence-transformers]" in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1].replace("sentence-transformers/all-MiniLM-L6-v2", str(tiny_base)), names)
    assert names["embeddings"].shape == (2, 16)


def test_plain_model_says_only_what_it_is(model: Path) -> None:
    text = build_card(model).text
    assert sections(text) == ["general", "Use", "Citation"]
    assert "license" not in metadata(text)
    assert "base_model" not in metadata(text)
    assert "None" not in text
    assert "| embedding | 16 dimensions, mean pooling, normalised |" in text
    assert "| input | up to 32 tokens |" in text


@pytest.mark.parametrize("dense", [True, False])
def test_usage_shown_gives_the_models_own_embeddings(dense: bool, tmp_path: Path) -> None:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    folder = make_tiny_model(tmp_path / "model", dense=dense)
    text = build_card(folder, repo=str(folder)).text
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == (
        1 if dense else 2
    )  # a Dense module would have to be written out in plain transformers
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    model = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(names["queries"], model.encode(["A question?"], prompt="query: "), atol=1e-6)
    if not dense:
        exec(blocks[1], names)
        np.testing.assert_allclose(
            names["embeddings"].numpy(), model.encode(["A first text.", "A second one."]), atol=1e-6
        )


def test_write_card_replaces_the_readme_and_nothing_else(model: Path) -> None:
    write_manifest(model, kind="merge", base=BASE, merge={"method": "average", "sources": SOURCES})
    before = {path.name for path in model.iterdir()}
    assert write_card(model) == model / "README.md"
    assert {path.name for path in model.iterdir()} == before | {"README.md"}
    assert "Merged by **average**" in (model / "README.md").read_text()


def test_hostile_names_stay_text(model: Path) -> None:
    evil = {"name": "x|y <script>alert(1)</script> [z](http://evil) `q`", "hash": "a" * 64}
    write_manifest(
        model,
        kind="merge",
        name="a: [b",
        base=BASE,
        merge={"method": "ties", "params": {"n": "`|`"}, "sources": [evil]},
    )
    text = build_card(model).text
    assert "<script" not in text
    assert "](http://evil)" not in text.replace("\\[z](http://evil)", "")
    row = next(line for line in text.splitlines() if line.startswith("| x"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert metadata(text)["tags"]
    assert "{{" not in text


def test_damaged_records_are_told_by_name(model: Path) -> None:
    from selfpos.errors import SelfposError

    (model / "selfpos.json").write_text("{")
    with pytest.raises(SelfposError, match=r"selfpos\.json"):
        build_card(model)
