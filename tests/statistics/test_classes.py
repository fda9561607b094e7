"""Fisher and RegMean over rerankers, SPLADE and ColBERT, against gradients and activations taken by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.numpy import load_file

from selfpos import operations
from selfpos.data.probe import ProbeTask, read_probe, write_probe
from selfpos.errors import SelfposError
from selfpos.merging import plan
from selfpos.positioning.position import probe_for
from selfpos.reproduction import reproduce
from selfpos.statistics import fisher, gathered
from selfpos.statistics.gather import task_probe
from selfpos.storage.model_class import class_of
from selfpos.tasks import get_task
from tests.helpers.adapters import state
from tests.helpers.families import colbert, splade
from tests.helpers.models import make_specialist
from tests.helpers.rerankers import reranker

BASES = {"CrossEncoder": reranker, "SparseEncoder": splade, "MultiVectorEncoder": colbert}
RANKED = {
    "query": ["a b c", "d e", "f g h i", "j k", "l m", "n", "o p q", "r s"],
    "candidate": ["k l m", "n o p q", "r", "s t", "u v w", "x", "y z a", "b c d e"],
    "label": [1.0, 0.0, 0.7, 0.0, 1.0, 0.2, 0.0, 1.0],
}
ASKED = {
    "anchor": ["a b c", "d e", "a b c"],
    "positive": ["k l m", "n o p q", "r s"],
    "negative": ["t", "u v w", "t"],
}


def probe_of(base: Path) -> dict[str, ProbeTask]:
    """A probe set of one task, `one`, that models of the class of `base` learn."""
    ranked = class_of(base) == "CrossEncoder"
    task_type = get_task("reranking" if ranked else "retrieval")
    task = ProbeTask("one", task_type, Dataset.from_dict(RANKED if ranked else ASKED))
    return probe_for(base, {"one": task})


def statistics_of(base: Path, specialist: Path, method: str, place: Path) -> dict[str, np.ndarray]:
    """What `method` gathers of a specialist on the probe of `probe_of`."""
    with gathered(
        plan(base, [specialist], method, place / "out"), probe_of(base), place / "kept"
    ) as complete:
        ((statistic,),) = complete.statistics.values()
        return dict(load_file(next(iter(statistic.entries.values())).file))


def load(folder: Path) -> Any:
    import sentence_transformers

    return getattr(sentence_transformers, class_of(folder))(str(folder), device="cpu").double().eval()


def stored(name: str, keys: Any) -> str:
    """The one of the stored `keys` with which the name of a parameter in memory ends."""
    (key,) = [key for key in keys if name.endswith(key.replace("_Dense/", "."))] or [name]
    return str(key)


def test_fisher_of_a_reranker_is_that_of_binary_cross_entropy(tmp_path: Path) -> None:
    base = reranker(tmp_path)
    specialist = make_specialist(base, tmp_path / "one", seed=1)
    information = statistics_of(base, specialist, "fisher", tmp_path)
    model = load(specialist)
    (group,) = fisher.batches(task_probe(probe_of(base)["one"]), 0)
    assert sorted(group.columns[0]) == sorted(zip(RANKED["query"], RANKED["candidate"], strict=True))
    scores = torch.cat([model(model.preprocess([pair]))["scores"].view(1) for pair in group.columns[0]])
    assert group.labels is not None
    shares, labels = torch.sigmoid(scores), group.labels
    (-labels * shares.log() - (1 - labels) * (1 - shares).log()).mean().backward()
    squares = {
        stored(name, information): parameter.grad.numpy() ** 2
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    mean = sum(value.sum() for value in squares.values()) / sum(value.size for value in information.values())
    assert set(squares) <= set(information) and "classifier.weight" in squares and mean > 0
    for key, value in squares.items():
        np.testing.assert_allclose(information[key], value / mean, rtol=2e-3, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind", list(BASES))
def test_gram_matrices_are_of_what_the_model_reads(kind: str, tmp_path: Path) -> None:
    base = BASES[kind](tmp_path)
    specialist = make_specialist(base, tmp_path / "one", seed=1)
    grams = statistics_of(base, specialist, "regmean", tmp_path)
    model = load(specialist)
    inputs: dict[str, list[np.ndarray]] = {}

    def hook(key: str) -> Any:
        return lambda _, given: inputs.setdefault(key, []).append(
            given[0].detach().numpy().reshape(-1, given[0].shape[-1])
        )

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "decoder" not in name:
            module.register_forward_pre_hook(hook(stored(f"{name}.weight", grams)))
    probe = probe_of(base)["one"].dataset
    if kind == "CrossEncoder":
        for pair in zip(RANKED["query"], RANKED["candidate"], strict=True):
            model.predict([pair], show_progress_bar=False)
    else:
        for question in dict.fromkeys(probe["anchor"]):
            model.encode_query([question], prompt="", show_progress_bar=False)
        for text in dict.fromkeys([*probe["positive"], *probe["negative"]]):
            model.encode_document([text], prompt="", show_progress_bar=False)
    assert set(grams) == set(inputs) and len(grams) > 5
    for key, parts in inputs.items():
        rows = np.concatenate(parts)
        np.testing.assert_allclose(grams[key], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind", list(BASES))
def test_equal_models_give_themselves(kind: str, tmp_path: Path) -> None:
    base = BASES[kind](tmp_path)
    one = make_specialist(base, tmp_path / "one", seed=1)
    two = Path(shutil.copytree(one, tmp_path / "two"))
    task = probe_of(base)["one"]
    out = operations.merge(base, [one, two], "regmean", tmp_path / "out", probe={"one": task, "two": task})
    assert class_of(out) == kind
    expected = state(one)
    for key, value in state(out).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind", list(BASES))
def test_a_merge_is_made_again_from_its_probe_set(kind: str, tmp_path: Path) -> None:
    base = BASES[kind](tmp_path)
    sources = [make_specialist(base, tmp_path / name, seed=seed) for seed, name in enumerate(["one", "two"])]
    ranked = kind == "CrossEncoder"
    lists = {"query": ["a b", "c", "d e"], "positive": ["f", "g h", "i"], "negative": ["j", "k l", "m"]}
    records = Dataset.from_dict(lists if ranked else ASKED)
    task_type = get_task("reranking" if ranked else "retrieval")
    kept = write_probe(
        tmp_path / "kept", {"one": records, "two": records}, {"one": task_type, "two": task_type}
    )
    out = operations.merge(base, sources, "regmean", tmp_path / "out", probe=read_probe(kept))
    assert reproduce(str(out), probe=kept).identical
    told = json.loads((out / "selfpos.json").read_text())["statistics"]["probe"]
    assert {task["records"] for task in told.values()} == {len(records)}  # of questions, not of pairs


def test_fisher_of_a_search_model_is_refused_with_what_can_be_done(tmp_path: Path) -> None:
    base = splade(tmp_path)
    one = make_specialist(base, tmp_path / "one", seed=1)
    with pytest.raises(SelfposError, match=r"fisher takes no SparseEncoder.*merge such by regmean"):
        operations.merge(base, [one], "fisher", tmp_path / "out", probe=probe_of(base))
    assert not (tmp_path / "out").exists()
