"""Encoder families: tiny random models of each, merged over all their modules and reloaded with
sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.merging import merge
from selfpos.storage.model_folder import open_model
from tests.helpers import reference as ref
from tests.helpers.families import FAMILIES, make_family
from tests.helpers.models import make_specialist

QUICK = {"DistilBERT", "Qwen3", "T5 encoder"}


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_families_merge_and_reload(tmp_path: Path, family: str) -> None:
    from sentence_transformers import SentenceTransformer

    base = make_family(tmp_path / "base", *FAMILIES[family])
    sources = [make_specialist(base, tmp_path / name, seed=seed) for seed, name in enumerate(["one", "two"])]
    if family == "Qwen3":  # large models come in shards
        sources[0] = merge(base, sources[:1], "average", tmp_path / "shards", shard_size=8000).out
        assert (sources[0] / "model.safetensors.index.json").is_file()
    out = merge(base, sources, "average", tmp_path / "out").out
    states = [ref.load(source) for source in sources]
    for key, value in ref.load(out).items():
        np.testing.assert_allclose(
            value, np.mean([state[key] for state in states], axis=0), atol=1e-6, err_msg=key
        )
    assert any(key.startswith("2_Dense/") for key in open_model(out).tensors)
    start, merged = (SentenceTransformer(str(folder), device="cpu") for folder in (base, out))
    assert [type(module) for module in merged] == [
        type(module) for module in start
    ] and merged.prompts == start.prompts
    vectors = [model.encode(["a b c", "d e"], prompt_name="query") for model in (start, merged)]
    assert (
        vectors[1].shape == (2, 4)
        and np.isfinite(vectors[1]).all()
        and np.abs(vectors[0] - vectors[1]).max() > 1e-5
    )
    # what sentence-transformers loads is what was written: no tensor was passed over
    again = merged.state_dict()
    for key, value in ref.load(out).items():
        if not key.startswith("2_Dense/"):
            name = min((name for name in again if name.endswith(f".{key}")), key=len)
            np.testing.assert_array_equal(again[name].double().numpy(), value, err_msg=key)


def test_code_of_the_models_own_is_refused_unless_allowed(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    import shutil

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    (base / "modeling_nomic.py").write_text("class NomicBert: ...\n")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(
        json.dumps(config | {"auto_map": {"AutoModel": "modeling_nomic.NomicBert"}})
    )
    with pytest.raises(SelfposError, match="Python code of the model"):
        merge(base, tiny_specialists, "average", tmp_path / "out")
    out = merge(base, tiny_specialists, "average", tmp_path / "out", allow_code=True).out
    assert (out / "modeling_nomic.py").is_file()
