"""The cache of embeddings and tokens: found again, damage noticed, shared by merges; and embeddings equal to
SentenceTransformer's own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from selfpos.errors import OperationError
from selfpos.evaluation import evaluate
from selfpos.evaluation.embed import EncodingOptions, constant_features
from selfpos.evaluation.encoder import Embedder, embedding_identity
from selfpos.evaluation.store import DiskStore, MemoryStore, key_of
from selfpos.passes import batches
from tests.helpers.own_tasks import sentence

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

RECORDS = [(key_of(str(number)), bytes([number]) * (number + 1)) for number in range(20)]


def refuse(texts: list[str]) -> np.ndarray:
    pytest.fail(f"{len(texts)} texts were embedded")


def loaded(folder: Path, cache: Path | None = None) -> tuple[Any, Embedder]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return model, Embedder(model, embedding_identity(folder, model), cache)


def texts_of(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [sentence(rng, rng.randrange(1, 20)) for _ in range(count)]


def test_what_is_kept_is_found_by_the_next_process(tmp_path: Path) -> None:
    first = DiskStore(tmp_path, {"model": "x"})
    first.put(RECORDS[:12])
    assert first.get(RECORDS[3][0]) == RECORDS[3][1]
    first.put(RECORDS[12:])
    assert [first.get(key) for key, _ in RECORDS] == [record for _, record in RECORDS]
    first.close()
    second = DiskStore(tmp_path, {"model": "x"})
    assert [second.get(key) for key, _ in RECORDS] == [record for _, record in RECORDS]
    assert second.get(key_of("other")) is None
    assert json.loads((second.folder / "about.json").read_text()) == {"model": "x"}
    assert DiskStore(tmp_path, {"model": "y"}).get(RECORDS[0][0]) is None


@pytest.mark.parametrize("cut", [1, 30, 45, 100])
@pytest.mark.parametrize("file", ["records", "index"])
def test_a_torn_end_costs_no_more_than_its_records(tmp_path: Path, file: str, cut: int) -> None:
    first = DiskStore(tmp_path, {})
    first.put(RECORDS)
    first.close()
    whole = (first.folder / file).read_bytes()
    (first.folder / file).write_bytes(whole[:-cut])
    second = DiskStore(tmp_path, {})
    found = [second.get(key) for key, _ in RECORDS]
    assert all(have in (None, record) for have, (_, record) in zip(found, RECORDS, strict=True))
    assert None in found and found[0] == RECORDS[0][1]
    second.put(RECORDS)  # made anew behind what was cut
    second.close()
    third = DiskStore(tmp_path, {})
    assert [third.get(key) for key, _ in RECORDS] == [record for _, record in RECORDS]


def test_a_damaged_record_is_not_there(tmp_path: Path) -> None:
    first = DiskStore(tmp_path, {})
    first.put(RECORDS)
    first.close()
    data = bytearray((first.folder / "records").read_bytes())
    data[-5] ^= 1
    (first.folder / "records").write_bytes(data)
    second = DiskStore(tmp_path, {})
    assert second.get(RECORDS[-1][0]) is None and second.get(RECORDS[0][0]) == RECORDS[0][1]


def test_two_at_once_one_writes(tmp_path: Path) -> None:
    first = DiskStore(tmp_path, {})
    first.put(RECORDS[:2])
    second = DiskStore(tmp_path, {})
    second.put(RECORDS[2:])
    assert second.get(RECORDS[0][0]) == RECORDS[0][1] and second.get(RECORDS[2][0]) is None
    first.put(RECORDS[2:])
    first.close()
    assert DiskStore(tmp_path, {}).get(RECORDS[5][0]) == RECORDS[5][1]


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = DiskStore(tmp_path / "file", {})
    store.put(RECORDS)
    assert store.get(RECORDS[0][0]) is None


def test_memory_has_a_limit() -> None:
    store = MemoryStore(10)
    store.put(RECORDS)
    assert sum(store.get(key) is not None for key, _ in RECORDS) == 4  # 1 + 2 + 3 + 4 bytes


def test_batches_keep_to_the_budget_and_hold_every_text_once() -> None:
    lengths = [random.Random(seed).randrange(1, 300) for seed in range(500)]
    found = list(batches(lengths, 1024, 64))
    assert sorted(place for batch in found for place in batch) == list(range(500))
    assert all(
        len(batch) == 1 or (len(batch) <= 64 and len(batch) * max(lengths[p] for p in batch) <= 1024)
        for batch in found
    )
    assert [len(batch) for batch in batches([3000, 1], 1024, 64)] == [1, 1]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("prompt", [None, "query: "])
def test_embeddings_are_those_of_sentence_transformers(
    tiny_base: Path, tmp_path: Path, prompt: str | None, threads: int
) -> None:
    import torch

    model, embedder = loaded(tiny_base, tmp_path)
    texts = [*texts_of(300), "", "  ", texts_of(1)[0]]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = embedder.rows(texts, EncodingOptions(prompt), 32, refuse)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.abs(found - model.encode(texts, prompt=prompt or "")).max() < 1e-6
    assert np.array_equal(embedder.rows(texts, EncodingOptions(prompt), 32, refuse), found)


@pytest.mark.parametrize("family", ["roberta", "qwen-left"])
def test_other_families(family: str, tmp_path: Path) -> None:
    """RoBERTa counts positions from the padding number; decoders pad on the left and pool the last token."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as st
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model, RobertaConfig, RobertaModel

    words = ["<pad>", "<unk>", *sorted({word for text in texts_of(200) for word in text.split()})]
    backend = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    left = family == "qwen-left"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left" if left else "right",
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.save_pretrained(tmp_path / "raw")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    if left:
        config = Qwen3Config(vocab_size=len(words), num_key_value_heads=2, head_dim=16, **sizes)
        Qwen3Model(config).save_pretrained(tmp_path / "raw")
    else:
        RobertaModel(
            RobertaConfig(vocab_size=len(words), pad_token_id=0, max_position_embeddings=64, **sizes)
        ).save_pretrained(tmp_path / "raw")
    parts = [
        st.Transformer(str(tmp_path / "raw"), max_seq_length=16),
        st.Pooling(32, pooling_mode="lasttoken" if left else "mean"),
    ]
    SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(tmp_path / "model"))
    model, embedder = loaded(tmp_path / "model")
    assert constant_features(model, EncodingOptions(None)) is not None
    texts = texts_of(80)
    assert (
        np.abs(
            embedder.rows(texts, EncodingOptions(None), 8, refuse) - model.encode(texts, batch_size=8)
        ).max()
        < 2e-6
    )


def test_models_of_unknown_features_embed_by_themselves(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpos.evaluation.encoder.constant_features", lambda *_: None)
    model, embedder = loaded(tiny_base, tmp_path)
    texts = texts_of(70)
    found = embedder.rows(texts, EncodingOptions(None), 2, lambda some: model.encode(some))
    assert np.abs(found - model.encode(texts)).max() < 1e-6
    assert np.array_equal(embedder.rows(texts, EncodingOptions(None), 2, refuse), found)


def test_a_stopped_evaluation_goes_on(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import selfpos.evaluation.embed as embed

    texts, forward, calls = texts_of(600), embed._forward, []

    def stopped(*arguments: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(*arguments)

    monkeypatch.setattr(embed, "_forward", stopped)
    _, first = loaded(tiny_base, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.rows(texts, EncodingOptions(None), 8, refuse)
    first.close()
    done: list[int] = []
    monkeypatch.setattr(
        embed,
        "_forward",
        lambda model, tokens, *more: (done.append(len(tokens)), forward(model, tokens, *more))[1],
    )
    model, second = loaded(tiny_base, tmp_path)
    found = second.rows(texts, EncodingOptions(None), 8, refuse)
    assert 0 < sum(done) < 600
    assert np.abs(found - model.encode(texts)).max() < 1e-6


def test_merges_share_tokens_and_nothing_else(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    texts = texts_of(50)
    for folder in (tiny_base, *tiny_specialists):
        model, embedder = loaded(folder, tmp_path)
        assert (
            np.abs(embedder.rows(texts, EncodingOptions(None), 8, refuse) - model.encode(texts)).max() < 1e-6
        )
        embedder.close()
    assert len(list((tmp_path / "tokens").iterdir())) == 1
    assert len(list((tmp_path / "embeddings").iterdir())) == 1 + len(tiny_specialists)
    assert (next((tmp_path / "tokens").iterdir()) / "index").stat().st_size == 40 * len(set(texts))


def test_embeddings_that_are_not_finite_are_refused(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import selfpos.evaluation.embed as embed

    _, embedder = loaded(tiny_base)
    monkeypatch.setattr(
        embed,
        "_forward",
        lambda model, tokens, *_: np.full((len(tokens), embedder.dimension), np.nan, np.float32),
    )
    with pytest.raises(OperationError, match=r"the model's embedding of 'abc' is not finite"):
        embedder.rows(["abc"], EncodingOptions(None), 8, refuse)


@pytest.mark.slow
def test_scores_are_those_of_plain_mteb(
    tiny_base: Path, tmp_path: Path, made_up_corpus: Any, sts_task: Callable[..., AbsTask]
) -> None:
    import mteb
    from sentence_transformers import SentenceTransformer

    from selfpos.evaluation.corpus_tasks import corpus_tasks

    plain = {}
    for task in [*corpus_tasks(made_up_corpus), sts_task()]:
        model = SentenceTransformer(str(tiny_base), device="cpu")
        (result,) = mteb.evaluate(
            model, task, cache=None, co2_tracker=False, show_progress_bar=False
        ).task_results
        plain[task.metadata.name] = result.get_score()
    for turn, cache in enumerate((None, tmp_path / "cache", tmp_path / "cache")):
        tasks = [*corpus_tasks(made_up_corpus), sts_task()]
        ours = evaluate(tiny_base, tasks, tmp_path / str(turn), name="tiny", cache=cache)
        assert {name: score.main_score for name, score in ours.items()} == pytest.approx(plain, abs=1e-6)
