"""The engine: whole folders in and out, against float64 references computed without it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.merging import METHODS, get_method, merge, plan
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest, write_manifest
from tests.helpers import reference as ref
from tests.helpers.adapters import make_adapter


def vectors_of(base: Path, sources: list[Path]) -> tuple[ref.State, list[np.ndarray]]:
    start = ref.load(base)
    return start, [
        ref.flat({key: ref.load(source)[key] - value for key, value in start.items()}) for source in sources
    ]


def check(out: Path, start: ref.State, merged: np.ndarray, atol: float = 2e-6) -> None:
    found = ref.load(out)
    expected = ref.unflat(ref.flat(start) + merged, start)
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=atol, err_msg=key)


def test_the_output_is_a_whole_model(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    result = merge(tiny_base, tiny_specialists, "slerp", tmp_path / "out")
    base, merged = (SentenceTransformer(str(folder), device="cpu") for folder in (tiny_base, result.out))
    assert [type(module) for module in merged] == [type(module) for module in base]
    assert merged.prompts == base.prompts and merged.get_sentence_embedding_dimension() == 16
    vectors = merged.encode(["a b c", "d"], prompt_name="query")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert not np.allclose(vectors, base.encode(["a b c", "d"], prompt_name="query"), atol=1e-4)
    copied = {file.relative_to(tiny_base).as_posix() for file in tiny_base.rglob("*") if file.is_file()} - {
        "README.md"
    }
    assert {
        file.relative_to(result.out).as_posix() for file in result.out.rglob("*") if file.is_file()
    } == copied | {"selfpos.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_provenance_names_inputs_and_coefficients(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    from safetensors import safe_open

    result = merge(
        tiny_base,
        tiny_specialists[:2],
        "linear",
        tmp_path / "out",
        weights=[0.3, 0.6],
        provenance={"run": "r1"},
    )
    manifest = read_manifest(result.out)
    assert manifest is not None and manifest["run"] == "r1" and manifest["kind"] == "merge"
    assert manifest["base"]["hash"] == content_hash(tiny_base)
    assert [source["hash"] for source in manifest["merge"]["sources"]] == [
        content_hash(source) for source in tiny_specialists[:2]
    ]
    assert manifest["merge"]["coefficients"] == [0.3, 0.6] == result.coefficients
    with safe_open(result.out / "model.safetensors", "np") as file:
        stored = json.loads(file.metadata()["selfpos"])
        assert file.metadata()["format"] == "pt"
    # the copy in the weights says nothing about places on disk, so that the same merge elsewhere gives the
    # same bytes
    assert str(tiny_base) not in json.dumps(stored) and "path" not in json.dumps(stored)
    assert stored["merge"]["sources"] == [
        {"name": s["name"], "hash": s["hash"]} for s in manifest["merge"]["sources"]
    ]
    assert stored["merge"]["coefficients"] == [0.3, 0.6]
    # a merge has its base's hash in its manifest, so it can be a vector again
    merge(tiny_base, [result.out, tiny_specialists[2]], "average", tmp_path / "again")


def test_equal_merges_give_equal_bytes(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    for method in ("slerp", "ties"):
        one = merge(tiny_base, tiny_specialists, method, tmp_path / f"{method}1", threads=1)
        two = merge(tiny_base, tiny_specialists, method, tmp_path / f"{method}2", threads=3)
        for file in ("model.safetensors", "2_Dense/model.safetensors", "selfpos.json"):
            assert (one.out / file).read_bytes() == (two.out / file).read_bytes()


def to_dtype(folder: Path, out: Path, dtype: torch.dtype) -> Path:
    shutil.copytree(folder, out)
    for file in out.rglob("*.safetensors"):
        tensors = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})
    return out


def test_number_formats(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    half = to_dtype(tiny_specialists[0], tmp_path / "half", torch.bfloat16)
    start, vectors = vectors_of(tiny_base, [half, tiny_specialists[1]])
    wide = merge(tiny_base, [half, tiny_specialists[1]], "average", tmp_path / "wide")
    check(wide.out, start, np.mean(vectors, axis=0))
    assert not wide.warnings
    narrow = merge(tiny_base, [half, tiny_specialists[1]], "average", tmp_path / "narrow", dtype="bfloat16")
    assert "bfloat16" in narrow.warnings[0]
    expected = {
        key: value.float().to(torch.bfloat16)
        for key, value in load_file(wide.out / "model.safetensors").items()
    }
    found = load_file(narrow.out / "model.safetensors")
    assert all(torch.equal(found[key], value) for key, value in expected.items() if value.is_floating_point())
    assert json.loads((narrow.out / "config.json").read_text())["dtype"] == "bfloat16"
    bases = [to_dtype(tiny_base, tmp_path / "base16", torch.float16)]
    both = merge(bases[0], [half], "average", tmp_path / "both")
    assert (
        load_file(both.out / "model.safetensors")["embeddings.word_embeddings.weight"].dtype == torch.float32
    )


def test_adapters_and_models_in_one_merge(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    expected = make_adapter(tiny_base, tmp_path / "adapter", use_rslora=True)
    start, vectors = vectors_of(tiny_base, tiny_specialists[:1])
    lora = ref.flat({key: expected.get(key, np.zeros_like(value)) for key, value in start.items()})
    for method, merged in [
        ("linear", 0.5 * vectors[0] + 0.25 * lora),
        ("ties", ref.join([ref.trim(vectors[0], 0.2), ref.trim(lora, 0.2)], [0.5, 0.25])),
    ]:
        result = merge(
            tiny_base,
            [tiny_specialists[0], tmp_path / "adapter"],
            method,
            tmp_path / method,
            weights=[0.5, 0.25],
        )
        check(result.out, start, merged, atol=5e-6)
        manifest = read_manifest(result.out)
        assert manifest is not None and [source["name"] for source in manifest["merge"]["sources"]] == [
            "alpha",
            "adapter",
        ]


def test_sharded_output(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    whole = merge(tiny_base, tiny_specialists, "average", tmp_path / "whole")
    shards = merge(tiny_base, tiny_specialists, "average", tmp_path / "shards", shard_size=50_000)
    assert (
        len(list(shards.out.glob("model-*.safetensors"))) > 1
        and not (shards.out / "model.safetensors").exists()
    )
    np.testing.assert_array_equal(
        *(
            SentenceTransformer(str(folder), device="cpu").encode(["a b", "c"])
            for folder in (whole.out, shards.out)
        )
    )
    again = merge(shards.out, [tiny_specialists[0]], "average", tmp_path / "from-shards")
    assert len(ref.load(again.out)) == len(ref.load(whole.out))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "tise"}, "did you mean 'ties'"),
        ({"method": "ties", "params": {"densty": 0.2}}, "densty'; did you mean 'density'"),
        ({"method": "ties", "params": {"density": 1.5}}, "density.*between 0 and 1, found 1.5"),
        ({"method": "ties", "params": {"density": [0.1, 0.2]}}, "2 values for 3 vectors"),
        ({"method": "ties", "params": {"normalize": "yes"}}, "true or false"),
        ({"method": "ties", "params": {"scope": "layer"}}, "one of model, tensor"),
        ({"method": "average", "weights": [1, 1, 1]}, "average takes no weights"),
        ({"method": "average", "params": {"x": 1}}, "no parameters"),
        ({"method": "linear", "weights": [1, 1]}, "2 weights for 3 vectors"),
        ({"method": "linear", "weights": [1, 1, float("nan")]}, "must be numbers"),
        ({"method": "slerp", "weights": [1, -1, 1]}, "which is 0"),
        ({"method": "linear", "rank": 4}, "a rank is for the output 'adapter' only"),
        ({"method": "linear", "threads": 0}, "'threads': Input should be greater than or equal to 1"),
        ({"method": "linear", "output": "adaptor"}, "'output': Input should be 'model' or 'adapter'"),
        (
            {"method": "task-arithmetic", "weights": [3e38, 3e38, 3e38], "params": {"scale": 3e38}},
            "beyond the range of float32",
        ),
        (
            {"method": "linear", "weights": [1e7, 0, 0], "dtype": "float16"},
            "beyond the range of float16; write bfloat16",
        ),
        ({"method": "linear", "dtype": "float31"}, "number format named 'float31'; did you mean 'float32'"),
    ],
)
def test_wrong_requests_write_nothing(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SelfposError, match=message):
        merge(tiny_base, tiny_specialists, out=tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_numbers_are_named(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, value: float
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(tiny_specialists[0], bad)
    tensors = load_file(bad / "model.safetensors")
    tensors["encoder.layer.1.output.dense.weight"][3, 2] = value
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    for method in ("average", "ties", "slerp"):
        with pytest.raises(
            SelfposError,
            match=r"bad/model.safetensors: tensor encoder.layer.1.output.dense.weight holds -?(nan|inf)",
        ):
            merge(tiny_base, [bad, tiny_specialists[1]], method, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_a_base_that_reads_no_text_is_refused(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "base" / name).unlink(missing_ok=True)
    with pytest.raises(SelfposError, match="has no tokenizer"):
        plan(tmp_path / "base", tiny_specialists, "linear", tmp_path / "out")
    taken = plan(tmp_path / "base", tiny_specialists, "linear", tmp_path / "out", take_from="alpha")
    assert taken.frame.path == tiny_specialists[0]


def test_a_task_type_that_no_one_knows_is_no_hindrance(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_specialists[0], tmp_path / "other")
    write_manifest(tmp_path / "other", {"tasks": {"a": {"type": "no-such-type"}}})
    config = tmp_path / "other" / "config_sentence_transformers.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "prompts": {}})
    )  # asked for whatever prompts of any question there are
    base = shutil.copytree(tmp_path / "other", tmp_path / "base")
    (base / "selfpos.json").unlink()
    assert plan(base, [tmp_path / "other"], "average", tmp_path / "out").keys


def test_existing_output_is_kept(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SelfposError, match="exists already"):
        merge(tiny_base, tiny_specialists, "average", tmp_path / "out")
    with pytest.raises(SelfposError, match="no vectors"):
        plan(tiny_base, [], "average", tmp_path / "new")


def test_merging_imports_neither_torch_nor_transformers(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from selfpos.merging import merge\n"
        "merge(Path(sys.argv[1]), [Path(p) for p in sys.argv[3:]], 'ties', Path(sys.argv[2]))\n"
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'scipy') if m in sys.modules])"
    )
    command = [
        sys.executable,
        "-c",
        program,
        str(tiny_base),
        str(tmp_path / "out"),
        *map(str, tiny_specialists),
    ]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_every_method_says_what_it_is() -> None:
    for name, method in METHODS.items():
        assert get_method(name) is method
        assert method.summary.endswith(".") and len(method.summary) < 125, name
        assert "Source:" in method.doc and "Prefer" in method.doc, name
        assert method.reference.startswith("https://"), name
        assert all(parameter.help for parameter in method.parameters), name


@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "breadcrumbs", "sce"])
@pytest.mark.parametrize("share_sampled", [128, 2])
def test_progress_ends_at_its_total(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    method: str,
    share_sampled: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a method reads first, and however much of it as a sample, its bar ends at the total."""
    from contextlib import contextmanager

    counted: dict[str, float] = {"total": 0.0, "done": 0.0}

    class Bar:
        def advance(self, amount: float = 1, **numbers: float | str) -> None:
            counted["done"] += amount

    @contextmanager
    def progress(title: str, total: float, *, unit: str) -> Any:
        counted["total"] = total
        yield Bar()

    module = sys.modules["selfpos.merging.merge"]  # the package has a function of this name
    monkeypatch.setattr(module, "progress", progress)
    monkeypatch.setattr(module, "SHOWN_FROM", 0)
    monkeypatch.setattr("selfpos.merging.maths.thresholds.SAMPLED", share_sampled)
    merge(tiny_base, tiny_specialists[:2], method, tmp_path / "out")
    assert counted["done"] == pytest.approx(counted["total"])
