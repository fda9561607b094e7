"""Tensors stored twice, tensors taken from a named model, plans in words, data statistics, memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from selfpos.commands.methods import needs_of
from selfpos.errors import SelfposError
from selfpos.merging import METHODS, merge, plan
from selfpos.merging.method import Method, combination, kernel
from selfpos.merging.output.provenance import describe
from selfpos.merging.stream import Chunk
from tests.helpers import reference as ref
from tests.helpers.adapters import changed
from tests.helpers.folders import difference, make_folder, moved, random_state


def twice(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return state | {"encoder.embed_tokens.weight": state["shared.weight"].copy()}


def test_tensors_stored_twice_are_merged_once(tmp_path: Path) -> None:
    shapes = {"shared.weight": (300, 20), "layers.0.w.weight": (300, 20)}
    generator = np.random.default_rng(0)
    base = random_state(generator, shapes=shapes)
    tuned = [moved(base, random_state(generator, 0.1, shapes)) for _ in range(2)]
    place = make_folder(tmp_path / "base", twice(base))
    sources = [make_folder(tmp_path / f"v{index}", twice(state)) for index, state in enumerate(tuned)]
    single = make_folder(tmp_path / "single", base)
    alone = [make_folder(tmp_path / f"s{index}", state) for index, state in enumerate(tuned)]
    made = plan(place, sources, "ties", tmp_path / "out")
    assert made.tied == {"shared.weight": "encoder.embed_tokens.weight"} or made.tied == {
        "encoder.embed_tokens.weight": "shared.weight"
    }
    for method in ("ties", "dare-linear", "slerp"):
        found = load_file(merge(place, sources, method, tmp_path / method).out / "model.safetensors")
        np.testing.assert_array_equal(found["shared.weight"], found["encoder.embed_tokens.weight"])
        if method != "dare-linear":  # one copy in the statistics, so all is as if the second were not there
            expected = load_file(
                merge(single, alone, method, tmp_path / f"{method}-single").out / "model.safetensors"
            )
            for key, value in expected.items():
                np.testing.assert_allclose(found[key], value, atol=1e-7)


def test_what_differs_is_taken_from_a_named_model(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    other = tmp_path / "other"
    changed(tiny_specialists[0], other, "tokenizer")
    pooling = json.loads((other / "1_Pooling" / "config.json").read_text())
    (other / "1_Pooling" / "config.json").write_text(json.dumps(pooling | {"pooling_mode": "cls"}))
    sources = [other, tiny_specialists[1]]
    with pytest.raises(SelfposError, match=r"pooling is 'cls'.*tokenizer differs"):
        merge(tiny_base, sources, "average", tmp_path / "out")
    with pytest.raises(SelfposError, match="no model to take from named 'othr'; did you mean 'other'"):
        merge(tiny_base, sources, "average", tmp_path / "out", take_from="othr")
    for name, folder in [("base", tiny_base), ("other", other)]:
        result = merge(tiny_base, sources, "average", tmp_path / f"from-{name}", take_from=name)
        assert any("tokenizer differs" in warning and name in warning for warning in result.warnings)
        frame, found = ref.load(folder), ref.load(result.out)
        table = "embeddings.word_embeddings.weight"
        if name == "base":  # rows are found by their tokens, of which two have changed places
            rows = [ref.load(source)[table] for source in sources]
            rows[0] = rows[0][[*range(5), 6, 5, *range(7, len(rows[0]))]]
            np.testing.assert_allclose(found[table], np.mean(rows, axis=0), atol=1e-6)
        else:
            np.testing.assert_array_equal(found[table], frame[table])
        key = "embeddings.position_embeddings.weight"
        np.testing.assert_allclose(
            found[key], np.mean([ref.load(source)[key] for source in sources], axis=0), atol=1e-6
        )
        assert (result.out / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
        mode = SentenceTransformer(str(result.out), device="cpu")[1].get_config_dict()["pooling_mode"]
        assert mode == ("mean" if name == "base" else "cls")


def test_matrices_that_cannot_be_merged_are_refused_where_they_differ(tmp_path: Path) -> None:
    """Quantised weights; position ids, which all models share, and single numbers of steps are no matter."""
    base = random_state(np.random.default_rng(0), shapes={"layers.0.norm": (4,)})
    base |= {
        "layers.0.w": np.ones((4, 4), np.int8),
        "position_ids": np.arange(9)[None],
        "steps": np.array([1]),
    }
    place = make_folder(tmp_path / "base", base)
    same = make_folder(tmp_path / "same", base | {"steps": np.array([2])})
    other = make_folder(tmp_path / "other", base | {"layers.0.w": np.zeros((4, 4), np.int8)})
    plan(place, [same], "linear", tmp_path / "out")
    for take_from in (None, "base"):
        with pytest.raises(
            SelfposError,
            match=r"other changes tensor layers\.0\.w, which is int8 in the base and cannot be merged",
        ):
            merge(place, [same, other], "linear", tmp_path / "out", take_from=take_from)


def test_a_map_from_tokens_to_rows_must_be_the_same(tmp_path: Path) -> None:
    """model2vec stores a vocabulary's rows once and a list of numbers beside them."""
    base = random_state(np.random.default_rng(0), shapes={"embeddings": (4, 4)})
    place = make_folder(tmp_path / "base", base | {"mapping": np.arange(6) % 4})
    other = make_folder(tmp_path / "other", base | {"mapping": np.arange(6)[::-1] % 4})
    with pytest.raises(SelfposError, match="other changes tensor mapping, which is int64 in the base"):
        plan(place, [other], "linear", tmp_path / "out")


def test_an_output_below_a_file_is_refused(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SelfposError, match="file, which is a file; choose another output"):
        merge(tiny_base, tiny_specialists, "average", tmp_path / "file" / "a" / "out")


def test_tensors_only_some_have_are_taken_whole(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    changed(tiny_specialists[0], tmp_path / "short", "shape")
    key = "encoder.layer.0.output.dense.bias"
    sources = [tmp_path / "short", tiny_specialists[1]]
    for name, folder in [("base", tiny_base), ("short", sources[0])]:
        out = merge(tiny_base, sources, "average", tmp_path / f"from-{name}", take_from=name).out
        np.testing.assert_array_equal(ref.load(out)[key], ref.load(folder)[key])
        np.testing.assert_allclose(
            ref.load(out)["pooler.dense.bias"],
            np.mean([ref.load(source)["pooler.dense.bias"] for source in sources], axis=0),
            atol=1e-6,
        )


def test_an_output_within_an_input_is_refused(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    for folder in (tiny_base, tiny_specialists[1]):
        with pytest.raises(SelfposError, match="lies within"):
            merge(tiny_base, tiny_specialists, "average", folder / "merged" / "out")
        assert not (folder / "merged").exists()


def test_plans_say_what_will_be_done(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    made = plan(
        tiny_base, tiny_specialists, "ties", tmp_path / "out", dtype="bfloat16", weights=["0..1", 1, 2]
    )
    rows = dict(describe(made))
    assert (
        rows["method"].startswith("ties: TIES")
        and rows["density"] == "[0.2, 0.2, 0.2]"
        and "different by tensor" in rows["weights"]
    )
    assert "2 passes" in rows["read"] and "bfloat16" in rows["write"] and "45 %" in rows["warning"]
    size = sum(file.stat().st_size for file in tiny_base.rglob("*.safetensors"))
    assert made.bytes_written == pytest.approx(size / 2, rel=0.2) and made.bytes_read == pytest.approx(
        8 * size, rel=0.1
    )
    assert made.memory < made.options.budget
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir())
    assert needs_of(METHODS["nearswap"]) == "one vector"


def test_a_budget_takes_threads_away_and_refuses_what_one_thread_exceeds(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    many, few = (
        plan(tiny_base, tiny_specialists, "linear", out, threads=64, budget=budget << 20)
        for budget in (512, 10)
    )
    assert many.threads == 64 and 1 <= few.threads < 10 and few.memory <= 10 << 20 < many.memory
    for method, message in [
        ("linear", r"linear needs about 3 MB of memory, and may use 1 MB; allow it that much"),
        ("tsv-m", "its largest matrix"),
    ]:
        with pytest.raises(SelfposError, match=message):
            merge(tiny_base, tiny_specialists, method, out, budget=1 << 20)
    assert not list(tmp_path.iterdir())


def test_devices_that_are_not_there_are_refused(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(SelfposError, match="did you mean 'cuda'"):
        merge(tiny_base, tiny_specialists, "average", tmp_path / "out", device="cude")
    with pytest.raises(SelfposError, match="there is no device cuda:63"):
        merge(tiny_base, tiny_specialists, "average", tmp_path / "out", device="cuda:63")


@pytest.fixture
def own_method() -> Any:
    """Methods registered in a test are gone after it."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


def test_methods_may_ask_for_data_statistics(tmp_path: Path, own_method: None) -> None:
    """A Fisher-like method: statistics of the tensors' shapes come in pieces, others whole, absent ones not
    at all."""

    @kernel(reference="https://example.org", probe=("importance",))
    def weighted_by_data(chunk: Chunk, *, floor: float = 0.0) -> Any:
        """A test's method."""
        parts = chunk.probe.get("importance")
        if parts is None:
            return chunk.vectors[0] * 0.0
        mass = sum(part + floor for part in parts)
        return sum(vector * (part + floor) for vector, part in zip(chunk.vectors, parts, strict=True)) / mass

    shapes = {"a": (100_000,), "b": (5, 4)}
    generator = np.random.default_rng(0)
    base = random_state(generator, shapes=shapes)
    tuned = [moved(base, random_state(generator, shapes=shapes)) for _ in range(2)]
    place = make_folder(tmp_path / "base", base)
    sources = [make_folder(tmp_path / f"v{index}", state) for index, state in enumerate(tuned)]
    files = [tmp_path / f"i{index}.safetensors" for index in range(2)]
    importance = [generator.random(100_000).astype(np.float32) for _ in files]
    for file, values in zip(files, importance, strict=True):
        save_file({"a": values}, file)
    with pytest.raises(
        SelfposError, match="needs the statistics 'importance' of each of the 2 vectors, found 0"
    ):
        merge(place, sources, "weighted-by-data", tmp_path / "out")
    with pytest.raises(SelfposError, match="has no use for the statistics 'importance'"):
        merge(place, sources, "average", tmp_path / "out", statistics={"importance": files})
    out = merge(place, sources, "weighted-by-data", tmp_path / "out", statistics={"importance": files}).out
    found = difference(base, load_file(out / "model.safetensors"))
    vectors = [difference(base, state)["a"] for state in tuned]
    np.testing.assert_allclose(found["a"], np.average(vectors, axis=0, weights=importance), atol=1e-5)
    np.testing.assert_array_equal(found["b"], 0)


def test_names_are_registered_once(own_method: None) -> None:
    with pytest.raises(ValueError, match="registered twice"):

        @combination(reference="https://example.org")
        def average(weights: list[float]) -> list[float]:
            """Another."""
            return weights

    assert isinstance(METHODS["average"], Method)


def test_names_given_stand_in_the_provenance(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    elsewhere = [
        shutil.copytree(source, tmp_path / f"copy{index}")
        for index, source in enumerate(tiny_specialists[:2])
    ]
    one = merge(
        tiny_base,
        tiny_specialists[:2],
        "ties",
        tmp_path / "one",
        base_name="org/base",
        names=["org/a", "org/b"],
    )
    two = merge(
        tiny_base, elsewhere, "ties", tmp_path / "two", base_name="org/base", names=["org/a", "org/b"]
    )
    assert [source["name"] for source in one.manifest["merge"]["sources"]] == [
        "org/a",
        "org/b",
    ] and one.manifest["base"]["name"] == "org/base"
    assert (one.out / "model.safetensors").read_bytes() == (two.out / "model.safetensors").read_bytes()
    with pytest.raises(SelfposError, match="found 1 names for 2 vectors"):
        merge(tiny_base, elsewhere, "ties", tmp_path / "out", names=["x"])


MEASURE = """
import re, sys
from pathlib import Path
from selfpos.merging import merge
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
import threading, time
top, start = [0.0], anonymous()
def watch():
    while True:
        top[0] = max(top[0], anonymous()); time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
merge(Path(sys.argv[1]), [Path(name) for name in sys.argv[4:]], sys.argv[3], Path(sys.argv[2]), threads=1)
print(top[0] - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(("method", "few", "many"), [("ties", 40, 60), ("iso-c", 30, 30)])
def test_memory_does_not_grow_with_models_or_their_number(
    tmp_path: Path, method: str, few: float, many: float
) -> None:
    """Megabytes of anonymous memory beyond those after import: 64 MB of weights each, two or eight of
    them."""
    shapes = {f"layers.{index}.w": (2000, 1000) if method == "ties" else (2000, 200) for index in range(2)}
    base = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    place = make_folder(tmp_path / "base", base)
    source = make_folder(tmp_path / "v", random_state(np.random.default_rng(0), shapes=shapes))
    used = {}
    for count in (2, 8):
        command = [
            sys.executable,
            "-c",
            MEASURE,
            str(place),
            str(tmp_path / f"out{count}"),
            method,
            *[str(source)] * count,
        ]
        used[count] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert (
            used[count]
            < plan(place, [source] * count, method, tmp_path / "out", threads=1).memory / 2**20 + 20
        )
    assert used[8] < many and used[2] < few, used
