"""What `training/trainer.py` overrides or calls of the libraries' internals is still there."""

from __future__ import annotations

import inspect

import pytest
from sentence_transformers import SentenceTransformerTrainer
from transformers import Trainer as TransformersTrainer

INTERNALS = {
    "_save": (
        ["self", "output_dir", "state_dict"],
        "checkpoints would get model cards and pickled arguments",
    ),
    "_load_from_checkpoint": (
        ["self", "checkpoint_path"],
        "a validated training could not restore its best state",
    ),
    "_track_num_input_tokens": (["self", "inputs"], "tokens would be counted with padding, or not at all"),
}


@pytest.mark.parametrize("name", INTERNALS)
def test_an_internal_method_of_the_trainer_is_there(name: str) -> None:
    parameters, consequence = INTERNALS[name]
    method = getattr(SentenceTransformerTrainer, name, None)
    assert method is not None, f"the trainer has no {name} any more: {consequence}"
    assert list(inspect.signature(method).parameters) == parameters, (
        f"{name} takes other arguments: {consequence}"
    )


def test_the_trainer_still_counts_tokens_by_the_method_that_is_overridden() -> None:
    source = inspect.getsource(TransformersTrainer)
    assert source.count("_track_num_input_tokens(") > 1, "the trainer calls _track_num_input_tokens no more"
