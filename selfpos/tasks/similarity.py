"""Questions and texts as models that search by a similarity of their own compare them: SPLADE and ColBERT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from selfpos.tasks.measure import rows_by

BATCH = 8  # texts embedded at once: SPLADE has a number for each token of a text and each of the vocabulary


def embedded(model: Any, questions: Sequence[str], texts: Sequence[str]) -> tuple[Any, Any]:
    """What `model` makes of the questions and of the texts, which come with their prompts."""
    from sentence_transformers import SparseEncoder

    options: dict[str, Any] = {"prompt": "", "batch_size": BATCH, "show_progress_bar": False}
    if isinstance(model, SparseEncoder):
        options["convert_to_sparse_tensor"] = False
    return model.encode_query(list(questions), **options), model.encode_document(list(texts), **options)


def similarities(model: Any, questions: Sequence[str], texts: Sequence[str]) -> Tensor:
    """The model's own similarities, (questions, texts)."""
    similar: Tensor = model.similarity(*embedded(model, questions, texts))
    return similar


def embedded_with_graph(model: Any, texts: Sequence[str], side: str) -> list[Tensor]:
    """What `embedded` makes of one batch of texts of a `side`, query or document, with a graph.

    Each is (dimensions,) for SPLADE, cut to its `max_active_dims`, or (tokens, dimensions) for ColBERT.
    """
    from sentence_transformers import SparseEncoder
    from sentence_transformers.util import batch_to_device, select_max_active_dims

    for module in model:
        if type(module).__name__ == "SpladePooling":  # which else overwrites what the backward pass needs
            module.train()
    features = batch_to_device(model.preprocess(list(texts), prompt="", task=side), model.device)
    outputs = model(features, task=side)
    if isinstance(model, SparseEncoder):
        return list(select_max_active_dims(outputs["sentence_embedding"], model.max_active_dims))
    masks = outputs["attention_mask"].bool()
    return [tokens[mask] for tokens, mask in zip(outputs["token_embeddings"], masks, strict=True)]


def scores_of_pairs(model: Any, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, int]:
    """The model's similarity of each question and text, (pairs, 1); and how many texts it embedded.

    Each is embedded once.
    """
    questions, texts = sides(pairs)
    return compared(model, pairs, *embedded(model, questions, texts)), len(questions) + len(texts)


def sides(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The questions and the texts of `pairs`, each once."""
    questions, texts = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    return questions, texts


def compared(
    model: Any, pairs: Sequence[tuple[str, str]], asked: Sequence[Any], found: Sequence[Any]
) -> Tensor:
    """The similarity of each pair, (pairs, 1), of what the model makes of its `sides`.

    Differentiable. Questions with the same texts are compared in one go.
    """
    by_question = rows_by([question for question, _ in pairs])
    row_of = {text: row for row, text in enumerate(sides(pairs)[1])}
    numbers = {question: row for row, question in enumerate(by_question)}
    together: dict[tuple[int, ...], list[str]] = {}
    for question, rows in by_question.items():
        together.setdefault(tuple(row_of[pairs[row][1]] for row in rows), []).append(question)
    scores = torch.empty(len(pairs), 1)
    for columns, questions in together.items():
        similar = model.similarity(
            [asked[numbers[question]] for question in questions], [found[column] for column in columns]
        )
        places = torch.tensor([by_question[question] for question in questions])
        scores[places.reshape(-1), 0] = similar.reshape(-1).float().cpu()
    return scores
