"""Pickled weights are refused by every verb that would load them, whether they hold code or not."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfpos.errors import SelfposError
from selfpos.evaluation.load import load_model
from selfpos.evaluation.run import check_tasks
from selfpos.storage.file_kinds import WEIGHTS
from selfpos.storage.model_folder import open_model
from selfpos.training.models import check_base
from tests.helpers.command import CommandLine, said


class Planted:
    """What a pickle with code in it holds."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


@pytest.fixture(params=["honest", "code"])
def pickled(request: pytest.FixtureRequest, tiny_base: Path, tmp_path: Path) -> Path:
    """A model whose root or Dense module has a pickle for its weights."""
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    if request.param == "honest":
        weights = model / "2_Dense" / WEIGHTS
        torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    else:
        weights = model / WEIGHTS
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    weights.unlink()
    return model


@pytest.mark.parametrize(
    "opened", [check_base, load_model, open_model, lambda model: check_tasks(model, [], model)]
)
def test_a_pickle_is_refused_with_the_way_out(opened: object, pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match=r"pytorch_model\.bin.*save it again"):
        opened(pickled)  # type: ignore[operator]
    assert not (tmp_path / "ran").exists()


def test_verbs_refuse_a_pickle(selfpos: CommandLine, pickled: Path, tmp_path: Path) -> None:
    data = tmp_path / "x.jsonl"
    data.write_text('{"sentence1": "a", "sentence2": "b", "score": 1}\n' * 4)
    out = ("--out", tmp_path / "out")
    told = said(selfpos("finetune", "--base", pickled, "--task", "sts", "--data", data, "--probe", 0, *out))
    assert "pickle" in told
    assert "pickle" in said(selfpos("eval-mteb", pickled, "--tasks", "corpus", *out))
    assert not (tmp_path / "out").exists() and not (tmp_path / "ran").exists()


def test_an_adapters_pickle_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(SelfposError, match=r"adapter_model\.bin is a pickle"):
        check_base(model)


def test_allowed_pickles_are_read_as_tensors_and_code_is_not_run(
    selfpos: CommandLine, pickled: Path, tiny_base: Path, tmp_path: Path
) -> None:
    honest = (pickled / "2_Dense" / "pytorch_model.bin").exists()
    words = ("--method", "average", "--allow-pickle", "--out", tmp_path / "out")
    done = selfpos(
        "merge", "--base", tiny_base, "--vectors", pickled, *words, XDG_CACHE_HOME=str(tmp_path / "c")
    )
    if not honest:
        assert "holds more than tensors" in said(done) and not (tmp_path / "ran").exists()
        assert not (tmp_path / "out").exists()
        return
    assert done.returncode == 0, done.stderr
    for file in tiny_base.rglob("*.safetensors"):
        kept, merged = load_file(file), load_file(tmp_path / "out" / file.relative_to(tiny_base))
        assert all(torch.equal(kept[name], merged[name]) for name in kept)
