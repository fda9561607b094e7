"""Several merges of the same models in one pass: each as if it were alone."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from selfpos.errors import SelfposError
from selfpos.merging import METHODS, merge
from selfpos.merging.merge import MOST_FILES
from selfpos.merging.output import weights as write
from selfpos.merging.stream import Stream
from selfpos.positioning.coefficients import Coefficients, write_coefficients
from selfpos.positioning.separated import merge_method
from selfpos.searched_merge import merge_by_coefficients
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest
from selfpos.storage.tensor_file import TensorFileWriter
from selfpos.sweep import merge_sweep, read_sweep
from tests.helpers.adapters import make_adapter
from tests.helpers.command import CommandLine

REQUIRED = {"nearswap": {"t": 0.001}}


def written(file: Path, merges: object) -> Path:
    file.write_text(json.dumps({"merges": merges}))  # JSON is YAML
    return file


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_method_gives_the_bytes_of_a_merge_alone(
    count: int, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    sources = (tiny_specialists * 2)[:count]
    fitting = {
        name: {"method": name, "params": REQUIRED.get(name, {}), "seed": 3}
        for name, method in METHODS.items()
        if not method.probe and method.fewest <= count <= (method.most or count)
    }
    merges = {**fitting, "ties-sparse": {"method": "ties", "params": {"density": 0.1}, "weights": 0.7}}
    made = merge_sweep(tiny_base, sources, read_sweep(written(tmp_path / "s.yaml", merges)), tmp_path / "out")
    assert [path.name for path in made] == list(merges)
    for path, given in zip(made, merges.values(), strict=True):
        method, params = str(given["method"]), given["params"]
        options = {name: given[name] for name in ("weights", "seed") if name in given}
        alone = merge(
            tiny_base, sources, method, tmp_path / f"alone-{path.name}", params=params, **options
        ).out
        for name in ("model.safetensors", "selfpos.json"):
            assert (path / name).read_bytes() == (alone / name).read_bytes(), path.name
        assert (path / "README.md").is_file()


def test_a_stopped_sweep_continues(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    merges = {"mean": {"method": "average"}, "half": {"method": "linear", "weights": 0.5}}
    sweep = read_sweep(written(tmp_path / "s.yaml", merges))
    options = {"threads": 1}
    (whole, _) = merge_sweep(tiny_base, tiny_specialists, sweep, tmp_path / "whole", **options)
    monkeypatch.setattr(write, "CHECKPOINT_SECONDS", 0)
    real, calls = TensorFileWriter.write, []

    def stopping(writer: TensorFileWriter, *words: object) -> None:
        calls.append(writer)
        if len(calls) == 12:
            raise KeyboardInterrupt
        real(writer, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(TensorFileWriter, "write", stopping)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt, match="continues from there"):
        merge_sweep(tiny_base, tiny_specialists, sweep, out, **options)
    assert not list(out.glob("[!.]*")) and len(list(out.glob(".*.tmp-*"))) == 2
    with caplog.at_level("INFO", logger="selfpos"):
        made = merge_sweep(tiny_base, tiny_specialists, sweep, out, **options)
    assert "continuing an interrupted merge" in caplog.text
    assert (made[0] / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    before = (made[1] / "model.safetensors").stat().st_mtime_ns
    assert merge_sweep(tiny_base, tiny_specialists, sweep, out, **options) == made  # complete ones stay
    assert (made[1] / "model.safetensors").stat().st_mtime_ns == before
    (made[0] / "model.safetensors").unlink()
    with pytest.raises(SelfposError, match="mean exists already and is not overwritten"):
        merge_sweep(tiny_base, tiny_specialists, sweep, out, **options)
    other = read_sweep(written(tmp_path / "s.yaml", {"mean": {"method": "slerp"}}))
    with pytest.raises(SelfposError, match="mean exists already and is not overwritten"):
        merge_sweep(tiny_base, tiny_specialists[:2], other, out, **options)


def test_the_command_line_sweeps_scales_and_coefficients(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    hashes = [content_hash(path) for path in tiny_specialists]
    values = [0.1, 0.4, 0.2, 0.3][: len(hashes)]
    found = Coefficients(
        ["a", "b", "c", "d"][: len(hashes)], hashes, values, None, "b", content_hash(tiny_base)
    )
    write_coefficients(tmp_path / "found.coefficients.json", found)
    scales = {f"scale-{scale}": {"method": "task-arithmetic", "weights": scale} for scale in (0.2, 0.4)}
    merges = scales | {"found": {"coefficients": "found.coefficients.json"}}
    words = ["merge", "--base", tiny_base, "--vectors", *tiny_specialists]
    words += ["--sweep", written(tmp_path / "sweep.yaml", merges), "--out", tmp_path / "out"]
    shown = selfpos(*words, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "scale-0.4\nmethod        task-arithmetic" in shown.stdout
    assert not (tmp_path / "out").exists()
    done = selfpos(*words)
    assert done.stdout.split() == [str(tmp_path / "out" / name) for name in merges], done.stderr
    assert read_manifest(tmp_path / "out" / "found")["merge"]["coefficients"] == values
    base, near, far = (
        load_file(folder / "model.safetensors")
        for folder in (tiny_base, tmp_path / "out" / "scale-0.2", tmp_path / "out" / "scale-0.4")
    )
    key = max(base, key=lambda name: base[name].size)
    assert (far[key] - base[key]) == pytest.approx(2 * (near[key] - base[key]), abs=1e-7)
    turned = selfpos(*words[:4], *tiny_specialists[::-1], *words[-4:-1], tmp_path / "turned")
    assert turned.returncode == 2 and "give the vectors in this order" in turned.stderr


@pytest.mark.parametrize(
    ("merges", "refusal"),
    [
        ({}, "merges"),
        ({"a": {"method": "linaer"}}, "a: there is no merging method named 'linaer'.*'linear'"),
        ({"a": {"method": "ties", "params": {"densty": 0.2}}}, "a: .*'densty'"),
        ({"a": {"method": "fisher"}}, "a: method fisher gathers statistics of data"),
        ({"a": {}}, "give a method, or a file of coefficients"),
        ({"a": {"method": "ties", "coefficients": "x"}}, "give a method, or a file of coefficients"),
        ({"a": {"weights": 1, "coefficients": "x"}}, "omit the other fields"),
        ({"../a": {"method": "ties"}}, "expected letters, digits"),
        ({"a": {"coefficients": "x.json"}}, "there is no coefficients file .*x.json"),
        ({"a": {"method": "self-positioning"}}, "a: method self-positioning searches for its coefficients"),
    ],
)
def test_what_no_sweep_can_do_is_refused(
    merges: object, refusal: str, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(SelfposError, match=refusal):
        sweep = read_sweep(written(tmp_path / "s.yaml", merges))
        merge_sweep(tiny_base, tiny_specialists, sweep, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_that_a_sweep_says_itself_are_refused(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    words = ["merge", "--base", tiny_base, "--vectors", *tiny_specialists, "--out", tmp_path / "out"]
    words += ["--sweep", written(tmp_path / "s.yaml", {"a": {"method": "average"}})]
    for option in (["--method", "ties"], ["--weights", "1"], ["--adapter"], ["--probe", "p"]):
        done = selfpos(*words, *option)
        assert done.returncode == 2 and f"{option[0]} does not go with --sweep" in done.stderr


def test_numbers_out_of_range_are_refused_with_the_name_of_the_merge(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    merges = {"near": {"method": "linear"}, "far": {"method": "linear", "weights": 1e11}}
    sweep = read_sweep(written(tmp_path / "s.yaml", merges))
    with pytest.raises(SelfposError, match=r"^far: method linear: .*beyond the range of float16"):
        merge_sweep(tiny_base, tiny_specialists, sweep, tmp_path / "out", dtype="float16")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_name_that_yaml_takes_for_a_number_is_asked_for_in_quotes(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("merges:\n  0.5: {method: average}\n")
    with pytest.raises(SelfposError, match=r"field 'merges\.0\.5': the name is no text; put it in quotes"):
        read_sweep(tmp_path / "s.yaml")


def test_a_sweep_of_more_files_than_may_be_open(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    merges = {f"scale-{scale}": {"method": "linear", "weights": scale} for scale in range(8)}
    sweep = read_sweep(written(tmp_path / "s.yaml", merges))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(list(Path("/dev/fd").iterdir()))
    limit = open_now + MOST_FILES + 30
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        made = merge_sweep(tiny_base, tiny_specialists, sweep, tmp_path / "out", shard_size=2000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    files = [file.relative_to(made[7]) for file in made[7].rglob("*.safetensors")]
    assert 8 * len(files) > limit
    alone = merge(tiny_base, tiny_specialists, "linear", tmp_path / "alone", weights=7, shard_size=2000).out
    assert all((made[7] / file).read_bytes() == (alone / file).read_bytes() for file in files)


def test_coefficients_give_the_bytes_of_a_merge_by_them(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    hashes, names = [content_hash(path) for path in tiny_specialists], ["alpha", "beta", "gamma"]
    merges = {}
    for name, method, seed in (
        ("plain", merge_method(False), {}),
        ("separated", merge_method(True), {"seed": 4}),
    ):
        file = tmp_path / f"{name}.json"
        values = [0.1, 0.4, 0.2]
        known = Coefficients(names, hashes, values, None, "base", content_hash(tiny_base), dict(seed), method)
        write_coefficients(file, known)
        merges[name] = {"coefficients": file.name}
    sweep = read_sweep(written(tmp_path / "s.yaml", merges))
    for path in merge_sweep(tiny_base, tiny_specialists, sweep, tmp_path / "out", seed=7):
        file = tmp_path / f"{path.name}.json"
        alone = merge_by_coefficients(file, tiny_base, tiny_specialists, tmp_path / path.name, seed=7)
        for written_file in ("model.safetensors", "selfpos.json"):
            assert (path / written_file).read_bytes() == (alone / written_file).read_bytes(), path.name


def test_complete_adapters_stay_and_folders_of_others_are_not_overwritten(
    tiny_base: Path, tmp_path: Path
) -> None:
    adapters = [tmp_path / name for name in ("a", "b")]
    for seed, adapter in enumerate(adapters):
        make_adapter(tiny_base, adapter, seed=seed)
    sweep = read_sweep(written(tmp_path / "s.yaml", {"mean": {"method": "average"}}))
    made = merge_sweep(tiny_base, adapters, sweep, tmp_path / "out", output="adapter", rank=2)
    assert merge_sweep(tiny_base, adapters, sweep, tmp_path / "out", output="adapter", rank=2) == made
    (made[0] / "selfpos.json").write_text(json.dumps({"kind": "merge", "base": {}, "merge": {}}))
    with pytest.raises(SelfposError, match="exists already and is not overwritten"):
        merge_sweep(tiny_base, adapters, sweep, tmp_path / "out", output="adapter", rank=2)


def test_each_merge_runs_on_no_more_threads_than_its_memory_allows(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: dict[str, tuple[int, int]] = {}

    def noting(outputs: Sequence[write.Output], stream: Stream) -> None:
        used.update({output.plan.out.name: (stream.threads, output.plan.threads) for output in outputs})
        write.write_weights(outputs, stream)

    monkeypatch.setattr(sys.modules["selfpos.merging.merge"], "write_weights", noting)
    merges = {"average": {"method": "average"}, "ties": {"method": "ties"}}
    options = {"threads": 4, "budget": 60 << 20}
    sweep = read_sweep(written(tmp_path / "s.yaml", merges))
    merge_sweep(tiny_base, tiny_specialists, sweep, tmp_path / "out", **options)
    assert used["ties"][0] == used["ties"][1] < used["average"][0] == 4
